"""Traces of what an operator does, on a real API server, in a real Jaeger."""

import asyncio
from collections.abc import Iterator

import pytest

from goqueue import tracing
from tests.integration.operator.conftest import World
from tests.servers.jaeger import Jaeger, Span


@pytest.fixture
def traced(jaeger: Jaeger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jaeger]:
    """This process sends its spans to Jaeger."""
    for name, value in jaeger.environment().items():
        monkeypatch.setenv(name, value)
    tracing.begin("operator")
    yield jaeger
    tracing.end()


def by_name(spans: list[Span]) -> dict[str, Span]:
    """Spans by name; each is there once."""
    found = {span.name: span for span in spans}
    assert len(found) == len(spans)
    return found


async def test_a_resource_its_job_and_the_status_of_its_end_are_one_trace(world: World, traced: Jaeger) -> None:
    async with world.operator(), world.engine.worker():
        await world.job("one", payload={"n": 1})
        status = await world.state("one", "completed")
        names = {"accept GoQueueJob", "send default", "wait default", "process default", "write status"}
        spans = await asyncio.to_thread(
            traced.until, status["traceID"], lambda spans: names <= {span.name for span in spans}
        )
    found = by_name(spans)
    assert found.keys() == names
    accept, send, process = found["accept GoQueueJob"], found["send default"], found["process default"]
    assert accept.parent is None
    assert (send.kind, send.parent) == ("producer", accept.id)
    assert (process.kind, process.parent) == ("consumer", send.id)
    assert found["write status"].parent == send.id
    assert found["write status"].tags["goqueue.job.state"] == "completed"
    assert accept.tags["k8s.namespace.name"] == world.namespace
    assert accept.tags["goqueue.resource.name"] == "one"
    assert send.tags["goqueue.job.source"] == "kubernetes"


async def test_a_resource_joins_the_trace_that_its_annotation_names(world: World, traced: Jaeger) -> None:
    trace_id, span_id = "5" * 32, "6" * 16
    body = {
        "apiVersion": "goqueue.io/v1alpha1",
        "kind": "GoQueueJob",
        "metadata": {"name": "one", "annotations": {"goqueue.io/traceparent": f"00-{trace_id}-{span_id}-01"}},
        "spec": {"queue": "default", "type": "echo", "payload": {}},
    }
    async with world.operator():
        await world.kubectl("create", "-f", "-", stdin=body)
        assert (await world.state("one", "pending"))["traceID"] == trace_id
        spans = await asyncio.to_thread(
            traced.until, trace_id, lambda spans: "accept GoQueueJob" in [span.name for span in spans]
        )
    assert by_name(spans)["accept GoQueueJob"].parent == span_id


async def test_a_decision_about_a_pool_is_a_span_that_says_from_what_to_what_and_why(
    world: World, traced: Jaeger
) -> None:
    async with world.operator():
        await world.make("GoQueueWorkerPool", "pool", {"queues": ["default"], "replicas": 2})
        (scaled,) = await asyncio.to_thread(traced.search, "goqueue-operator", "scale pool")
    assert scaled.tags["goqueue.pool.name"] == "pool"
    assert scaled.tags["k8s.namespace.name"] == world.namespace
    assert (scaled.tags["goqueue.pool.from"], scaled.tags["goqueue.pool.to"]) == (0, 2)
    assert scaled.tags["goqueue.pool.cause"] == "pinned"
    assert scaled.tags["goqueue.pool.reason"]
