"""The processes run as a role that may read and write rows and nothing else."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from goqueue import JobContext, RetryIn
from goqueue.job import NewJob
from goqueue.settings import RedisSettings
from goqueue.store import grants, migrate, schedules
from goqueue_operator import rows as operator_rows
from goqueue_scheduler.pruner import Pruner
from tests.integration.console import Console
from tests.integration.engine import Anything, Engine, connected, empty, eventually
from tests.servers.stores import FreshDatabase, FreshRedis


@pytest.fixture
def role(bare_database: FreshDatabase) -> Iterator[str]:
    """A role of its own, with a password and nothing else; gone after the test."""
    name = f"app_{secrets.token_hex(4)}"
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def dsn(bare_database: FreshDatabase, role: str) -> str:
    """The migrated database as that role sees it."""
    migrate.upgrade(bare_database.dsn)
    grants.grant(bare_database.dsn, role)
    return make_conninfo(bare_database.dsn, user=role, password="secret")


@pytest.fixture
async def restricted(dsn: str, ready_queues: FreshRedis) -> AsyncIterator[Engine]:
    """An engine all of whose connections are the role's."""
    redis = RedisSettings(url=SecretStr(ready_queues.url), prefix=ready_queues.prefix)
    async with connected(dsn, redis) as engine:
        yield engine


async def test_everything_that_the_processes_do_works_as_the_restricted_role(restricted: Engine) -> None:
    engine, service = restricted, restricted.service

    async def work(payload: Anything, job: JobContext) -> dict[str, int]:
        job.log("a line")
        job.progress(0.5)
        if job.queue == "other" and job.attempt == 1:
            raise RetryIn(0, "again")
        await asyncio.sleep(0)
        return {"attempt": job.attempt}

    started = asyncio.Event()

    async def hold(payload: Anything, job: JobContext) -> None:
        started.set()
        await asyncio.Event().wait()

    engine.handle("work", work)
    engine.handle("hold", hold)
    later = datetime.now(UTC) + timedelta(hours=1)
    held_back = await engine.enqueue("work", available_at=later, unique_key="one")
    again = await service.enqueue(NewJob("default", "work", {}, unique_key="one"))
    assert (again.id, again.created) == (held_back, False)
    bulk = await service.enqueue_many([NewJob("default", "work", {})] * 150)
    retried = await engine.enqueue("work", "other")
    tick = datetime.now(UTC) - timedelta(seconds=30)
    async with engine.database.connection() as connection:
        template = {"queue": "default", "type": "work", "payload": {}}
        await schedules.put(connection, "each-minute", "* * * * *", "UTC", template, True, tick)
        assert await schedules.get(connection, "each-minute")
    await service.pause("default")
    await service.resume("default")
    async with engine.worker(), engine.scheduler(reconcile_seconds=0.2) as scheduler:
        for made in bulk:
            await engine.until(made.id, "completed", seconds=20)
        await engine.until(retried, "completed")
        assert (await engine.outcomes(retried))[0] == "retried"
        running = await engine.enqueue("hold")
        await asyncio.wait_for(started.wait(), 60)
        await service.cancel(running)
        await engine.until(running, "cancelled")
        await service.retry(running)
        await service.delete(running)
        await service.save_result(held_back, "1", "none")
        await service.increment_attempts(held_back)
        await eventually(lambda: engine.rows("SELECT 1 FROM schedules WHERE last_job_id IS NOT NULL"))
        assert scheduler.leadership.leading
        async with engine.database.connection() as connection:
            assert await operator_rows.changed(connection, [(held_back, None)])
            assert await operator_rows.hold(connection, [held_back])
            assert await operator_rows.release(connection, [(held_back, later)])
            assert await schedules.delete(connection, "each-minute")
    await service.cancel(held_back)
    assert (await Pruner(engine.database, 1e-6, 1e-6, 1e-6).walk())["jobs"] > 100


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE jobs ADD COLUMN mine int",
        "DROP TABLE jobs",
        "TRUNCATE jobs",
        "CREATE INDEX ON jobs (type)",
        "CREATE TRIGGER mine AFTER INSERT ON jobs EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE jobs DISABLE TRIGGER ALL",
        "UPDATE goqueue_schema SET version_num = '0001'",
        "DELETE FROM job_attempts",
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM dispatch_floor",
        "SELECT setval('jobs_id_seq', 1)",
        "SELECT * FROM other.secrets",
        "SELECT * FROM neighbours",
        "SELECT rolpassword FROM pg_authid",
        "COPY jobs TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "CREATE ROLE mine",
        "GRANT SELECT ON jobs TO PUBLIC",
    ],
)
def test_the_role_can_do_nothing_else(dsn: str, bare_database: FreshDatabase, statement: str) -> None:
    with psycopg.connect(bare_database.dsn, autocommit=True) as owner:
        owner.execute("CREATE SCHEMA other; CREATE TABLE other.secrets (id int); CREATE TABLE neighbours (id int)")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT count(*) FROM jobs")
        if statement.startswith("GRANT"):  # PostgreSQL warns and grants nothing
            connection.execute(statement)
            granted = (
                "SELECT 1 FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC' AND table_name = 'jobs'"
            )
            assert connection.execute(granted).fetchall() == []
            return
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_every_table_and_sequence_of_the_schema_is_on_the_list(dsn: str, bare_database: FreshDatabase) -> None:
    with psycopg.connect(bare_database.dsn) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        drawn = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND sequencename = 'jobs_id_seq'"
        assert {row[0] for row in tables} == set(grants.TABLES)
        assert {row[0] for row in connection.execute(drawn).fetchall()} == set(grants.SEQUENCES)


def test_granting_again_takes_away_what_was_given_beyond_the_list(
    dsn: str, bare_database: FreshDatabase, role: str
) -> None:
    def held() -> set[tuple[Any, ...]]:
        query = "SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = %s"
        with psycopg.connect(bare_database.dsn) as connection:
            return set(connection.execute(query, (role,)).fetchall())

    listed = {(table, one) for table, rights in grants.TABLES.items() for one in rights.split(", ")}
    assert held() == listed
    with psycopg.connect(bare_database.dsn) as connection:
        connection.execute(sql.SQL("GRANT ALL ON jobs, goqueue_schema TO {}").format(sql.Identifier(role)))
    assert held() > listed
    grants.grant(bare_database.dsn, role)
    assert held() == listed


@pytest.mark.timeout(180)
async def test_the_command_migrates_as_the_owner_and_grants_and_the_role_itself_cannot_migrate(
    bare_database: FreshDatabase, role: str, ready_queues: FreshRedis, tmp_path: Any
) -> None:
    console = Console(tmp_path, {**bare_database.environment, **ready_queues.environment})
    as_role = {"POSTGRES_USER": role, "POSTGRES_PASSWORD": "secret"}
    assert (await console("migrate", "--grant-to", "nobody-knows")).code == 1
    assert (await console("jobs", "list", **as_role)).code == 1
    for _ in range(2):
        assert (await console("migrate", "--check", "--grant-to", role)).code == 0
    request = '{"url": "https://example.org", "method": "POST", "body": {}}'
    enqueued = await console("enqueue", "send_webhook", request, "--output", "json", **as_role)
    assert enqueued.json["status"] == "pending"
    refused = await console("migrate", "--grant-to", role, **as_role)
    assert refused.code == 1
    assert "secret" not in refused.out + refused.err


async def test_emptying_the_tables_is_for_the_owner_alone(restricted: Engine) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with restricted.database.connection() as connection:
            await empty(connection)
