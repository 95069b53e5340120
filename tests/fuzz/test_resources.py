"""Custom resources as the API server lets them through: the operator understands them or refuses them, and goes on."""

import copy
from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import strategies as st

import goqueue.builtin  # noqa: F401 - registers the built-in types
from goqueue.errors import InvalidInput
from goqueue.job import Source
from goqueue.orders import accept
from goqueue.registry import REGISTRY
from goqueue_operator import jobstatus, load, payloads
from goqueue_operator.crds.job import JOB
from goqueue_operator.crds.pool import POD, POOL
from goqueue_operator.crds.schedule import SCHEDULE
from goqueue_operator.crds.schema import obj
from goqueue_operator.deployment import Refused, build
from goqueue_operator.entries import parsed
from goqueue_operator.jobstatus import Refusal
from goqueue_operator.pool import policy
from goqueue_operator.scheduleplan import Schedule
from tests.fuzz.inputs import fuzz
from tests.fuzz.schemas import fitting, part
from tests.unit.operator import golden

NOW = datetime(2026, 6, 1, tzinfo=UTC)
QUEUES = ["default", "email", "webhooks", "payment"]
MAIL = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}


def resource(spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """A resource as the watch shows it."""
    metadata = {"uid": "u", "namespace": "n", "name": "x", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": spec, "status": status}


def _order(spec: dict[str, Any]) -> str:
    """What becomes of the spec of a job whose payload stands in it."""
    try:
        body = payloads.body(spec, payloads.storable(spec.get("payload")))
        orjson.dumps(accept(body, REGISTRY, QUEUES, source=Source.KUBERNETES).payload)
    except InvalidInput as error:
        orjson.dumps(error.as_dict())
        return "refused"
    return "accepted"


_GOOD = st.sampled_from(
    [{"queue": "email", "payload": MAIL}, {"queue": "default", "type": "send_email", "payload": MAIL}]
)


@fuzz(spec=part(JOB, "spec"), good=st.just({}) | _GOOD, status=part(JOB, "status"))
def test_any_job_is_understood_or_refused(spec: dict[str, Any], good: dict[str, Any], status: dict[str, Any]) -> str:
    whole = resource(spec | good, status)
    before = copy.deepcopy(whole)
    entry = parsed(whole)
    entry.wanted(NOW)
    refused = jobstatus.refused(entry.status, Refusal("Reason", "message", True), entry.generation, NOW)
    orjson.dumps(jobstatus.difference(entry.status, refused))
    outcome = "suspended" if entry.suspend else _order(orjson.loads(entry.spec)) if entry.spec is not None else "ended"
    assert whole == before
    return outcome


_POD = fitting(obj("", POD))


@fuzz(spec=part(POOL, "spec"), pod=_POD, status=part(POOL, "status"))
def test_any_pool_becomes_a_deployment_or_is_refused(
    spec: dict[str, Any], pod: dict[str, Any], status: dict[str, Any]
) -> str:
    whole = resource(spec | {"podTemplate": {**spec.get("podTemplate", {}), "spec": pod}}, status)
    before = copy.deepcopy(whole)
    policy(whole)
    load.served(whole, QUEUES)
    try:
        made = build(whole, 1, golden.DEFAULTS)
    except Refused:
        made = None
    assert whole == before
    if made is None:
        return "refused"
    orjson.dumps(made)
    assert made["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    return "built"


@fuzz(spec=part(SCHEDULE, "spec"), good=st.just({}) | st.just({"cron": "0 3 * * *"}), status=part(SCHEDULE, "status"))
def test_any_schedule_is_planned_or_told_what_is_wrong(
    spec: dict[str, Any], good: dict[str, Any], status: dict[str, Any]
) -> str:
    schedule = Schedule(resource(spec | good, status), status, status)
    schedule.plan(NOW)
    assert (schedule.next is None) == bool(schedule.problem)
    _order(spec["jobTemplate"].get("spec") or {})
    return "refused" if schedule.problem else "planned"
