"""What the schema itself keeps true of jobs, and what it may not cost them."""

import asyncio
from datetime import UTC, datetime

import pytest

from goqueue.errors import StoreRefused
from goqueue.job import LogLine
from goqueue.lifecycle import JobStatus
from goqueue.store import attempt_sql, attempts
from goqueue.store.connect import Connection, fetch_all
from tests.integration.engine import Engine, eventually

LEFT = "SELECT (SELECT count(*) FROM job_attempts), (SELECT count(*) FROM job_logs)"


async def with_history(engine: Engine, jobs: int) -> list[int]:
    """Jobs that have an attempt and a log line each."""
    ids = [await engine.enqueue("nothing") for _ in range(jobs)]
    for job_id in ids:
        await engine.execute(
            "INSERT INTO job_attempts (job_id, lease, attempt, outcome) VALUES (%s, 1, 1, 'retried')", job_id
        )
        await engine.execute(
            "INSERT INTO job_logs (job_id, attempt, level, message) VALUES (%s, 1, 'info', 'hello')", job_id
        )
    return ids


async def log_a_line(connection: Connection, job_id: int) -> None:
    rows = await fetch_all(connection, "SELECT date_part('epoch', created_at) FROM jobs WHERE id = %s", (job_id,))
    line = LogLine(job_id, rows[0][0] if rows else 0.0, 1, "info", "late", datetime.now(UTC))
    await attempts.save_logs(connection, [line])


async def test_attempts_and_log_lines_go_with_their_job_and_with_no_other(engine: Engine) -> None:
    first, second, third = await with_history(engine, 3)
    await engine.execute("DELETE FROM jobs WHERE id IN (%s, %s)", first, third)
    assert await engine.rows("SELECT job_id FROM job_attempts") == [(second,)]
    assert await engine.rows("SELECT job_id FROM job_logs") == [(second,)]


async def test_a_line_logged_while_its_job_is_deleted_is_not_left_behind(engine: Engine) -> None:
    (job_id,) = await with_history(engine, 1)
    async with engine.database.connection() as deleting, engine.database.connection() as logging:
        async with deleting.transaction():
            await deleting.execute("DELETE FROM jobs WHERE id = %s", (job_id,))
            line = asyncio.create_task(log_a_line(logging, job_id))
            await eventually(engine.lock_awaited)
        await line
    assert await engine.rows(LEFT) == [(0, 0)]


async def test_a_deletion_waits_for_a_line_under_way_and_takes_it_along(engine: Engine) -> None:
    (job_id,) = await with_history(engine, 1)
    async with engine.database.connection() as deleting, engine.database.connection() as logging:
        async with logging.transaction():
            await log_a_line(logging, job_id)
            deletion = asyncio.create_task(deleting.execute("DELETE FROM jobs WHERE id = %s", (job_id,)))
            await eventually(engine.lock_awaited)
        await deletion
    assert await engine.rows(LEFT) == [(0, 0)]


async def test_an_update_of_a_job_meets_no_trigger_and_no_foreign_key(engine: Engine) -> None:
    """A foreign key that points at `jobs` would read the old row again at each claim and each end."""
    job_id = await engine.enqueue("nothing")
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "w", ["default"], 1)
        rows = await fetch_all(
            connection,
            "EXPLAIN (ANALYZE, FORMAT JSON) " + attempt_sql.CLAIM,
            {"worker": worker, "ids": [job_id], "queue": "default", "lease": 1},
        )
    assert (await engine.service.get(job_id)).status == "processing"
    assert rows[0][0][0]["Triggers"] == []
    assert await engine.rows("SELECT conname FROM pg_constraint WHERE confrelid = 'jobs'::regclass") == []


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("status", [*JobStatus, "unknown"])
async def test_a_job_is_finished_in_its_final_states_and_in_no_other(
    engine: Engine, status: str, finished: bool
) -> None:
    job_id = await engine.enqueue("nothing")
    change = "UPDATE jobs SET status = %s, finished_at = CASE WHEN %s THEN now() END WHERE id = %s"
    if status != "unknown" and JobStatus(status).final is finished:
        await engine.execute(change, status, finished, job_id)
    else:
        with pytest.raises(StoreRefused, match="CheckViolation"):
            await engine.execute(change, status, finished, job_id)
