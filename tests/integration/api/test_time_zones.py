"""Times in answers are UTC whatever time zone a session has, as behind PgBouncer, which takes no session settings."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, timedelta
from typing import Any

import psycopg
import pytest

from goqueue.settings import DatabaseSettings
from goqueue.store import schedules
from goqueue.store.connect import Database
from tests.integration.api.serving import app_on, new_key, serving
from tests.integration.engine import Engine
from tests.servers.stores import FreshDatabase

MAIL = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}
ORDER = {"queue": "email", "payload": MAIL}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture(params=["Asia/Kolkata", "America/New_York", "Europe/London"])
def zone(database: FreshDatabase, request: pytest.FixtureRequest) -> Iterator[str]:
    """The zone of every session of the role in this database that sets none."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        role, name = connection.info.user, connection.info.dbname
        connection.execute(f'ALTER ROLE "{role}" IN DATABASE "{name}" SET timezone = \'{request.param}\'')
        yield request.param
        connection.execute(f'ALTER ROLE "{role}" IN DATABASE "{name}" RESET timezone')


@pytest.fixture
async def pooled(engine: Engine) -> AsyncIterator[Database]:
    """Connections as through PgBouncer."""
    settings = DatabaseSettings(max_retries=0, pgbouncer=True)
    database = Database(engine.dsn, settings)
    await database.open(settings)
    yield database
    await database.close()


def times_of(answer: Any) -> list[str]:
    """Everything in an answer that begins like a date."""
    if isinstance(answer, dict):
        return [time for value in answer.values() for time in times_of(value)]
    if isinstance(answer, list):
        return [time for value in answer for time in times_of(value)]
    return [answer] if isinstance(answer, str) and re.match(r"\d{4}-\d\d-\d\d", answer) else []


async def test_all_times_of_all_answers_are_utc(engine: Engine, zone: str) -> None:
    headers = await new_key(engine, expires_in=3600)
    async with serving(app_on(engine, pgbouncer=True)) as client:
        client.headers.update(headers)
        made = await client.post("/jobs/create", json=ORDER)
        keyed = await client.post(
            "/jobs/create", json={**ORDER, "unique_key": "u", "available_at": "2100-01-01T00:00Z"}
        )
        again = await client.post("/jobs/create", json={**ORDER, "unique_key": "u"})
        bulk = await client.post("/jobs/bulk", json=[ORDER] * 150)
        id = made.json()["id"]
        for status in ("processing", "failed"):
            await client.put(f"/jobs/{id}/status", json={"status": status})
        await engine.execute(
            "INSERT INTO job_attempts (job_id, lease, attempt, outcome, started_at) VALUES (%s, 1, 1, 'failed', now())",
            id,
        )
        await engine.execute("INSERT INTO job_logs (job_id, attempt, level, message) VALUES (%s, 1, 'info', 'm')", id)
        plan = await client.put("/schedules/daily", json={"cron": "0 6 * * *", "time_zone": "Asia/Tokyo", "job": ORDER})
        key = await client.post("/admin/keys", json={"name": "k", "scopes": ["jobs:read"], "expires_in": 60})
        answers = [made, keyed, again, bulk, plan, key]
        for path in (
            f"/jobs/{id}",
            "/jobs?queue=email",
            f"/jobs/{id}/attempts",
            f"/jobs/{id}/logs",
            "/schedules",
            "/schedules/daily",
            "/admin/keys",
            "/admin/audit",
        ):
            answers.append(await client.get(path))
            assert times_of(answers[-1].json()), path
    assert {answer.is_success for answer in answers} == {True}
    times = [time for answer in answers for time in times_of(answer.json())]
    assert [time for time in times if not TIME.fullmatch(time)] == []
    assert keyed.json()["available_at"] == again.json()["available_at"] == "2100-01-01T00:00:00Z"
    assert made.json()["created_at"] == answers[6].json()["created_at"]


@pytest.mark.parametrize("binary", [False, True])
async def test_times_are_read_in_utc_exactly(pooled: Database, zone: str, binary: bool) -> None:
    query = """SELECT '2026-07-01T12:00:00.123456+02:00'::timestamptz, '2026-11-01T05:30:00Z'::timestamptz,
        ARRAY['1999-12-31T23:59:59Z'::timestamptz], current_setting('TimeZone')"""
    async with pooled.connection() as connection:
        # A session is set to UTC; behind a pooler it may have what another client has set.
        await connection.execute("SELECT set_config('TimeZone', %s, false)", (zone,))
        cursor = connection.cursor(binary=binary)
        await cursor.execute(query)
        row = await cursor.fetchone()
    assert row is not None
    assert row[3] == zone
    assert [time.isoformat() for time in (row[0], row[1], *row[2])] == [
        "2026-07-01T10:00:00.123456+00:00",
        "2026-11-01T05:30:00+00:00",
        "1999-12-31T23:59:59+00:00",
    ]


async def test_a_tick_has_one_name_in_all_zones(engine: Engine, pooled: Database, zone: str) -> None:
    """The key that lets a tick fire once is made of it."""
    job = {"queue": "default", "type": "nothing", "payload": {}}
    ((now,),) = await engine.rows("SELECT now() - interval '1 minute'")
    async with pooled.connection() as connection:
        await schedules.put(connection, "s", "* * * * *", "UTC", job, True, now)
        ((schedule, read_at),) = await schedules.due(connection)
    assert (schedule.next_tick, schedule.next_tick.tzinfo, read_at.tzinfo) == (now, UTC, UTC)
    assert timedelta(0) < read_at - now < timedelta(minutes=10)
