"""Traces of real processes in a real Jaeger: one for each job, from the request to what its handler calls."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from goqueue_cli.embedded import free_port
from tests.integration.engine import Engine, eventually
from tests.integration.handlers.receiver import Receiver, receiver
from tests.integration.scraping import Processes, Serving, client_of, lines_of
from tests.servers.jaeger import Jaeger, Span
from tests.servers.stores import FreshDatabase, FreshRedis

MODULE = """
import logging

import structlog
from opentelemetry import trace
from pydantic import BaseModel

from goqueue import JobContext, RetryIn, job_type


class Nothing(BaseModel):
    pass


@job_type("own", payload=Nothing)
async def own(payload: Nothing, job: JobContext) -> dict[str, str]:
    with trace.get_tracer("shop").start_as_current_span("own work"):
        structlog.get_logger("shop").info("own line")
        return job.trace_headers


@job_type("threaded", payload=Nothing)
def threaded(payload: Nothing, job: JobContext) -> None:
    with trace.get_tracer("shop").start_as_current_span("own work"):
        logging.getLogger("shop").warning("own line")


@job_type("flaky", payload=Nothing)
async def flaky(payload: Nothing, job: JobContext) -> None:
    if job.attempt < 3:
        raise RetryIn(0.05, " ".join(["not", "yet"]))
"""
"""Job types with instrumentation of their own."""

PROGRAM = """
import asyncio
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from sqlalchemy import create_engine

import traced
from goqueue import AsyncClient, Client, enqueue_in


async def with_loop():
    async with AsyncClient.from_environment() as client:
        await client.enqueue("own", {})


def send(way, dsn):
    match way:
        case "async":
            asyncio.run(with_loop())
        case "threads" | "bulk":
            with Client() as client:
                client.enqueue("own", {}) if way == "threads" else client.enqueue_many("own", [{}, {}])
        case "transaction":
            import psycopg

            engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
            with engine.begin() as connection:
                enqueue_in(connection, "own", {})


provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
with trace.get_tracer("shop").start_as_current_span("order") as span:
    send(*sys.argv[1:])
print(f"{span.get_span_context().trace_id:032x}")
provider.shutdown()
"""
"""Somebody's own program, which traces itself."""


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


def webhook(target: Receiver) -> dict[str, Any]:
    """An order for one webhook."""
    payload = {"url": f"{target.url}/hook", "method": "POST", "body": {"n": 1}, "timeout": 5}
    return {"queue": "webhooks", "type": "send_webhook", "payload": payload}


async def posted(api: Serving, order: dict[str, Any], **headers: str) -> dict[str, Any]:
    """The job that the API made of an order."""
    async with client_of(api) as client:
        answer = await client.post("/jobs/create", json=order, headers=headers)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


async def done(api: Serving, job_id: int) -> None:
    """Wait until the job has completed."""
    async with client_of(api) as client:

        async def completed() -> bool:
            return bool((await client.get(f"/jobs/{job_id}")).json()["status"] == "completed")

        await eventually(completed)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_request_its_job_and_what_the_handler_calls_are_one_trace(
    stores: Processes, jaeger: Jaeger, target: Receiver, protocol: str
) -> None:
    stores.environment |= jaeger.environment(protocol)
    order = webhook(target)
    with stores.start("api") as api, stores.start("worker"):
        job = await posted(api, order, **{"x-request-id": "request-7"})
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


async def test_all_attempts_of_a_job_are_in_its_trace_and_retries_link_to_the_first(
    stores: Processes, jaeger: Jaeger
) -> None:
    stores.environment |= jaeger.environment()
    with stores.start("api") as api, stores.start("worker"), stores.start("scheduler"):
        job = await posted(api, {"queue": "default", "type": "flaky", "payload": {}})

        def three(spans: list[Span]) -> bool:
            return sum(span.name == "process default" for span in spans) == 3

        spans = await asyncio.to_thread(jaeger.until, job["trace_id"], three)
    send = named(spans, "send default")
    first, second, third = (span for span in spans if span.name == "process default")
    assert {span.parent for span in (first, second, third)} == {send.id}
    assert (first.links, second.links, third.links) == ((), (first.id,), (first.id,))
    assert [span.tags["goqueue.job.attempt"] for span in (first, second, third)] == [1, 2, 3]
    assert [span.tags["goqueue.attempt.outcome"] for span in (first, second, third)] == [
        "retried",
        "retried",
        "completed",
    ]
    assert first.tags["otel.status_code"] == "ERROR"
    assert first.tags["error.type"] == "RetryIn"
    assert first.events[0]["exception.type"] == "RetryIn"
    assert "in flaky" in first.events[0]["exception.stacktrace"]
    assert "not yet" not in await asyncio.to_thread(jaeger.text, job["trace_id"])
    assert "otel.status_code" not in third.tags


