"""Rows that others lock, deadlocks, and rows that PostgreSQL refuses: what they cost the other jobs of a worker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest

from goqueue import JobContext
from goqueue.job import AttemptEnd, ClaimedJob, Outcome
from goqueue.store import attempts
from goqueue.store.connect import Connection
from goqueue_worker import drain
from goqueue_worker.completer import Completer
from tests.integration.engine import Engine, claim, eventually

OUTCOMES = [Outcome.COMPLETED, Outcome.FAILED]
JOBS = 9


async def claimed(engine: Engine) -> list[ClaimedJob]:
    """Jobs that a worker holds."""
    ids = [await engine.enqueue("noop") for _ in range(JOBS)]
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "completer", ["default"], JOBS)
        return sorted(await claim(connection, worker, ids), key=lambda job: job.id)


@contextlib.asynccontextmanager
async def completing(engine: Engine, jobs: Sequence[ClaimedJob], outcome: Outcome) -> AsyncIterator[Completer]:
    """A running completer that was given the ends of these jobs together."""
    completer = Completer(engine.database, lambda: None)
    for job in jobs:
        completer.put(AttemptEnd(job.id, job.lease, outcome))
    running = asyncio.create_task(completer.run())
    try:
        yield completer
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def somebody(engine: Engine) -> AsyncIterator[Connection]:
    """A transaction of somebody else, open for the length of the block."""
    async with engine.database.connection() as other, other.transaction():
        yield other


async def lock(other: Connection, job: ClaimedJob) -> None:
    await other.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (job.id,))


async def ended(engine: Engine, jobs: Sequence[ClaimedJob], outcome: Outcome) -> None:
    """Return when all these jobs have ended so."""
    for job in jobs:
        await engine.until(job.id, outcome.value)


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_a_locked_row_holds_up_its_own_end_only(engine: Engine, outcome: Outcome) -> None:
    jobs = await claimed(engine)
    row, others = jobs[4], jobs[:4] + jobs[5:]
    async with contextlib.AsyncExitStack() as stack:
        async with somebody(engine) as other:
            await lock(other, row)
            completer = await stack.enter_async_context(completing(engine, jobs, outcome))
            await ended(engine, others, outcome)
            assert list(completer.ids) == [row.id]
            assert completer.backlog == 1
        await asyncio.wait_for(completer.drained(), 30)
        await ended(engine, [row], outcome)
        assert completer.stale == 0


async def test_the_end_of_a_deleted_job_is_dropped_although_another_row_is_locked(engine: Engine) -> None:
    jobs = await claimed(engine)
    row, gone = jobs[0], jobs[1]
    await engine.execute("DELETE FROM jobs WHERE id = %s", gone.id)
    async with somebody(engine) as other:
        await lock(other, row)
        async with completing(engine, jobs, Outcome.COMPLETED) as completer:
            await ended(engine, jobs[2:], Outcome.COMPLETED)

            async def one_is_left() -> bool:
                return list(completer.ids) == [row.id]

            await eventually(one_is_left)
            assert completer.stale == 1


async def test_a_locked_table_of_attempts_holds_up_no_completion(engine: Engine) -> None:
    jobs = await claimed(engine)
    async with contextlib.AsyncExitStack() as stack:
        async with somebody(engine) as other:
            await other.execute("LOCK TABLE job_attempts IN EXCLUSIVE MODE")
            completer = await stack.enter_async_context(completing(engine, jobs[:3], Outcome.FAILED))
            await eventually(engine.lock_awaited)
            for job in jobs[3:]:
                completer.put(AttemptEnd(job.id, job.lease, Outcome.COMPLETED))
            await ended(engine, jobs[3:], Outcome.COMPLETED)
            assert completer.backlog == 3
        await ended(engine, jobs[:3], Outcome.FAILED)


async def test_a_deadlock_is_repeated_and_costs_no_end(engine: Engine) -> None:
    jobs = await claimed(engine)
    async with contextlib.AsyncExitStack() as stack:
        async with somebody(engine) as other:
            await other.execute("SET LOCAL deadlock_timeout = '1min'")  # so that it is not this one that is ended
            await other.execute("SET LOCAL lock_timeout = 0")
            await lock(other, jobs[5])
            completer = await stack.enter_async_context(completing(engine, jobs, Outcome.COMPLETED))
            await eventually(engine.lock_awaited)
            await lock(other, jobs[0])  # the completer has it, and waits for the other
        await asyncio.wait_for(completer.drained(), 30)
    await ended(engine, jobs, Outcome.COMPLETED)


async def test_deadlocks_one_after_the_other_end_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, complete, left = await claimed(engine), attempts.complete, 20

    async def deadlocks(connection: Connection, ends: Sequence[AttemptEnd], keyring: None) -> set[int]:
        nonlocal left
        if left:
            left -= 1
            raise psycopg.errors.DeadlockDetected
        return await complete(connection, ends, keyring)

    monkeypatch.setattr(attempts, "complete", deadlocks)
    async with completing(engine, jobs, Outcome.COMPLETED) as completer:
        await asyncio.wait_for(completer.drained(), 30)
    await ended(engine, jobs, Outcome.COMPLETED)


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_a_row_that_a_trigger_of_somebody_refuses_holds_up_its_own_end_only(
    engine: Engine, outcome: Outcome
) -> None:
    jobs = await claimed(engine)
    await engine.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$"
    )
    await engine.execute(
        f"CREATE TRIGGER refuse BEFORE UPDATE ON jobs FOR EACH ROW WHEN (NEW.id = {jobs[2].id}) "
        "EXECUTE FUNCTION refuse()"
    )
    try:
        async with completing(engine, jobs, outcome) as completer:
            await ended(engine, jobs[:2] + jobs[3:], outcome)
            assert completer.backlog == 1
            await engine.execute("DROP TRIGGER refuse ON jobs")
            await asyncio.wait_for(completer.drained(), 30)
    finally:
        await engine.execute("DROP FUNCTION refuse CASCADE")
    await ended(engine, [jobs[2]], outcome)


async def test_a_bug_in_a_write_loses_no_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, complete, left = await claimed(engine), attempts.complete, 3

    async def breaks(connection: Connection, ends: Sequence[AttemptEnd], keyring: None) -> set[int]:
        nonlocal left
        if left:
            left -= 1
            raise KeyError("a bug")
        return await complete(connection, ends, keyring)

    monkeypatch.setattr(attempts, "complete", breaks)
    async with completing(engine, jobs, Outcome.COMPLETED) as completer:
        await asyncio.wait_for(completer.drained(), 30)
    await ended(engine, jobs, Outcome.COMPLETED)


async def test_a_worker_that_ends_while_a_row_is_locked_leaves_that_job_to_the_rescuer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()

    async def work(payload: Any, job: JobContext) -> None:
        await go.wait()

    monkeypatch.setattr(drain, "WRITE_SECONDS", 2.0)
    engine.handle("work", work)
    async with somebody(engine) as other, engine.worker() as worker:
        locked, free = await engine.enqueue("work"), await engine.enqueue("work")
        for job_id in (locked, free):
            await engine.until(job_id, "processing")
        await other.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (locked,))
        go.set()
        await engine.until(free, "completed")
        worker.stop()
    assert (await engine.service.get(locked)).status == "processing"
    assert len(await engine.rows("SELECT FROM workers")) == 1  # else nobody would rescue it


async def test_a_claim_that_does_not_end_keeps_no_drain_from_its_end(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_claim, claiming = attempts.claim, asyncio.Event()
    stuck: list[int] = []

    async def hang(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    async def never_answers(connection: Connection, *arguments: Any, **more: Any) -> list[ClaimedJob]:
        found = await first_claim(connection, *arguments, **more)
        if stuck and found:
            claiming.set()
            await asyncio.Event().wait()
        return found

    monkeypatch.setattr(attempts, "claim", never_answers)
    monkeypatch.setattr(drain, "CLAIM_SECONDS", 0.2)
    engine.handle("hang", hang)
    async with engine.worker(grace_seconds=0.3) as worker:
        running = await engine.enqueue("hang", max_retries=0)
        await engine.until(running, "processing")
        stuck.append(await engine.enqueue("hang"))
        await asyncio.wait_for(claiming.wait(), 30)
        worker.stop()
    job = await engine.service.get(running)
    assert (job.status, job.attempts) == ("pending", 0)
    assert (await engine.service.get(stuck[0])).status == "processing"
    assert len(await engine.rows("SELECT FROM workers")) == 1  # what the claim took will be rescued
