"""Each file of manifests/samples does what its first lines say, with receivers that stand in for the outside world."""

import json
from email import message_from_string

import pytest
from standardwebhooks.webhooks import Webhook

from tests.e2e.system import NAMESPACE, SAMPLES, SECRET, System

pytestmark = pytest.mark.timeout(120)


def sample(system: System, name: str) -> None:
    system.kubectl("apply", "-f", str(SAMPLES / f"{name}.yaml"))


def test_this_file_knows_all_samples() -> None:
    assert {path.stem for path in SAMPLES.glob("*.yaml")} == {
        "payload-from-secret",
        "process-payment",
        "schedule",
        "send-email",
        "send-webhook",
        "suspended",
        "worker-pool",
    }


def test_jobs_are_served_by_a_pool_that_somebody_made(system: System) -> None:
    sample(system, "worker-pool")
    system.wait("condition=Available", "gqp/mail")
    system.pin("default", 0)  # so that it is the only one for e-mail and webhooks
    system.pool_has("default", 0)


def test_an_email_is_sent_encrypted(system: System) -> None:
    sample(system, "send-email")
    system.wait("condition=Succeeded", "gqj/welcome")
    (mail,) = (one for one in system.received()["mail"] if one["rcpt"] == "ada@example.org")
    assert mail["tls"]
    message = message_from_string(mail["text"])
    assert message["Subject"] == "Welcome"
    assert "Good to have you here." in str(message.get_payload())
    assert system.get("gqj", "welcome")["status"]["attempts"] == 1


def test_a_webhook_is_sent_over_tls_and_signed(system: System) -> None:
    sample(system, "send-webhook")
    system.wait("condition=Succeeded", "gqj/order-paid")
    (request,) = (one for one in system.received()["http"] if one["path"] == "/orders")
    assert request["method"] == "POST"
    assert request["headers"]["x-shop"] == "north"
    assert json.loads(request["body"]) == {"order": 4711, "state": "paid"}
    assert Webhook(SECRET).verify(request["body"], request["headers"])


def test_a_payload_from_a_secret_is_read_by_the_operator_alone(system: System) -> None:
    sample(system, "payload-from-secret")
    system.wait("condition=Succeeded", "gqj/newsletter")
    assert any("Subject: News" in one["text"] for one in system.received()["mail"])


def test_a_suspended_job_waits_until_it_is_let_go(system: System) -> None:
    sample(system, "suspended")
    system.wait("jsonpath={.status.state}=suspended", "gqj/on-my-word")
    system.kubectl("patch", "gqj/on-my-word", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    system.wait("condition=Succeeded", "gqj/on-my-word")
    assert any("Subject: On my word" in one["text"] for one in system.received()["mail"])


def test_a_payment_is_charged_once(system: System) -> None:
    system.pin("default", None)
    sample(system, "process-payment")
    system.wait("condition=Succeeded", "gqj/charge-4711")
    sample(system, "process-payment")  # the same again is no second charge
    uid = system.get("gqj", "charge-4711")["metadata"]["uid"]
    assert system.sql(f"SELECT attempts FROM jobs WHERE source_key LIKE '%{uid}%'") == [["1"]]  # noqa: S608 - numbers and names of the test itself


def test_a_schedule_is_planned_in_its_own_time_zone(system: System) -> None:
    sample(system, "schedule")
    system.wait("condition=Ready", "gqs/morning-report")
    planned = system.get("gqs", "morning-report")["status"]["nextScheduleTime"]
    assert planned[10:] in ("T05:30:00Z", "T06:30:00Z"), planned


def test_what_was_applied_can_be_listed_and_deleted(system: System) -> None:
    listed = system.kubectl("get", "gqj")
    assert "welcome" in listed
    assert "completed" in listed
    system.kubectl("delete", "-f", str(SAMPLES), "--timeout=60s", timeout=70)
    system.wait("delete", "deployment/mail")
    assert NAMESPACE in system.kubectl("get", "gqp", "-o", "jsonpath={..metadata.namespace}")