@pytest.mark.parametrize("kind", ["own", "threaded"])
async def test_a_handlers_own_spans_and_lines_are_below_its_attempt(
    stores: Processes, jaeger: Jaeger, kind: str
) -> None:
    stores.environment |= jaeger.environment() | {"GOQUEUE_LOG_FORMAT": "json"}
    with stores.start("api") as api, stores.start("worker") as worker:
        job = await posted(api, {"queue": "default", "type": kind, "payload": {}})
        spans = await asyncio.to_thread(jaeger.until, job["trace_id"], ended("own work", "process default"))
    own = named(spans, "own work")
    assert own.parent == named(spans, "process default").id
    (line,) = (line for line in lines_of(worker) if line["event"] == "own line")
    assert (line["trace_id"], line["span_id"]) == (job["trace_id"], own.id)
    assert (line["job_id"], line["attempt"]) == (job["id"], 1)


async def test_what_runs_in_a_process_of_its_own_is_in_the_same_trace(
    stores: Processes, jaeger: Jaeger, engine: Engine
) -> None:
    stores.environment |= jaeger.environment() | {"GOQUEUE_LOG_FORMAT": "json"}
    with stores.start("api") as api:
        job = await posted(api, {"queue": "default", "type": "own", "payload": {}})
        await engine.execute("UPDATE jobs SET deaths = 2 WHERE id = %s", job["id"])
        with stores.start("worker") as worker:
            spans = await asyncio.to_thread(jaeger.until, job["trace_id"], ended("own work", "process default"))
            await done(api, job["id"])
    own = named(spans, "own work")
    assert own.parent == named(spans, "process default").id
    (line,) = (line for line in lines_of(worker) if line["event"] == "own line")
    assert (line["trace_id"], line["span_id"]) == (job["trace_id"], own.id)
    assert (line["job_id"], line["attempt"]) == (job["id"], 1)
    result = (await engine.service.get(job["id"])).result
    assert result["traceparent"].split("-")[1:3] == [job["trace_id"], own.id]


async def test_histograms_of_a_worker_name_a_trace_for_who_asks_for_openmetrics(
    stores: Processes, jaeger: Jaeger
) -> None:
    stores.environment |= jaeger.environment()
    with stores.start("api") as api, stores.start("worker") as worker:
        job = await posted(api, {"queue": "default", "type": "own", "payload": {}})
        await done(api, job["id"])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.health}") as client:
            accept = {"accept": "application/openmetrics-text"}
            text = (await client.get("/metrics", headers=accept)).text
            plain = (await client.get("/metrics")).text
    named_there = {line.partition("{")[0] for line in text.splitlines() if f'trace_id="{job["trace_id"]}"' in line}
    assert named_there == {"goqueue_attempt_duration_seconds_bucket", "goqueue_queue_wait_seconds_bucket"}
    assert "trace_id" not in plain


async def test_what_the_caller_does_not_record_is_not_recorded_and_says_so_to_the_next(
    stores: Processes, jaeger: Jaeger, target: Receiver
) -> None:
    stores.environment |= jaeger.environment()
    trace_id = "7" * 32
    with stores.start("api") as api, stores.start("worker"):
        job = await posted(api, webhook(target), traceparent=f"00-{trace_id}-{'8' * 16}-00")
        follower = await posted(api, {"queue": "default", "type": "own", "payload": {}})
        await asyncio.to_thread(jaeger.until, follower["trace_id"], ended("process default"))
        await done(api, job["id"])
    assert job["trace_id"] is None
    assert target.requests[0].headers["traceparent"].startswith(f"00-{trace_id}-")
    assert int(target.requests[0].headers["traceparent"][-2:], 16) & 1 == 0
    assert jaeger.trace(trace_id) == []


async def test_where_nothing_is_traced_the_callers_context_is_passed_on_as_it_came(
    stores: Processes, target: Receiver
) -> None:
    parent, state = f"00-{'9' * 32}-{'a' * 16}-01", "shop=1,other=x"
    with stores.start("api") as api, stores.start("worker"):
        job = await posted(api, webhook(target), traceparent=parent, tracestate=state)
        await done(api, job["id"])
    assert target.requests[0].headers["traceparent"] == parent
    assert target.requests[0].headers["tracestate"] == state
    assert job["trace_id"] == "9" * 32


