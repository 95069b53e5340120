"""Async handlers that swallow their cancellation, and whatever else goes wrong beside a handler."""

import asyncio
import contextlib
from typing import Any

import pytest

from goqueue import JobContext, tracing
from goqueue.job import AttemptEnd, ClaimedJob, Outcome
from goqueue.registry import JobType
from goqueue.retry import DEFAULT_RETRY
from goqueue_worker import attempt, runner
from goqueue_worker.completer import Completer
from goqueue_worker.reports import Reports
from goqueue_worker.runner import Runner
from goqueue_worker.tallies import Tallies
from tests.integration.engine import Anything, Engine, eventually


class Deaf:
    """An async handler that goes on whatever happens, until it is let go; then it reports and returns."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
        monkeypatch.setattr(attempt, "ABANDON_AFTER", 0.1)
        self.go = asyncio.Event()
        engine.handle("deaf", self.handle, **more)

    async def handle(self, payload: Any, job: JobContext) -> str:
        while not self.go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.go.wait()
        job.log("too late")
        job.progress(0.9)
        return "late"


async def test_an_attempt_ends_without_a_handler_that_swallows_its_cancellation(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def quick(payload: Any, job: JobContext) -> None: ...

    async def heard() -> bool:
        return worker._runner.abandoned == 0

    deaf = Deaf(engine, monkeypatch, timeout=0.1)
    engine.handle("quick", quick)
    async with engine.worker(concurrency=1) as worker:
        job = await engine.until(await engine.enqueue("deaf", max_retries=0), "failed")
        assert job.error == "timed out after 0.1 s"
        assert worker._runner.abandoned == 1
        assert worker.unwell() == {"handlers": "1 async handlers go on although their attempts are over"}
        await engine.until(await engine.enqueue("quick"), "completed")
        deaf.go.set()
        await eventually(heard)
        assert worker.unwell() == {}
    assert await engine.rows("SELECT message FROM job_logs") == []
    late = await engine.service.get(job.id)
    assert (late.status, late.result, late.progress, late.error) == ("failed", None, None, job.error)


async def test_a_cancelled_job_whose_handler_swallows_it_is_cancelled(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = Deaf(engine, monkeypatch)
    async with engine.worker():
        job_id = await engine.enqueue("deaf")
        await engine.until(job_id, "processing")
        await engine.service.cancel(job_id)
        await engine.until(job_id, "cancelled")
        deaf.go.set()


async def test_a_drain_ends_although_a_handler_swallows_its_cancellation(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "HAND_BACK_SECONDS", 0.1)
    deaf = Deaf(engine, monkeypatch)
    monkeypatch.setattr(attempt, "ABANDON_AFTER", 3600.0)
    async with engine.worker(grace_seconds=0.1) as worker:
        job_id = await engine.enqueue("deaf", max_retries=0)
        await engine.until(job_id, "processing")
        worker.stop()
    job = await engine.service.get(job_id)
    assert (job.status, job.attempts) == ("pending", 0)
    assert await engine.rows("SELECT FROM workers") == []
    deaf.go.set()


async def test_an_attempt_that_is_interrupted_before_its_first_step_ends_and_its_slot_is_free(engine: Engine) -> None:
    called: list[int] = []

    async def note(payload: Any, job: JobContext) -> None:
        called.append(job.job_id)

    ends: list[AttemptEnd] = []
    completer = Completer(engine.database, lambda: None)
    completer.put = ends.append  # type: ignore[method-assign, assignment]
    lone = Runner("w", 1, 1, DEFAULT_RETRY, engine.database, 60.0, completer, Tallies(), Reports(), lambda: None)
    kind = JobType("note", Anything, handler=note)
    running = lone.attempt(ClaimedJob(1, 1, 1, "default", "note", "{}", 5, None, 0.0, None), kind)
    beginning = asyncio.create_task(lone.run(running, kind))
    running.interrupt(attempt.Stop.CANCEL)
    await beginning
    assert [end.outcome for end in ends] == [Outcome.CANCELLED]
    assert (called, lone.running) == ([], {})


class Broken:
    """Spans of which nothing works."""

    def begin_worker(self) -> None:
        """Does."""

    def ids(self) -> dict[str, str]:
        return {}

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


async def test_spans_that_raise_cost_no_job_anything(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(payload: Any, job: JobContext) -> None:
        if payload.fails:
            raise ValueError

    engine.handle("work", work)
    fine = await engine.enqueue("work", payload={"fails": False})
    fails = await engine.enqueue("work", payload={"fails": True}, max_retries=0)
    monkeypatch.setattr(tracing, "on", Broken())
    async with engine.worker(concurrency=1) as worker:
        assert (await engine.until(fine, "completed", "failed")).status == "completed"
        assert (await engine.until(fails, "failed")).error == "ValueError"
        assert not worker._running


async def test_a_log_that_raises_keeps_no_slot(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(payload: Any, job: JobContext) -> None:
        raise ValueError

    def raises(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(runner, "tell", raises)
    engine.handle("fail", fail)
    async with engine.worker(concurrency=1) as worker:
        for _ in range(2):
            await engine.until(await engine.enqueue("fail", max_retries=0), "failed")
        assert not worker._running
