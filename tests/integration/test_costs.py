"""What a job costs in transactions, Redis commands and write-ahead log: counts that do not depend on the machine.

The bounds are about twice what was seen when they were set, so they break on a change of kind, not on noise.
"""

import asyncio
import contextvars
import gc
import timeit
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from goqueue import JobContext, NeverRetry, instruments, metrics, tracing
from goqueue.attemptspans import AttemptSpans, Examples, Provider
from goqueue.inserts import count_enqueued
from goqueue.job import AttemptEnd, ClaimedJob, Enqueued, NewJob, Outcome
from goqueue.settings import TracingSettings
from goqueue.spanqueue import SpanQueue
from goqueue.spans import Spans
from goqueue_cli import processes
from goqueue_worker.recent import RecentEnds
from goqueue_worker.tallies import Tallies
from tests.integration.engine import Engine, eventually

JOBS = 5000


@dataclass
class Spent:
    """Totals so far."""

    transactions: int
    commands: int
    wal_bytes: int


async def spent(engine: Engine) -> Spent:
    await engine.execute("SELECT pg_stat_force_next_flush()")
    rows = await engine.rows(
        "SELECT xact_commit, pg_current_wal_lsn() - '0/0' FROM pg_stat_database WHERE datname = current_database()"
    )
    statistics = await engine.broker._redis.info("commandstats")
    return Spent(int(rows[0][0]), sum(command["calls"] for command in statistics.values()), int(rows[0][1]))


def since(before: Spent, after: Spent) -> Spent:
    return Spent(
        after.transactions - before.transactions,
        after.commands - before.commands,
        (after.wal_bytes - before.wal_bytes) // JOBS,
    )