async def test_a_tick_of_a_schedule_begins_the_trace_of_its_job(
    stores: Processes, jaeger: Jaeger, engine: Engine
) -> None:
    stores.environment |= jaeger.environment()
    order = {"queue": "default", "type": "own", "payload": {}}
    with stores.start("api") as api, stores.start("worker"), stores.start("scheduler"):
        async with client_of(api) as client:
            made = await client.put("/schedules/nightly", json={"cron": "0 3 * * *", "job": order})
            assert made.status_code == 201, made.text
            await engine.execute("UPDATE schedules SET next_tick = now() - interval '1 second'")

            async def fired() -> Any:
                return (await client.get("/schedules/nightly")).json()["last_job_id"]

            job = (await client.get(f"/jobs/{await eventually(fired)}")).json()
        spans = await asyncio.to_thread(jaeger.until, job["trace_id"], ended("process default", "fire schedule"))
    tick, send = named(spans, "fire schedule"), named(spans, "send default")
    assert (tick.service, tick.parent, tick.tags["goqueue.schedule.name"]) == ("goqueue-scheduler", None, "nightly")
    assert (send.kind, send.parent) == ("producer", tick.id)
    assert named(spans, "process default").parent == send.id


@pytest.mark.parametrize("way", ["async", "threads", "bulk", "transaction"])
async def test_a_call_of_the_library_goes_on_from_its_programs_own_span(
    stores: Processes, jaeger: Jaeger, database: FreshDatabase, way: str
) -> None:
    stores.environment |= jaeger.environment()
    (stores.folder / "shop.py").write_text(PROGRAM)
    program = [sys.executable, "shop.py", way, database.dsn]
    environment = {**os.environ, **stores.environment, "OTEL_SERVICE_NAME": "shop"}
    with stores.start("worker"), stores.start("scheduler"):
        ran = await asyncio.to_thread(
            subprocess.run, program, cwd=stores.folder, env=environment, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
        wanted = 2 if way == "bulk" else 1

        def all_run(spans: list[Span]) -> bool:
            return sum(span.name == "process default" for span in spans) == wanted and ended("order")(spans)

        spans = await asyncio.to_thread(jaeger.until, ran.stdout.strip(), all_run)
    order, send = named(spans, "order"), named(spans, "send default")
    assert (order.service, order.parent) == ("shop", None)
    assert (send.service, send.kind, send.parent) == ("shop", "producer", order.id)
    assert send.tags.get("messaging.batch.message_count") == (2 if way == "bulk" else None)
    assert {span.parent for span in spans if span.name == "process default"} == {send.id}


async def test_an_exporter_that_is_away_holds_up_neither_jobs_nor_the_end_of_a_process(stores: Processes) -> None:
    mute = socket.create_server(("127.0.0.1", 0))  # the kernel accepts, and nobody answers
    endpoint = f"http://127.0.0.1:{mute.getsockname()[1]}"
    away = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "120",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    stores.environment |= away
    with mute, stores.start("api") as api, stores.start("worker") as worker:
        for _ in range(3):
            job = await posted(api, {"queue": "default", "type": "own", "payload": {}})
            await done(api, job["id"])
        for serving in (api, worker):
            assert await asyncio.to_thread(serving.process.stop, 25) == 0  # the SDK alone would take half a minute


async def test_a_worker_that_ends_tells_all_spans_that_its_collector_did_not_get(stores: Processes) -> None:
    unavailable = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    stores.environment |= unavailable | {"GOQUEUE_LOG_FORMAT": "json"}
    with stores.start("api") as api, stores.start("worker") as worker:
        for _ in range(3):
            job = await posted(api, {"queue": "default", "type": "own", "payload": {}})
            await done(api, job["id"])
        for serving in (api, worker):
            assert await asyncio.to_thread(serving.process.stop, 25) == 0
    # Of each job the worker makes three spans: its wait, its attempt, and what the handler does.
    (line,) = (line for line in lines_of(worker) if line["event"] == "spans lost until the end")
    assert line["spans"] == line["failed"] + line["left"] == 9
    assert (line["exported"], line["dropped"]) == (0, 0)


async def test_metrics_tell_how_many_spans_were_exported(stores: Processes, target: Receiver) -> None:
    stores.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": target.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with stores.start("api") as api, stores.start("worker") as worker:
        job = await posted(api, {"queue": "default", "type": "own", "payload": {}})
        await done(api, job["id"])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.health}") as client:

            async def counted() -> bool:
                text = (await client.get("/metrics")).text
                return 'goqueue_trace_spans_total{outcome="exported"} 3.0' in text  # wait, attempt, the handler's own

            await eventually(counted, 30)
    assert {request.path for request in target.requests} == {"/v1/traces"}
