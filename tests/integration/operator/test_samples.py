"""Each sample is accepted; what is wrong is refused when it is applied, in words that a person understands."""

from pathlib import Path
from typing import Any

import pytest

from tests.cronlines import ACCEPTED, REFUSED
from tests.integration.operator.apiserver import ApiServer

SAMPLES = sorted((Path(__file__).resolve().parents[3] / "manifests" / "samples").glob("*.yaml"))
EMAIL = {"to": "ada@example.org", "subject": "Hello", "body": "World"}
CHARGE = {"payment_id": "p", "user_id": "u", "amount": 1, "currency": "EUR", "method": "card"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_each_sample_is_accepted(kubernetes: ApiServer, sample: Path) -> None:
    kubernetes("apply", "--dry-run=server", "-f", str(sample))


def test_there_is_a_sample_of_each_kind() -> None:
    assert {"send-email", "send-webhook", "process-payment", "schedule", "worker-pool"} <= {p.stem for p in SAMPLES}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"queue": "email"}, "give either payload or payloadFrom"),
        ({"queue": "other", "payload": {}}, "type is required for this queue"),
        ({"queue": "EMAIL", "payload": EMAIL}, "spec.queue"),
        ({"queue": "email", "payload": EMAIL, "priority": 101}, "less than or equal to 100"),
        ({"queue": "email", "payload": EMAIL, "maxRetries": 21}, "less than or equal to 20"),
        ({"queue": "email", "payload": {**EMAIL, "to": "nobody"}}, "payload.to must be an e-mail address"),
        ({"queue": "email", "payload": {"to": "a@b.c"}}, "payload.subject is required"),
        ({"queue": "email", "payload": {**EMAIL, "cc": 1}}, "payload may only have the fields"),
        ({"queue": "email", "payload": {**EMAIL, "subject": "a\nb"}}, "payload.subject must be one line"),
        ({"queue": "payment", "payload": {**CHARGE, "amount": -1}}, "payload.amount must be more than 0"),
        ({"queue": "payment", "payload": {**CHARGE, "currency": "EURO"}}, "payload.currency"),
        ({"queue": "webhooks", "payload": {"url": "ftp://x", "method": "POST", "body": {}}}, "http:// or https://"),
        (
            {"queue": "webhooks", "payload": {"url": "http://x", "method": "BREW", "body": {}}},
            "payload.method must be one of",
        ),
    ],
)
def test_a_wrong_job_is_refused_in_plain_words(kubernetes: ApiServer, spec: dict[str, Any], words: str) -> None:
    body = {"apiVersion": "goqueue.io/v1alpha1", "kind": "GoQueueJob", "metadata": {"name": "bad"}, "spec": spec}
    assert words in kubernetes.refusal(body)


def test_a_schedules_payload_is_looked_at_as_well(kubernetes: ApiServer) -> None:
    template = {"spec": {"queue": "email", "payload": {"to": "a@b.c"}}}
    body = {
        "apiVersion": "goqueue.io/v1alpha1",
        "kind": "GoQueueSchedule",
        "metadata": {"name": "bad"},
        "spec": {"cron": "* * * * *", "jobTemplate": template},
    }
    assert "payload.subject is required" in kubernetes.refusal(body)
    body["spec"] = {"cron": "often", "jobTemplate": {"spec": {"queue": "email", "payload": EMAIL}}}
    assert "spec.cron" in kubernetes.refusal(body)


def scheduled(cron: str) -> dict[str, Any]:
    template = {"spec": {"queue": "email", "payload": EMAIL}}
    return {
        "apiVersion": "goqueue.io/v1alpha1",
        "kind": "GoQueueSchedule",
        "metadata": {"name": "lines"},
        "spec": {"cron": cron, "jobTemplate": template},
    }


def test_lines_of_other_systems_are_refused_in_the_words_of_the_rest_api(kubernetes: ApiServer) -> None:
    for line, words in REFUSED.items():
        told = kubernetes.refusal(scheduled(line))
        assert words in told, line
        assert "spec.cron" in told, line


def test_the_definition_takes_all_that_the_rest_api_takes(kubernetes: ApiServer) -> None:
    for line in ACCEPTED:
        kubernetes("create", "--dry-run=server", "-f", "-", stdin=scheduled(line))


def test_what_a_job_does_cannot_be_changed_but_when_it_runs_and_goes_can(kubernetes: ApiServer) -> None:
    body: dict[str, Any] = {
        "apiVersion": "goqueue.io/v1alpha1",
        "kind": "GoQueueJob",
        "metadata": {"name": "fixed"},
        "spec": {"queue": "email", "payload": EMAIL},
    }
    kubernetes("create", "-f", "-", stdin=body)
    body["spec"] |= {"suspend": True, "priority": 5, "ttlSecondsAfterFinished": 60}
    kubernetes("apply", "-f", "-", stdin=body)
    body["spec"]["maxRetries"] = 1
    assert "maxRetries cannot be changed" in kubernetes.refusal(body)
    del body["spec"]["maxRetries"]
    body["spec"]["payload"] = {**EMAIL, "body": "another"}
    assert "payload cannot be changed" in kubernetes.refusal(body)
    kubernetes("delete", "gqj", "fixed")


APPLY, SERVER_SIDE, REPLACE = ("apply",), ("apply", "--server-side", "--force-conflicts"), ("replace",)
NULLS: dict[str, Any] = {"a": None, "deep": {"b": None, "c": {"d": None, "e": 1}}, "list": [{"f": None, "g": 1}, None]}
CHANGED: dict[str, dict[str, Any]] = {
    "a null to a value": {**NULLS, "a": 1},
    "a value to a null": {**NULLS, "deep": {"c": {"e": None}}},
    "a value": {**NULLS, "deep": {"c": {"e": 2}}},
    "a new field": {**NULLS, "g": 1},
    "an object to a list": {**NULLS, "deep": [1]},
    "a value in a list": {**NULLS, "list": [{"g": 2}, None]},
    "a null that is an item": {**NULLS, "list": [{"g": 1}]},
    "the order of a list": {**NULLS, "list": [None, {"g": 1}]},
}


def holding(payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "goqueue.io/v1alpha1",
        "kind": "GoQueueJob",
        "metadata": {"name": "nulls"},
        "spec": {"queue": "default", "type": "anything", "payload": payload},
    }


@pytest.mark.parametrize("first", [APPLY, SERVER_SIDE, ("create",)], ids=" ".join)
def test_an_unchanged_file_with_nulls_is_taken_by_each_way_of_applying(
    kubernetes: ApiServer, first: tuple[str, ...]
) -> None:
    kubernetes(*first, "-f", "-", stdin=holding(NULLS))
    try:
        for way in (APPLY, SERVER_SIDE, REPLACE, APPLY):
            kubernetes(*way, "-f", "-", stdin=holding(NULLS))
        for what, payload in CHANGED.items():
            told = kubernetes.run("replace", "-f", "-", stdin=holding(payload))
            assert "payload cannot be changed" in told.stderr, what
    finally:
        kubernetes("delete", "gqj", "nulls")