async def test_a_job_of_a_bulk_costs_a_two_hundredth_of_a_statement_and_five_hundred_bytes_of_log(
    engine: Engine,
) -> None:
    order = NewJob("default", "nothing", {"pad": "x" * 200})
    await engine.service.enqueue_many([order] * 1000)  # connects, and extends the table
    await engine.service.close()
    await engine.execute("CHECKPOINT")
    before = await spent(engine)
    for _ in range(JOBS // 1000):
        await engine.service.enqueue_many([order] * 1000)
    await engine.service.close()
    per_job = since(before, await spent(engine))
    print(f"{JOBS} jobs: {per_job}")
    assert per_job.transactions < JOBS / 200
    assert per_job.commands < JOBS / 200
    assert per_job.wal_bytes < 900


async def test_a_drained_job_costs_a_fiftieth_of_a_statement_and_eight_hundred_bytes_of_log(engine: Engine) -> None:
    async def nothing(payload: Any, job: JobContext) -> None: ...

    engine.handle("nothing", nothing)
    order = NewJob("default", "nothing", {"pad": "x" * 200})
    ids = [made.id for _ in range(JOBS // 1000) for made in await engine.service.enqueue_many([order] * 1000)]
    await engine.service.close()
    # Full-page images after a checkpoint would count as the jobs' own; write them before the count begins.
    await engine.execute("CHECKPOINT")
    await engine.execute("UPDATE jobs SET updated_at = updated_at")
    before = await spent(engine)
    async with engine.worker(concurrency=500):
        looks = 0

        async def done() -> bool:
            nonlocal looks
            looks += 1
            rows = await engine.rows("SELECT count(*) FROM jobs WHERE status = 'completed'")
            return bool(rows[0][0] == len(ids))

        await eventually(done, 30)
        after = await spent(engine)
    per_job = since(before, after)
    per_job.transactions -= looks  # a slow machine looks more often
    print(f"{JOBS} jobs: {per_job}")
    # Alone on a machine it is a hundredth; beside others batches are smaller, and heartbeats and looks more.
    assert per_job.transactions < JOBS / 50
    assert per_job.commands < JOBS / 50
    assert per_job.wal_bytes < 800


async def test_a_drain_is_not_interrupted_by_collections_of_garbage(engine: Engine) -> None:
    """With Python's own threshold there are 5 to 22, and each walks through the jobs that the worker holds."""
    handled = 0
    over = asyncio.Event()

    async def count(payload: Any, job: JobContext) -> None:
        nonlocal handled
        handled += 1
        if handled == JOBS:
            over.set()

    engine.handle("count", count)
    orders = [NewJob("default", "count", {"number": number}) for number in range(JOBS)]
    await engine.service.enqueue_many(orders)
    collected: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            collected.append(info["generation"])

    gc.collect()
    threshold = gc.get_threshold()
    gc.set_threshold(processes.GARBAGE)
    gc.callbacks.append(note)
    try:
        async with engine.worker(concurrency=1000):
            await asyncio.wait_for(over.wait(), 120)
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*threshold)
    print(f"{JOBS} jobs: {len(collected)} collections")
    assert len(collected) <= 1


def test_metrics_cost_less_than_two_microseconds_for_a_job() -> None:
    """The best of many short turns: other processes can only make it slower."""
    claimed = [
        ClaimedJob(number, 1, 1, "default", "nothing", "{}", 5, None, number / 1000, None) for number in range(500)
    ]
    orders = [NewJob("default", "nothing", {})] * len(claimed)
    made = [Enqueued(number, True) for number in range(len(claimed))]
    tallies = Tallies()

    def enqueue() -> None:
        count_enqueued(orders, made)

    def attempt() -> None:
        tallies.claimed(claimed)
        for job in claimed:
            tallies.ended(job, Outcome.COMPLETED, 0.013)

    metrics.begin("api", ["default"], ["nothing"], CollectorRegistry())
    try:
        for work in (enqueue, attempt):
            best = min(timeit.repeat(work, number=1, repeat=200)) / len(claimed)
            print(f"{work.__name__}: {best * 1e6:.2f} µs for a job")
            assert best < 2e-6
    finally:
        instruments.end()


def attempts_of(worker: Spans | None, jobs: list[ClaimedJob]) -> float:
    """Seconds that an attempt takes of what `Worker._run` does for traces; the best of many short turns."""
    end = AttemptEnd(1, 1, Outcome.COMPLETED)

    def turn() -> None:
        for job in jobs:
            spans = worker if worker is not None else tracing.on
            span = spans.begin_attempt(job, "worker") if spans is not None else None
            if spans is not None and span is not None:
                spans.end_attempt(span, job, end, None)
                spans.trace_id_of(span)

    return min(timeit.repeat(lambda: contextvars.Context().run(turn), number=1, repeat=10)) / len(jobs)


def test_traces_cost_an_attempt_nothing_where_they_are_off_and_little_where_they_are_on() -> None:
    """Bounds are several times what was seen: docs/decisions/0014-traces-that-stay-on.md has the figures."""
    chosen = TracingSettings.model_validate({"bsp_max_queue_size": 100_000, "bsp_max_export_batch_size": 100_000})
    provider = Provider(Resource({}))
    queue = SpanQueue(Nowhere(), chosen, 1)
    provider.add_span_processor(queue)
    ours = AttemptSpans(provider, queue, chosen, Examples(provider.resource, encode_spans))
    sdk = TracerProvider(shutdown_on_exit=False)
    sdk.add_span_processor(BatchSpanProcessor(Nowhere()))

    def jobs(flags: str) -> list[ClaimedJob]:
        context = f"00-{1:032x}-{1:016x}-{flags}"
        return [ClaimedJob(n, 1, 1, "default", "nothing", "{}", 5, None, 0.0, context) for n in range(100)]

    spent = {
        "off": attempts_of(None, jobs("01")),
        "not recorded": attempts_of(ours, jobs("00")),
        "recorded": attempts_of(ours, jobs("01")),
        "not recorded, by the SDK alone": attempts_of(Spans(sdk), jobs("00")),
        "recorded, by the SDK alone": attempts_of(Spans(sdk), jobs("01")),
    }
    for each in (provider, sdk):
        each.shutdown()
    print("µs for an attempt:", ", ".join(f"{name} {seconds * 1e6:.2f}" for name, seconds in spent.items()))
    assert spent["off"] < 0.5e-6
    assert spent["not recorded"] < 5e-6
    assert spent["recorded"] < 60e-6


class Nowhere(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


async def _waits(payload: Any, job: JobContext) -> None:
    await asyncio.sleep(0.001)


async def _ends_at_once(payload: Any, job: JobContext) -> None:
    pass


def _runs_in_a_thread(payload: Any, job: JobContext) -> None:
    pass


async def _fails(payload: Any, job: JobContext) -> None:
    raise NeverRetry("no use")


@pytest.mark.parametrize("handler", [_waits, _ends_at_once, _runs_in_a_thread, _fails])
async def test_an_attempt_leaves_nothing_for_a_collection_of_garbage(engine: Engine, handler: Any) -> None:
    engine.handle("leaves", handler)

    async def garbage(jobs: int) -> int:
        gc.collect()
        async with engine.worker(concurrency=10) as worker:
            for job_id in [await engine.enqueue("leaves") for _ in range(jobs)]:
                await engine.until(job_id, "completed", "failed")
        worker._completer.recent = RecentEnds()  # bounded, and kept for a purpose
        return gc.collect()

    gc.disable()
    try:
        await garbage(10)  # a first run imports and caches
        few, many = await garbage(10), await garbage(210)
    finally:
        gc.enable()
    assert many - few < 100, "objects of 200 attempts"
