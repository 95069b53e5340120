"""A Jaeger in the cluster sees every process, and one trace from `kubectl apply` to the attempt on a worker."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.system import System, gqj, until
from tests.e2e.tracing import Traces, traced
from tests.servers.jaeger import Span, shown

pytestmark = pytest.mark.timeout(300)

SCHEDULE = "traced"
OPERATOR, WORKER, SCHEDULER = "goqueue-operator", "goqueue-worker", "goqueue-scheduler"


@pytest.fixture(scope="module")
def traces(system: System) -> Iterator[Traces]:
    with traced(system) as made:
        yield made


def way_to(spans: list[Span], name: str) -> list[tuple[str, str]]:
    """Service and name of each span from the root of a trace to the one span of that name.

    Raises:
        AssertionError: the trace is not one tree.
    """
    by_id = {span.id: span for span in spans}
    assert [span.parent is None for span in spans].count(True) == 1, shown(spans)
    assert all(span.parent in by_id for span in spans if span.parent is not None), shown(spans)
    (span,) = (span for span in spans if span.name == name)
    way = [span]
    while way[-1].parent is not None:
        way.append(by_id[way[-1].parent])
    return [(span.service, span.name) for span in reversed(way)]


@pytest.mark.parametrize("pool", ["default", "work", "scale"])
def test_an_applied_resource_is_one_trace_from_the_operator_to_the_attempt(
    system: System, traces: Traces, pool: str
) -> None:
    """In each pool; its queue has the same name."""
    system.apply(gqj(f"traced-{pool}", queue=pool))
    system.wait("condition=Succeeded", f"gqj/traced-{pool}")
    status = system.get("gqj", f"traced-{pool}")["status"]
    assert system.job(status["jobID"])["trace_id"] == status["traceID"]
    accept, send, process = "accept GoQueueJob", f"send {pool}", f"process {pool}"
    spans = traces.with_spans(status["traceID"], {accept, send, f"wait {pool}", process, "write status"})
    system.note(f"the trace of gqj/traced-{pool}", shown(spans))
    assert way_to(spans, process) == [(OPERATOR, accept), (OPERATOR, send), (WORKER, process)]
    assert way_to(spans, "write status") == [(OPERATOR, accept), (OPERATOR, send), (OPERATOR, "write status")]
    (attempt,) = (span for span in spans if span.name == process)
    assert attempt.tags["messaging.client.id"].startswith(f"e2e-goqueue-{pool}-")
    assert attempt.tags["messaging.message.id"] == str(status["jobID"])
    assert attempt.tags["goqueue.attempt.outcome"] == "completed"


def test_the_line_of_a_failed_attempt_is_found_by_the_trace_that_the_resource_names(
    system: System, traces: Traces
) -> None:
    """By the command of docs/observability.md."""
    system.apply(gqj("traced-failure", {"fail": True}, maxRetries=0))
    system.wait("condition=Failed", "gqj/traced-failure")
    status = system.get("gqj", "traced-failure")["status"]
    logs = system.kubectl("logs", "-l", "app.kubernetes.io/name=goqueue", "--prefix", "--tail=-1")
    (line,) = (line for line in logs.splitlines() if status["traceID"] in line)
    system.note("its line", line)
    place, _, told = line.partition(" ")
    assert place.startswith("[pod/e2e-goqueue-work-")
    assert json.loads(told)["job_id"] == status["jobID"]
    spans = traces.with_spans(status["traceID"], {"process work", "write status"})
    (attempt,) = (span for span in spans if span.name == "process work")
    assert json.loads(told)["span_id"] == attempt.id


def test_a_tick_of_a_schedule_is_one_trace_from_the_scheduler_to_the_attempt(system: System, traces: Traces) -> None:
    order = {"queue": "work", "type": "work", "payload": {}}
    answer = system.rest.put(f"/schedules/{SCHEDULE}", json={"cron": "* * * * *", "job": order})
    assert answer.status_code == 201, answer.text
    try:
        ask = lambda: system.rest.get(f"/schedules/{SCHEDULE}").json()["last_job_id"]  # noqa: E731
        id = until("a tick of the schedule", ask, 75, 1.0)
    finally:
        system.rest.delete(f"/schedules/{SCHEDULE}")
    job = system.status(id, "completed", timeout=60)
    spans = traces.with_spans(job["trace_id"], {"fire schedule", "send work", "process work"})
    ways = [(SCHEDULER, "fire schedule"), (SCHEDULER, "send work"), (WORKER, "process work")]
    assert way_to(spans, "process work") == ways


def test_jaeger_sees_api_worker_scheduler_and_operator(system: System, traces: Traces) -> None:
    job = system.status(system.enqueue(), "completed", timeout=60)
    spans = traces.with_spans(job["trace_id"], {"POST /jobs/create", "send work", "process work"})
    ways = [("goqueue-api", "POST /jobs/create"), ("goqueue-api", "send work"), (WORKER, "process work")]
    assert way_to(spans, "process work") == ways
    assert {name for name in traces.services() if name.startswith("goqueue")} == {
        f"goqueue-{process}" for process in ("api", "worker", "scheduler", "operator")
    }
    system.note("services that Jaeger has seen", sorted(traces.services()))
