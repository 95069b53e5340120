"""Who may write to a job: nobody but the claim that holds it, also where ids of jobs are drawn a second time."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from goqueue import JobContext
from goqueue.broker.overflow import member
from goqueue.job import AttemptEnd, ClaimedJob, LogLine, Outcome
from goqueue.lifecycle import JobStatus
from goqueue.store import attempts, dispatch, jobs, rescue
from tests.integration.engine import Engine, claim, eventually

NOW = datetime.now(UTC)


async def lose_the_tail(engine: Engine, job_id: int) -> None:
    """What a failover to a standby that lacks the last transactions makes of a job: it was never there, and its id is
    drawn again. So is that of its worker's next claim: sequences go back, too."""
    await engine.execute("DELETE FROM jobs WHERE id = %s", job_id)
    await engine.rows("SELECT setval('jobs_id_seq', %s, false)", job_id)


async def two_holders(engine: Engine) -> tuple[ClaimedJob, ClaimedJob]:
    """A job of the lost tail in the hands of its worker, and the job that has its id now in the hands of another."""
    async with engine.database.connection() as connection:
        first = await attempts.register(connection, "first", ["default"], 1)
        second = await attempts.register(connection, "second", ["default"], 1)
        job_id = await engine.enqueue("anything")
        (lost,) = await claim(connection, first, [job_id])
        await lose_the_tail(engine, job_id)
        assert await engine.enqueue("anything") == job_id
        (mine,) = await claim(connection, second, [job_id])
    return lost, mine


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.RESCUED])
async def test_after_a_lost_tail_a_former_worker_does_not_end_the_job_that_has_the_id_now(
    engine: Engine, outcome: Outcome
) -> None:
    lost, mine = await two_holders(engine)
    write = attempts.complete if outcome is Outcome.COMPLETED else attempts.end_otherwise
    async with engine.database.connection() as connection:
        await attempts.save_progress(connection, [(lost.id, lost.lease, 0.5)])
        lines = [LogLine(job.id, job.created, 1, "info", text, NOW) for job, text in ((lost, "lost"), (mine, "mine"))]
        await attempts.save_logs(connection, lines)
        assert await engine.rows("SELECT message FROM job_logs") == [("mine",)]
        assert await write(connection, [AttemptEnd(lost.id, lost.lease, outcome)]) == set()
        job = await engine.service.get(mine.id)
        assert (job.status, job.progress, job.attempts) == (JobStatus.PROCESSING, None, 1)
        done = AttemptEnd(mine.id, mine.lease, Outcome.COMPLETED)
        assert await attempts.complete(connection, [done]) == {mine.id}


async def test_each_write_that_takes_a_job_away_gives_it_a_lease_that_nobody_holds(engine: Engine) -> None:
    """A counter would give the job of a lost tail and the job that has its id now the same ones in turn."""

    async def lease() -> int:
        [[stored]] = await engine.rows("SELECT lease FROM jobs")
        return int(stored)

    seen = []
    job_id = await engine.enqueue("anything", max_retries=20)
    async with engine.database.connection() as connection:
        for status in (JobStatus.PROCESSING, JobStatus.PENDING, JobStatus.FAILED):
            await jobs.set_status(connection, job_id, status)
            seen.append(await lease())
        await jobs.retry(connection, job_id)
        seen.append(await lease())
        worker = await attempts.register(connection, "w", ["default"], 1)
        [claimed] = await claim(connection, worker, [job_id])
        seen.append(await lease())
        await attempts.deregister(connection, worker)
        await rescue.rescue(connection, {job_id: 0.0}, "died")
        assert await engine.rows("SELECT lease FROM job_attempts") == [(claimed.lease,)]
        seen.append(await lease())
    assert len(set(seen)) == len(seen)
    assert min(seen) > 0
    assert max(seen) > 1000  # six numbers of thirty bits


async def test_an_attempt_that_is_kept_already_does_not_refuse_the_end_of_another(engine: Engine) -> None:
    job_id = await engine.enqueue("anything")
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "w", ["default"], 1)
        [job] = await claim(connection, worker, [job_id])
        await engine.execute(
            "INSERT INTO job_attempts (job_id, lease, attempt, outcome) VALUES (%s, %s, 1, 'retried')",
            job_id,
            job.lease,
        )
        end = AttemptEnd(job.id, job.lease, Outcome.RETRIED, error="e", delay=1)
        assert await attempts.end_otherwise(connection, [end]) == {job_id}


