"""Jobs that a worker claimed for slots about to be free, where those do not come free."""

import asyncio
import contextvars
import time
from typing import Any

import pytest

import goqueue_worker.worker as module
from goqueue import JobContext
from goqueue_worker.lookahead import Lookahead
from tests.integration.engine import Engine, eventually


class Eager(Lookahead):
    """Claims four jobs more than there are slots, come what may."""

    @property
    def jobs(self) -> int:
        return 4


async def claimed(engine: Engine) -> int:
    [[count]] = await engine.rows("SELECT count(*) FROM jobs WHERE status = 'processing'")
    return int(count)


async def test_a_job_claimed_for_a_slot_about_to_be_free_is_cancelled_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK", 60.0)
    let_go = asyncio.Event()

    async def waits(payload: Any, job: JobContext) -> None:
        await let_go.wait()

    engine.handle("waits", waits)
    async with engine.worker(concurrency=1) as worker:
        worker._lookahead = Eager(4, 0.0)
        ids = [await engine.enqueue("waits") for _ in range(4)]

        async def all_claimed() -> bool:
            return await claimed(engine) == 4

        await eventually(all_claimed)
        [running] = worker._running
        last, *others = set(ids) - {running}
        await engine.service.cancel(last)
        assert (await engine.until(last, "cancelled")).attempts == 1
        let_go.set()
        for job_id in (running, *others):
            await engine.until(job_id, "completed")


async def test_jobs_claimed_for_slots_that_stay_taken_go_to_other_workers_uncharged(engine: Engine) -> None:
    let_go = asyncio.Event()

    async def waits(payload: Any, job: JobContext) -> None:
        await let_go.wait()

    engine.handle("waits", waits)
    async with engine.scheduler(), engine.worker(concurrency=1) as worker:
        worker._lookahead = Eager(4, 0.0)
        ids = [await engine.enqueue("waits") for _ in range(3)]

        async def one_waits() -> bool:
            return len(worker._running) == 1 and not worker._held and worker._lookahead.jobs == 4

        await eventually(one_waits)
        worker._lookahead = Lookahead(4, time.monotonic())

        async def two_are_back() -> bool:
            rows = await engine.rows("SELECT attempts FROM jobs WHERE status = 'pending'")
            return [row[0] for row in rows] == [0, 0]

        await eventually(two_are_back)
        async with engine.worker(concurrency=2):

            async def all_run() -> bool:
                return await claimed(engine) == 3

            await eventually(all_run)
            let_go.set()
            for job_id in ids:
                assert (await engine.until(job_id, "completed")).attempts == 1


async def test_a_drain_hands_back_what_was_claimed_ahead_and_finishes_what_runs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK", 60.0)
    let_go = asyncio.Event()

    runs: list[int] = []

    async def waits(payload: Any, job: JobContext) -> None:
        runs.append(job.job_id)
        await let_go.wait()

    engine.handle("waits", waits)
    async with engine.worker(concurrency=1) as worker:
        worker._lookahead = Eager(4, 0.0)
        ids = [await engine.enqueue("waits") for _ in range(3)]

        async def all_claimed() -> bool:
            return await claimed(engine) == 3

        await eventually(all_claimed)
        worker.stop()
        for job_id in set(ids) - set(runs):
            assert (await engine.until(job_id, "pending")).attempts == 0
        let_go.set()
    [ran] = runs
    assert (await engine.service.get(ran)).status == "completed"


async def test_jobs_claimed_ahead_start_in_the_order_of_their_queue(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK", 60.0)  # on a busy machine 0.1 s may pass, and what is handed back comes later
    started: list[int] = []

    async def notes(payload: Any, job: JobContext) -> None:
        started.append(job.job_id)
        await asyncio.sleep(0)

    engine.handle("notes", notes)
    low = [await engine.enqueue("notes") for _ in range(40)]
    high = [await engine.enqueue("notes", priority=9) for _ in range(40)]
    await engine.service.close()  # all are pushed
    async with engine.worker(concurrency=1) as worker:
        worker._lookahead = Eager(4, 0.0)

        async def all_started() -> bool:
            return len(started) == 80

        await eventually(all_started)
    assert started == high + low


async def test_a_job_that_starts_as_another_ends_sees_nothing_that_the_other_has_set(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK", 60.0)  # as above: nobody is there to push what is handed back
    mark: contextvars.ContextVar[int] = contextvars.ContextVar("mark", default=0)
    seen: list[int] = []

    async def marks(payload: Any, job: JobContext) -> None:
        seen.append(mark.get())
        mark.set(job.job_id)
        await asyncio.sleep(0.001)

    engine.handle("marks", marks)
    for _ in range(20):
        await engine.enqueue("marks")
    async with engine.worker(concurrency=1) as worker:
        worker._lookahead = Eager(4, 0.0)

        async def all_ran() -> bool:
            return len(seen) == 20

        await eventually(all_ran)
    assert set(seen) == {0}
