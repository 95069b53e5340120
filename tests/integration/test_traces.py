"""Traces of real processes in a real Jaeger: one for each job, from the request to what its handler calls."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engine import Engine
from tests.integration.handlers.receiver import Receiver, receiver
from tests.integration.scraping import Processes, client_of
from tests.servers.jaeger import Jaeger, Span
from tests.servers.stores import FreshDatabase, FreshRedis

MODULE = """
from pydantic import BaseModel

from goqueue import JobContext, RetryIn, job_type
from opentelemetry import trace


class Nothing(BaseModel):
    pass


@job_type("own", payload=Nothing)
async def own(payload: Nothing, job: JobContext) -> dict[str, str]:
    with trace.get_tracer("shop").start_as_current_span("own work"):
        return job.trace_headers


@job_type("threaded", payload=Nothing)
def threaded(payload: Nothing, job: JobContext) -> None:
    with trace.get_tracer("shop").start_as_current_span("own work"):
        pass


@job_type("flaky", payload=Nothing)
async def flaky(payload: Nothing, job: JobContext) -> None:
    if job.attempt < 3:
        raise RetryIn(0.05, "not yet")
"""
"""Job types with instrumentation of their own."""


@pytest.fixture
def target() -> Iterator[Receiver]:
    """A receiver of webhooks."""
    with receiver() as running:
        yield running


@pytest.fixture
def stores(database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path, engine: Engine) -> Processes:
    """Starts processes on empty stores."""
    (tmp_path / "traced.py").write_text(MODULE)
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])),
        "GOQUEUE_JOBS": "traced",
        "GOQUEUE_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "GOQUEUE_SCHEDULER_LEADER_SECONDS": "1",
    }
    return Processes(tmp_path, {**database.environment, **ready_queues.environment, **own})


def named(spans: list[Span], name: str) -> Span:
    """The one span of that name."""
    (found,) = (span for span in spans if span.name == name)
    return found


def ended(*names: str) -> Any:
    """Whether all these have arrived."""
    return lambda spans: set(names) <= {span.name for span in spans}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_request_its_job_and_what_the_handler_calls_are_one_trace(
    stores: Processes, jaeger: Jaeger, target: Receiver, protocol: str
) -> None:
    stores.environment |= jaeger.environment(protocol)
    order = {
        "queue": "webhooks",
        "type": "send_webhook",
        "payload": {"url": f"{target.url}/hook", "method": "POST", "body": {"n": 1}, "timeout": 5},
    }
    with stores.start("api") as api, stores.start("worker"):
        async with client_of(api) as client:
            answer = await client.post("/jobs/create", json=order, headers={"x-request-id": "request-7"})
        job = answer.json()
        names = ("POST /jobs/create", "send webhooks", "wait webhooks", "process webhooks", "POST")
        spans = await asyncio.to_thread(jaeger.until, job["trace_id"], ended(*names))
    assert sorted(span.name for span in spans) == sorted(names)
    request, send, wait, process, call = (named(spans, name) for name in names)
    assert (request.kind, request.service, request.parent) == ("server", "goqueue-api", None)
    assert request.tags["http.route"] == "/jobs/create"
    assert request.tags["http.response.status_code"] == 201
    assert request.tags["goqueue.request.id"] == "request-7"
    assert (send.kind, send.parent) == ("producer", request.id)
    assert send.tags["messaging.system"] == "goqueue"
    assert send.tags["messaging.destination.name"] == "webhooks"
    assert send.tags["messaging.operation.type"] == "send"
    assert send.tags["messaging.message.id"] == str(job["id"])
    assert (process.kind, process.service, process.parent) == ("consumer", "goqueue-worker", send.id)
    assert process.tags["messaging.operation.type"] == "process"
    assert process.tags["messaging.message.id"] == str(job["id"])
    assert process.tags["goqueue.job.type"] == "send_webhook"
    assert process.tags["goqueue.attempt.outcome"] == "completed"
    assert wait.parent == send.id
    assert wait.seconds == pytest.approx(process.tags["goqueue.queue.wait"], abs=1e-4)
    assert wait.start + wait.seconds == pytest.approx(process.start, abs=1e-4)
    assert (call.kind, call.parent) == ("client", process.id)
    assert call.tags["http.response.status_code"] == 200
    assert call.tags["server.address"] == "127.0.0.1"
    version, trace_id, span_id, flags = target.requests[0].headers["traceparent"].split("-")
    assert (version, trace_id, span_id) == ("00", job["trace_id"], call.id)
    assert int(flags, 16) & 1
