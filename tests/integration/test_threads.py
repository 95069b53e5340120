"""Handlers that are not async: each in a thread, whose time is the attempt's time."""

import asyncio
import threading
import time
from typing import Any

import pytest

from goqueue import JobContext
from goqueue_worker import threads as module
from goqueue_worker.worker import Worker
from tests.integration.engine import Engine, eventually

SOON = 25.0
"""Seconds; more than any timeout here, less than a job waits for a thread."""


class Gate:
    """A plain handler that waits until it is let go, and what has begun."""

    def __init__(self, engine: Engine, timeout: float = 30.0) -> None:
        self.begun: list[int] = []
        self.go = threading.Event()
        engine.handle("gate", self.handle, timeout=timeout)

    def handle(self, payload: Any, job: JobContext) -> int:
        self.begun.append(job.job_id)
        assert self.go.wait(60)
        return job.attempt


async def waits(worker: Worker, jobs: int) -> None:
    """Return when so many jobs wait for a thread."""

    async def there() -> bool:
        return worker._runner.threads.waiting == jobs

    await eventually(there)


async def test_there_is_a_thread_for_each_slot(engine: Engine) -> None:
    together = threading.Barrier(10)

    def meet(payload: Any, job: JobContext) -> None:
        together.wait(30)

    engine.handle("meet", meet)
    ids = [await engine.enqueue("meet", max_retries=0) for _ in range(10)]
    async with engine.worker(concurrency=10):
        for job_id in ids:
            assert (await engine.until(job_id, "completed", "failed")).status == "completed"


async def test_the_time_that_a_job_waits_for_a_thread_is_not_its_own(engine: Engine) -> None:
    gate = Gate(engine)
    async with engine.worker(concurrency=6, threads=2) as worker:
        ids = [await engine.enqueue("gate", max_retries=0) for _ in range(2)]
        for job_id in ids:
            await engine.until(job_id, "processing")
        ids += [await engine.enqueue("gate", max_retries=0, timeout=0.5) for _ in range(4)]
        await waits(worker, 4)
        worker._runner.look(time.monotonic() + SOON)
        assert len(gate.begun) == 2
        gate.go.set()
        jobs = [await engine.until(job_id, "completed", "failed") for job_id in ids]
        assert worker._runner.threads.waiting == 0
    assert [job.error for job in jobs] == [None] * 6
    assert sorted(gate.begun) == ids
    assert [await engine.outcomes(job_id) for job_id in ids] == [[]] * 6


async def test_a_job_that_waits_for_a_thread_is_cancelled_at_once_and_never_runs(engine: Engine) -> None:
    gate = Gate(engine)
    async with engine.worker(threads=1) as worker:
        first = await engine.enqueue("gate")
        await engine.until(first, "processing")
        waiting, last = await engine.enqueue("gate"), await engine.enqueue("gate")
        await waits(worker, 2)
        await engine.service.cancel(waiting)
        await engine.until(waiting, "cancelled")
        gate.go.set()
        await engine.until(last, "completed")
    assert gate.begun == [first, last]


async def test_a_drain_hands_back_at_once_what_waits_for_a_thread(engine: Engine) -> None:
    gate = Gate(engine)
    async with engine.worker(threads=1, grace_seconds=60) as worker:
        first = await engine.enqueue("gate")
        await engine.until(first, "processing")
        waiting = await engine.enqueue("gate", max_retries=0)
        await waits(worker, 1)
        worker.stop()
        assert (await engine.until(waiting, "pending")).attempts == 0
        gate.go.set()
    assert (await engine.service.get(first)).status == "completed"
    assert gate.begun == [first]


async def test_a_job_that_gets_no_thread_goes_back_uncharged(engine: Engine) -> None:
    gate = Gate(engine)
    async with engine.worker(threads=1) as worker:
        first = await engine.enqueue("gate")
        await engine.until(first, "processing")
        waiting = await engine.enqueue("gate", max_retries=0)
        await waits(worker, 1)
        worker._runner.look(time.monotonic() + module.PATIENCE + 1)  # the first is timed out by it

        async def handed_back() -> bool:
            return await engine.outcomes(waiting) == ["handed_back"]

        await eventually(handed_back)
        gate.go.set()
    assert waiting not in gate.begun


async def test_a_thread_whose_attempt_is_over_keeps_its_place_until_the_handler_returns(engine: Engine) -> None:
    gate = Gate(engine, timeout=0.1)
    async with engine.worker(threads=1) as worker:
        first = await engine.enqueue("gate", max_retries=0)
        assert (await engine.until(first, "failed")).error == "timed out after 0.1 s"
        second = await engine.enqueue("gate", max_retries=0)
        await waits(worker, 1)
        assert worker._runner.abandoned == 1
        assert worker.unwell() == {"threads": "all 1 threads run handlers whose attempts are over"}
        gate.go.set()
        assert (await engine.until(second, "completed", "failed")).status == "completed"
        assert worker._runner.abandoned == 0
        assert worker.unwell() == {}
    assert (await engine.service.get(first)).result is None


async def test_a_process_that_gets_no_more_threads_fails_the_attempt_and_keeps_its_place(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(payload: Any, job: JobContext) -> None: ...

    def refuses(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    engine.handle("quick", quick)
    async with engine.worker(threads=1) as worker:
        with monkeypatch.context() as patched:
            patched.setattr(worker._runner.threads._pool, "submit", refuses)
            job = await engine.until(await engine.enqueue("quick", max_retries=0), "failed")
        assert job.error == "RuntimeError: can't start new thread"
        await engine.until(await engine.enqueue("quick"), "completed")


async def test_many_short_jobs_pass_through_few_threads(engine: Engine) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def count(payload: Any, job: JobContext) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1

    engine.handle("count", count)
    ids = [await engine.enqueue("count") for _ in range(200)]
    async with engine.worker(concurrency=20, threads=3) as worker:
        await asyncio.gather(*(engine.until(job_id, "completed") for job_id in ids))
        assert worker._runner.threads._free == 3
    assert most == 3
