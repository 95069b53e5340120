"""What is wrong is refused when it is applied, or ends as Failed; either way in words that say what to change."""

from typing import Any

import pytest

from tests.cluster.receiver import config_map
from tests.e2e.system import System, gqj

pytestmark = pytest.mark.timeout(90)

EMAIL = {"to": "ada@example.org", "subject": "Hello", "body": "World"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"queue": "email", "type": "send_email", "payload": {**EMAIL, "to": "nobody"}},
            "payload.to must be an e-mail",
        ),
        ({"queue": "email", "type": "send_email", "payload": {"to": "a@b.c"}}, "payload.subject is required"),
        ({"priority": 101}, "less than or equal to 100"),
        ({"queue": "NO"}, "spec.queue"),
        ({"maxretries": 3}, 'unknown field "spec.maxretries"'),
    ],
)
def test_a_wrong_job_is_refused_when_it_is_applied(system: System, spec: dict[str, Any], words: str) -> None:
    assert words in system.refusal(gqj("bad", **spec))


def test_a_wrong_pool_or_schedule_is_refused_when_it_is_applied(system: System) -> None:
    pool = gqj("bad") | {"kind": "GoQueueWorkerPool", "spec": {"minReplicas": 3, "maxReplicas": 2}}
    assert "minReplicas" in system.refusal(pool)
    template = {"spec": {"queue": "work", "type": "work", "payload": {}}}
    schedule = gqj("bad") | {"kind": "GoQueueSchedule", "spec": {"cron": "often", "jobTemplate": template}}
    assert "spec.cron" in system.refusal(schedule)


@pytest.mark.parametrize(
    ("name", "spec", "reason", "words"),
    [
        ("unknown-type", {"type": "juggle"}, "InvalidJobType", "provided: juggle"),
        ("unknown-queue", {"queue": "nowhere"}, "InvalidQueue", "provided: nowhere"),
        ("wrong-payload", {"payload": {"seconds": "soon"}}, "PayloadValidationFailed", "seconds: "),
        ("no-retries", {"payload": {"fail": True}, "maxRetries": 0}, "RetriesUsedUp", "as the payload says"),
        ("two-retries", {"payload": {"fail": True}, "maxRetries": 2}, "RetriesUsedUp", "as the payload says"),
        (
            "loopback",
            {
                "queue": "webhooks",
                "type": "send_webhook",
                "payload": {"url": "http://127.0.0.1/", "method": "POST", "body": {}},
            },
            "GivenUp",
            "loopback",
        ),
    ],
)
def test_a_job_that_cannot_be_done_ends_as_failed(
    system: System, name: str, spec: dict[str, Any], reason: str, words: str
) -> None:
    system.apply(gqj(name, **spec))
    system.wait("condition=Failed", f"gqj/{name}")
    status = system.get("gqj", name)["status"]
    (failed,) = (one for one in status["conditions"] if one["type"] == "Failed")
    assert (failed["reason"], words in failed["message"]) == (reason, True), failed
    assert words in status["error"]
    if name == "two-retries":
        assert status["attempts"] == 3


def test_a_payload_that_is_missing_is_waited_for(system: System) -> None:
    body = gqj("late", payloadFrom={"configMapKeyRef": {"name": "late", "key": "payload"}})
    del body["spec"]["payload"]
    system.apply(body)
    system.wait('jsonpath={.status.conditions[?(@.type=="Accepted")].reason}=PayloadNotFound', "gqj/late")
    system.apply(config_map("late", payload="{}"))
    system.wait("condition=Succeeded", "gqj/late")


def test_what_is_wrong_with_a_pool_stands_in_its_conditions(system: System) -> None:
    template = {"spec": {"serviceAccountName": "e2e-goqueue-operator"}}
    pool = gqj("greedy") | {"kind": "GoQueueWorkerPool", "spec": {"minReplicas": 1, "podTemplate": template}}
    system.apply(pool)
    system.wait('jsonpath={.status.conditions[?(@.type=="Available")].reason}=Refused', "gqp/greedy")
    assert "serviceAccountName" in system.get("gqp", "greedy")["status"]["reason"]
    system.kubectl("delete", "gqp", "greedy", "--timeout=30s")
