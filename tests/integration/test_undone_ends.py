"""What a failover to a standby without the last transactions undoes: ends of attempts, and registrations of workers."""

import contextlib

import pytest

from goqueue import JobContext
from goqueue.errors import RetryIn, StoreUnavailable
from goqueue.job import Job
from goqueue.lifecycle import JobStatus
from tests.integration.engine import Anything, Engine, eventually


async def undo(engine: Engine, job_id: int) -> None:
    """What a failover to a standby that lacks the end of an attempt leaves of it, connections included."""
    await engine.execute(
        "UPDATE jobs SET status = 'processing', finished_at = NULL, result = NULL, dispatch_at = NULL WHERE id = %s",
        job_id,
    )
    await engine.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    async def answers() -> bool:
        with contextlib.suppress(StoreUnavailable):
            await engine.rows("SELECT")
            return True
        return False

    await eventually(answers)


async def ended_again(engine: Engine, job_id: int, status: JobStatus) -> Job:
    """The job, when it has this status; some of the connections may be broken still."""

    async def there() -> Job | None:
        with contextlib.suppress(StoreUnavailable):
            job = await engine.service.get(job_id)
            return job if job.status is status else None
        return None

    job: Job = await eventually(there)
    return job


async def test_a_completion_that_a_failover_undid_is_written_again(engine: Engine) -> None:
    runs = []

    async def work(payload: Anything, job: JobContext) -> dict[str, int]:
        runs.append(job.job_id)
        return {"run": len(runs)}

    engine.handle("work", work)
    async with engine.worker():
        job_id = await engine.enqueue("work")
        await engine.until(job_id, JobStatus.COMPLETED)
        await undo(engine, job_id)
        job = await ended_again(engine, job_id, JobStatus.COMPLETED)
    assert (job.result, runs) == ({"run": 1}, [job_id])


async def test_a_failure_that_a_failover_undid_is_written_again(engine: Engine) -> None:
    async def work(payload: Anything, job: JobContext) -> None:
        raise RetryIn(1000, "later")

    engine.handle("work", work)
    async with engine.worker():
        job_id = await engine.enqueue("work")
        await engine.until(job_id, JobStatus.PENDING)
        await _ended(engine, job_id)
        await undo(engine, job_id)
        job = await ended_again(engine, job_id, JobStatus.PENDING)
    assert (job.attempts, job.error) == (1, "RetryIn: later")


async def _ended(engine: Engine, job_id: int) -> None:
    while not await engine.outcomes(job_id):
        await engine.until(job_id, JobStatus.PENDING)


@pytest.mark.parametrize("later", ["end", "lease"])
async def test_an_end_is_not_written_again_to_a_job_that_others_have_taken_or_ended(engine: Engine, later: str) -> None:
    async def work(payload: Anything, job: JobContext) -> None:
        return

    engine.handle("work", work)
    async with engine.worker() as worker:
        job_id = await engine.enqueue("work")
        await engine.until(job_id, JobStatus.COMPLETED)
        await worker._completer.drained()
        if later == "lease":
            # The lease first: the worker looks by itself, too, once it finds its connections broken.
            await engine.execute("UPDATE jobs SET lease = lease + 1 WHERE id = %s", job_id)
            await undo(engine, job_id)
        await worker._rewriter._look()
        assert worker._completer.backlog == 0
        expected = JobStatus.COMPLETED if later == "end" else JobStatus.PROCESSING
        assert (await engine.service.get(job_id)).status is expected


async def test_a_worker_does_not_renew_the_registration_of_another_that_has_its_id_now(engine: Engine) -> None:
    async with engine.worker("first") as worker:

        async def registered() -> int | None:
            return worker._membership.worker_id

        lost = await eventually(registered)
        await engine.execute("UPDATE workers SET name = 'second', beat = 0 WHERE id = %s", lost)

        async def anew() -> bool:
            return await registered() not in (None, lost)

        await eventually(anew)
        rows = await engine.rows("SELECT name FROM workers ORDER BY id")
        assert [row[0] for row in rows] == ["second", "first"]