async def test_a_job_in_the_ready_set_of_another_queue_is_not_run_by_who_serves_that_and_gets_to_its_own(
    engine: Engine,
) -> None:
    ran: list[str] = []

    async def note(payload: Any, job: JobContext) -> None:
        ran.append(f"{job.job_id} of {job.queue}")

    engine.handle("note", note)
    job_id = await engine.enqueue("note", queue="other")
    await engine.service.close()
    await engine.broker._redis.delete(engine.broker._ready("other"))
    await engine.broker._redis.zadd(engine.broker._ready("default"), {member(job_id): 1})

    async def in_its_own() -> bool:
        return (await engine.broker.depths(["default", "other"]))["other"].depth == 1

    async with engine.worker(queues="default"):
        await eventually(in_its_own)
        assert ran == []
    async with engine.worker(queues="other"):
        job = await engine.until(job_id, "completed")
    assert (ran, job.attempts) == ([f"{job_id} of other"], 1)


async def test_a_job_whose_cancellation_waited_for_its_end_does_not_run_again(engine: Engine) -> None:
    job_id = await engine.enqueue("anything")
    async with engine.database.connection() as connection, engine.database.connection() as other:
        worker = await attempts.register(connection, "w", ["default"], 1)
        [job] = await claim(connection, worker, [job_id])
        async with other.transaction():
            assert await jobs.cancel(other, job_id) == (JobStatus.PROCESSING, "default")
            end = AttemptEnd(job.id, job.lease, Outcome.RETRIED, error="e", delay=0)
            ending = asyncio.create_task(attempts.end_otherwise(connection, [end]))
            await eventually(engine.lock_awaited)
        assert await ending == {job_id}
        ended = await engine.service.get(job_id)
        assert (ended.status, ended.attempts) == (JobStatus.CANCELLED, 1)
        assert ended.finished_at is not None
        assert await claim(connection, worker, [job_id]) == []


async def test_a_waiting_job_that_was_asked_to_be_cancelled_is_cancelled_instead_of_run(engine: Engine) -> None:
    """As ends of former versions could leave it."""
    ran: list[int] = []

    async def note(payload: Any, job: JobContext) -> None:
        ran.append(job.job_id)

    engine.handle("note", note)
    job_id = await engine.enqueue("note", unique_key="k")
    await engine.execute("UPDATE jobs SET cancel_requested_at = now()")
    async with engine.worker():
        job = await engine.until(job_id, "cancelled")
        assert job.finished_at is not None
        await engine.until(await engine.enqueue("note", unique_key="k"), "completed")
    assert job_id not in ran


async def test_a_job_that_is_handed_back_keeps_its_place_and_one_that_is_retried_does_not(engine: Engine) -> None:
    ids = [await engine.enqueue("anything") for _ in range(2)]
    await engine.execute("UPDATE jobs SET available_at = now() - interval '1 hour'")
    before = dict(await engine.rows("SELECT id, available_at FROM jobs"))
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "w", ["default"], 2)
        claimed = {job.id: job.lease for job in await claim(connection, worker, ids)}
        back = AttemptEnd(ids[0], claimed[ids[0]], Outcome.HANDED_BACK)
        again = AttemptEnd(ids[1], claimed[ids[1]], Outcome.RETRIED, error="e")
        await attempts.end_otherwise(connection, [back, again])
        due = {job.id: job for job, _ in await dispatch.due(connection, (before[ids[0]], 0), datetime.now(UTC))}
    after = dict(await engine.rows("SELECT id, available_at FROM jobs"))
    assert after[ids[0]] == before[ids[0]]
    assert after[ids[1]] > before[ids[1]]
    assert due[ids[0]].score == int(before[ids[0]].timestamp() * 1000)


async def test_a_row_that_somebody_has_locked_holds_up_its_own_job_only(engine: Engine) -> None:
    async def quick(payload: Any, job: JobContext) -> None:
        pass

    engine.handle("quick", quick)
    ids = [await engine.enqueue("quick") for _ in range(20)]
    async with engine.database.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (ids[7],))
        async with engine.worker(concurrency=20):
            for job_id in ids[:7] + ids[8:]:
                await engine.until(job_id, "completed")
            for job_id in [await engine.enqueue("quick") for _ in range(5)]:
                await engine.until(job_id, "completed")
        assert (await engine.service.get(ids[7])).status is JobStatus.PENDING
    async with engine.worker():  # the other one has put it back
        assert (await engine.until(ids[7], "completed")).attempts == 1


async def test_a_job_is_known_by_its_id_and_the_time_that_it_was_made_in_each_attempt(engine: Engine) -> None:
    seen: list[tuple[int, float]] = []

    async def note(payload: Any, job: JobContext) -> None:
        seen.append((job.job_id, job.created))
        if job.attempt == 1:
            raise RuntimeError("again")

    engine.handle("note", note)
    async with engine.scheduler(), engine.worker():
        job_id = await engine.enqueue("note")
        made = (await engine.until(job_id, "completed")).created_at.timestamp()
        await lose_the_tail(engine, job_id)
        assert await engine.enqueue("note") == job_id
        await engine.until(job_id, "completed")
    assert seen[0] == seen[1] == (job_id, made)
    assert seen[2] == seen[3] != seen[0]
