"""Jobs that a worker cannot run for now wait without a charge, the longer the longer nobody could run them."""

from goqueue.job import AttemptEnd, Outcome
from goqueue.store import attempts
from goqueue_worker import attempt
from tests.integration.engine import Engine, claim


async def test_the_wait_for_a_key_grows_with_the_time_that_the_job_has_waited_for_it(engine: Engine) -> None:
    """The leases of its claims, which are random, say nothing about it."""
    job_id = await engine.enqueue("pay", max_retries=0)
    delays = []
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "w", ["default"], 1)
        for since in (0, 1, 11, 45, 1000):
            await engine.execute("UPDATE job_attempts SET finished_at = now() - make_interval(secs => %s)", since)
            await engine.execute("UPDATE jobs SET available_at = now() - interval '1 hour'")
            [job] = await claim(connection, worker, [job_id])
            assert await attempts.end_otherwise(connection, [attempt.waits_for_key(job, "no key")]) == {job_id}
            [[delay]] = await engine.rows("SELECT extract(epoch FROM available_at - updated_at)::float FROM jobs")
            delays.append(round(delay))
    assert delays == [5, 5, 11, 45, 300]
    assert (await engine.service.get(job_id)).attempts == 0


async def test_a_handler_that_snoozed_before_its_last_retry_does_not_count_as_a_wait_for_the_key(
    engine: Engine,
) -> None:
    job_id = await engine.enqueue("pay")
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "w", ["default"], 1)
        for outcome in (Outcome.SNOOZED, Outcome.RETRIED):
            [job] = await claim(connection, worker, [job_id])
            await attempts.end_otherwise(connection, [AttemptEnd(job.id, job.lease, outcome)])
        await engine.execute("UPDATE job_attempts SET finished_at = now() - interval '1 hour'")
        [job] = await claim(connection, worker, [job_id])
        await attempts.end_otherwise(connection, [attempt.waits_for_key(job, "no key")])
    assert await engine.rows("SELECT round(extract(epoch FROM available_at - updated_at)) FROM jobs") == [(5,)]
