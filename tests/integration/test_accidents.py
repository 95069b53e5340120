"""What must cost no job anything: lost answers, handlers that break the rules, parts of a worker that break."""

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from goqueue import JobContext, Snooze
from goqueue.broker.overflow import member
from goqueue.errors import StoreUnavailable
from goqueue.job import ClaimedJob
from goqueue.settings import WorkerSettings
from goqueue.store import attempts
from goqueue.store.connect import Connection, Database
from goqueue_worker.worker import Worker
from tests.integration.engine import Engine, eventually


async def test_jobs_of_a_claim_whose_answer_was_lost_are_run_once_and_charged_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, lost, runs = attempts.claim, 0, []

    async def loses_its_first_answer(
        connection: Connection, worker_id: int, ids: Sequence[int], **more: Any
    ) -> list[ClaimedJob]:
        nonlocal lost
        claimed = await claim(connection, worker_id, ids, **more)
        if claimed and not lost:
            lost = len(claimed)
            raise StoreUnavailable("database is unavailable")
        return claimed

    async def note(payload: Any, job: JobContext) -> None:
        runs.append(job.job_id)

    monkeypatch.setattr(attempts, "claim", loses_its_first_answer)
    engine.handle("note", note)
    ids = [await engine.enqueue("note") for _ in range(5)]
    async with engine.worker():
        jobs = [await engine.until(job_id, "completed") for job_id in ids]
    assert lost > 0
    assert sorted(runs) == ids
    assert [job.attempts for job in jobs] == [1] * 5


async def test_one_id_that_is_fetched_twice_at_once_is_one_attempt(engine: Engine) -> None:
    runs: list[int] = []

    async def note(payload: Any, job: JobContext) -> None:
        runs.append(job.attempt)
        await asyncio.sleep(0.05)

    engine.handle("note", note)
    job_id = await engine.enqueue("note")
    await engine.service.close()
    key = engine.broker._ready("default")
    score = await engine.broker._redis.zscore(key, member(job_id))
    await engine.broker._redis.zadd(key, {str(job_id): score})  # as a version wrote it that did not pad
    async with engine.worker():
        job = await engine.until(job_id, "completed")
        assert await engine.outcomes(job_id) == []
    assert runs == [1]
    assert job.attempts == 1


class Untellable(Exception):
    def __str__(self) -> str:
        return 42  # type: ignore[return-value]


class Endless(Snooze):
    def __init__(self) -> None:
        """Without the seconds of its class."""


@pytest.mark.parametrize("raised", [Untellable, Endless])
async def test_a_handler_whose_exception_cannot_be_told_has_failed_and_its_slot_is_free(
    engine: Engine, raised: type[Exception]
) -> None:
    async def breaks(payload: Any, job: JobContext) -> None:
        raise raised

    engine.handle("breaks", breaks)
    async with engine.worker(concurrency=1) as worker:
        for _ in range(2):
            job = await engine.until(await engine.enqueue("breaks", max_retries=0), "failed")
            assert job.error is not None
        assert not worker._running


async def test_half_a_character_in_an_error_and_in_a_log_line_is_replaced(engine: Engine) -> None:
    async def quotes(payload: Any, job: JobContext) -> None:
        job.log("log \ud83d!")
        raise ValueError("error \ud83d!")

    engine.handle("quotes", quotes)
    async with engine.worker():
        job_id = await engine.enqueue("quotes", max_retries=0)
        assert (await engine.until(job_id, "failed")).error == "ValueError: error ?!"
    assert await engine.rows("SELECT message FROM job_logs WHERE job_id = %s", job_id) == [("log ?!",)]


async def test_a_report_that_postgresql_refuses_costs_nothing_but_itself(engine: Engine) -> None:
    go = asyncio.Event()

    async def reports(payload: Any, job: JobContext) -> None:
        worker._reports.progress[job.job_id] = (1, 1e-60)  # too small for `real`
        job.log("lost with it")
        await go.wait()

    engine.handle("reports", reports)
    async with engine.worker() as worker:
        job_id = await engine.enqueue("reports")
        await engine.until(job_id, "processing")
        await eventually(lambda: _taken(worker))
        go.set()
        await engine.until(job_id, "completed")


async def test_a_progress_too_small_for_postgresql_is_zero_and_fails_no_job(engine: Engine) -> None:
    async def reports(payload: Any, job: JobContext) -> None:
        job.progress(1e-60)

    engine.handle("reports", reports)
    async with engine.worker():
        job = await engine.until(await engine.enqueue("reports", max_retries=0), "completed", "failed")
    assert (job.status, job.progress) == ("completed", 0.0), job.error


async def _taken(worker: Worker) -> bool:
    return not worker._reports.logs and not worker._reports._flushing.locked()


async def test_a_worker_of_which_a_part_breaks_writes_the_ends_that_it_has(engine: Engine) -> None:
    go, broken = asyncio.Event(), asyncio.Event()

    async def breaks(database: Database) -> None:
        await broken.wait()
        raise RuntimeError("a bug")

    async def waits(payload: Any, job: JobContext) -> None:
        await go.wait()

    async def stopping() -> bool:
        return worker._stopping.is_set()

    engine.handle("waits", waits)
    settings = WorkerSettings(concurrency=10, grace_seconds=5)
    worker = Worker(engine.database, engine.broker, engine.dsn, settings, engine.settings, engine.registry)
    worker._reports.run = breaks  # type: ignore[method-assign]
    running = asyncio.create_task(worker.run())
    job_id = await engine.enqueue("waits")
    await engine.until(job_id, "processing")
    async with engine.database.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (job_id,))
        go.set()
        await eventually(engine.lock_awaited)
        broken.set()
        await eventually(stopping)
    with pytest.raises(RuntimeError, match="a bug"):
        await running
    assert (await engine.service.get(job_id)).status == "completed"


async def test_a_worker_of_which_a_part_breaks_hands_back_what_it_runs(engine: Engine) -> None:
    broken = asyncio.Event()

    async def breaks(database: Database) -> None:
        await broken.wait()
        raise RuntimeError("a bug")

    async def waits(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    engine.handle("waits", waits)
    settings = WorkerSettings(concurrency=10, grace_seconds=5)
    worker = Worker(engine.database, engine.broker, engine.dsn, settings, engine.settings, engine.registry)
    worker._reports.run = breaks  # type: ignore[method-assign]
    running = asyncio.create_task(worker.run())
    job_id = await engine.enqueue("waits", max_retries=0)
    await engine.until(job_id, "processing")
    broken.set()
    with pytest.raises(RuntimeError, match="a bug"):
        await running
    job = await engine.service.get(job_id)
    assert (job.status, job.attempts) == ("pending", 0)


async def test_a_worker_whose_heartbeat_hangs_lets_go_of_its_jobs_within_its_lease(engine: Engine) -> None:
    async def waits(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    engine.handle("waits", waits)
    async with engine.worker() as worker:
        job_id = await engine.enqueue("waits")
        await engine.until(job_id, "processing")
        hung = worker._membership.process
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        assert (await engine.until(job_id, "pending")).attempts == 0

        async def replaced() -> bool:
            return worker._membership.process not in (None, hung) and not worker._membership.fenced

        await eventually(replaced)
        assert (await engine.outcomes(job_id))[:1] == ["handed_back"]
