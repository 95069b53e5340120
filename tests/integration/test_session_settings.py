"""Settings of a database or a role that do not suit the engine: it works as ever, since it sets what it relies on."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from goqueue.job import AttemptEnd, JobFilter, NewJob, Outcome
from goqueue.lifecycle import JobStatus
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings
from goqueue.store import attempts, leaders, retention, schedules
from goqueue.store.connect import Database
from tests.integration.engine import Engine, claim
from tests.servers.stores import FreshDatabase

HOSTILE = [
    "array_nulls = off",
    "bytea_output = 'escape'",
    "client_encoding = 'LATIN1'",
    "client_min_messages = 'debug5'",
    "DateStyle = 'German, DMY'",
    "default_transaction_deferrable = on",
    "default_transaction_isolation = 'repeatable read'",
    "default_transaction_isolation = 'serializable'",
    "enable_indexscan = off",
    "enable_nestloop = off",
    "enable_seqscan = on",
    "enable_sort = off",
    "exit_on_error = on",
    "extra_float_digits = -15",
    "IntervalStyle = 'sql_standard'",
    "jit_above_cost = 0",
    "plan_cache_mode = 'force_custom_plan'",
    "row_security = off",
    "session_replication_role = 'replica'",
    "standard_conforming_strings = off",
    "synchronous_commit = off",
    "TimeZone = 'Asia/Kathmandu'",
    "transform_null_equals = on",
    "quote_all_identifiers = on",
]

RELIED_ON = {
    "TimeZone": ("UTC", "Asia/Kathmandu"),
    "DateStyle": ("ISO, MDY", "German, DMY"),
    "client_encoding": ("UTF8", "LATIN1"),
    "default_transaction_isolation": ("read committed", "serializable"),
    "synchronous_commit": ("on", "off"),
    "session_replication_role": ("origin", "replica"),
    "array_nulls": ("on", "off"),
    "enable_seqscan": ("off", "on"),
    "enable_indexscan": ("on", "off"),
    "statement_timeout": ("0", "30s"),
    "lock_timeout": ("1500ms", "30s"),
    "idle_in_transaction_session_timeout": ("0", "30s"),
    "idle_session_timeout": ("0", "30s"),
    "transaction_timeout": ("0", "30s"),
}
"""What a session has, whatever the database says: the second."""


@pytest.fixture
def hostile(request: pytest.FixtureRequest, engine: Engine, database: FreshDatabase) -> Iterator[list[str]]:
    """A database with other settings."""
    with psycopg.connect(database.server.dsn, autocommit=True) as connection:
        for setting in request.param:
            connection.execute(f"ALTER DATABASE {database.name} SET {setting}".encode())
        yield request.param
        connection.execute(f"ALTER DATABASE {database.name} RESET ALL".encode())


@pytest.mark.parametrize("hostile", [[setting] for setting in HOSTILE], indirect=True, ids=HOSTILE)
async def test_jobs_are_made_run_listed_and_pruned_under_a_hostile_setting(
    hostile: list[str], engine: Engine, database: FreshDatabase
) -> None:
    settings = DatabaseSettings(max_retries=0)
    pool = Database(database.dsn, settings)
    await pool.open(settings)
    service = JobService(pool, engine.broker)
    try:
        await _live(service, pool)
    finally:
        await service.close()
        await pool.close()


async def _live(service: JobService, pool: Database) -> None:
    """One life of a few jobs; what it reads back must be what it wrote."""
    payload = {"text": "Grüße 🎉 \\ ' \"", "number": 0.1}
    later = datetime.now(UTC) + timedelta(hours=1)
    one = await service.enqueue(NewJob("default", "noop", payload, timeout=1.25))
    many = await service.enqueue_many([NewJob("default", "noop", payload)] * 3)
    keyed = await service.enqueue(NewJob("default", "noop", payload, unique_key="NULL"))
    assert (await service.enqueue(NewJob("default", "noop", payload, unique_key="NULL"))).id == keyed.id
    due = await service.enqueue(NewJob("default", "noop", payload, available_at=later))
    job = await service.get(one.id)
    assert (job.payload, job.timeout, job.tenant, job.unique_key) == (payload, 1.25, None, None)
    assert job.created_at.utcoffset() == timedelta(0)
    assert (await service.get(due.id)).available_at == later

    async with pool.connection() as connection:
        worker = await attempts.register(connection, "w", ["default"], 5)
        claimed = await claim(connection, worker, [one.id, *(made.id for made in many)])
        assert len(claimed) == 4
        first, second, *_ = claimed
        done = AttemptEnd(first.id, first.lease, Outcome.COMPLETED, result='{"n": 0.1}')
        assert await attempts.complete(connection, [done]) == {first.id}
        failed = AttemptEnd(second.id, second.lease, Outcome.FAILED, error="no \\ luck")
        assert await attempts.end_otherwise(connection, [failed]) == {second.id}
        assert await leaders.take(connection, "scheduler", "me", 15.0) is not None
        cron = await schedules.put(connection, "s", "0 9 * * *", "UTC", {"queue": "default"}, True, later)
        assert cron[0].next_tick == later
    assert (await service.get(first.id)).result == {"n": 0.1}
    found = await service.find(
        JobFilter(queue="default", status=JobStatus.FAILED, created_after=later - timedelta(days=1))
    )
    assert [(job.id, job.error) for job in found] == [(second.id, "no \\ luck")]

    async with pool.connection() as connection:
        await connection.execute("UPDATE jobs SET finished_at = now() - interval '1 h' WHERE id = %s", (second.id,))
        keep = retention.Keep(1.0, 1.0)
        await retention.delete(connection, (await retention.past(connection, 0, keep)).ids, keep)
        rows: Any = await connection.execute("SELECT count(*) FROM job_attempts WHERE job_id = %s", (second.id,))
        assert await rows.fetchone() == (0,)


@pytest.mark.parametrize("hostile", [[f"{name} = '{bad}'" for name, (_, bad) in RELIED_ON.items()]], indirect=True)
async def test_a_session_has_what_the_engine_relies_on(
    hostile: list[str], engine: Engine, database: FreshDatabase
) -> None:
    settings = DatabaseSettings(max_retries=0)
    pool = Database(database.dsn, settings)
    await pool.open(settings)
    try:
        async with pool.connection() as connection:
            query = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"
            cursor = await connection.execute(query, (list(RELIED_ON),))
            assert dict(await cursor.fetchall()) == {name: good for name, (good, _) in RELIED_ON.items()}
    finally:
        await pool.close()
