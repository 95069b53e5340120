"""Behind a real PgBouncer in transaction mode: migrations, workers, times, and what a process that is not told says."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from typing import Any

import psycopg
import pytest

from goqueue.broker import Broker
from goqueue.job import NewJob
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings
from goqueue.store import migrate
from goqueue.store.connect import Database
from tests.integration.engine import Engine, eventually
from tests.servers.pgbouncer import PgBouncer, run_pgbouncer
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

THROUGH = DatabaseSettings(max_retries=0, pgbouncer=True)


@pytest.fixture
def bare(bare_database: FreshDatabase) -> Iterator[PgBouncer]:
    with run_pgbouncer(bare_database) as bouncer:
        yield bouncer


@pytest.fixture
async def through(engine: Engine, database: FreshDatabase) -> AsyncIterator[JobService]:
    """The service by way of PgBouncer, in front of a database with settings that do not suit the engine."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        for setting in ("TimeZone = 'Asia/Tokyo'", "DateStyle = 'SQL, DMY'"):
            connection.execute(f"ALTER DATABASE {database.name} SET {setting}".encode())
    with run_pgbouncer(database) as bouncer:
        pool = Database(bouncer.dsn, THROUGH, maximum=4)
        await pool.open(THROUGH)
        broker = Broker(engine.redis)
        service = JobService(pool, broker)
        yield service
        await service.close()
        await broker.close()
        await pool.close()
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database.name} RESET ALL".encode())


def run_migrate(bouncer: PgBouncer, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", **bouncer.environment, "DB_PGBOUNCER": "true", **more}
    return subprocess.run([GOQUEUE, "migrate"], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.timeout(240)  # six processes
def test_three_migrations_in_turn_and_three_at_once_all_succeed_and_leave_no_lock(bare: PgBouncer) -> None:
    with ThreadPoolExecutor() as threads:
        together = list(threads.map(lambda _: run_migrate(bare), range(3)))
    one_by_one = [run_migrate(bare) for _ in range(3)]
    assert [done.returncode for done in together + one_by_one] == [0] * 6, [done.stderr for done in together]
    with psycopg.connect(bare.database.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)
        assert connection.execute("SELECT version_num FROM goqueue_schema").fetchone() == (migrate.head(),)


def test_a_migration_prepares_no_statements(bare: PgBouncer) -> None:
    assert run_migrate(bare).returncode == 0
    # Each of the server's connections in turn: an open transaction keeps the one that it got.
    with (
        psycopg.connect(bare.dsn, prepare_threshold=None) as first,
        psycopg.connect(bare.dsn, prepare_threshold=None) as second,
    ):
        kept = [c.execute("SELECT name FROM pg_prepared_statements").fetchall() for c in (first, second)]
    assert kept == [[], []]


async def test_times_are_utc_whatever_the_database_says(through: JobService) -> None:
    made = await through.enqueue(NewJob("default", "noop", {}))
    job = await through.get(made.id)
    assert job.created_at.utcoffset() == job.available_at.utcoffset() == UTC.utcoffset(None)


async def test_settings_of_ours_do_not_reach_other_clients_of_the_pooler(
    through: JobService, database: FreshDatabase
) -> None:
    await through.enqueue(NewJob("default", "noop", {}))
    with run_pgbouncer(database, default_pool_size="1") as bouncer:
        pool = Database(bouncer.dsn, THROUGH)
        await pool.open(THROUGH)
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
        with psycopg.connect(bouncer.dsn, autocommit=True, prepare_threshold=None) as other:
            told = other.execute("SELECT current_setting('TimeZone'), current_setting('enable_seqscan')").fetchone()
        await pool.close()
    assert told == ("Asia/Tokyo", "on")


@pytest.mark.parametrize("part", ["worker", "scheduler"])
def test_a_process_that_was_not_told_of_the_pooler_ends_with_one_line_that_names_the_setting(
    part: str, database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    environment = {**ready_queues.environment, f"GOQUEUE_{part.upper()}_HEALTH_PORT": "0", "DB_MAX_RETRIES": "0"}
    with run_pgbouncer(database, default_pool_size="1") as bouncer:
        # Two of them on one connection of the server: each finds the other's statements.
        first = Process([GOQUEUE, part], environment={**environment, **bouncer.environment}, log=log)
        second = Process([GOQUEUE, part], environment={**environment, **bouncer.environment}, log=log)
        with first, second:
            assert {first.wait(40), second.wait(40)} == {1}
    told = [line for line in log.read_text().splitlines() if line.startswith("goqueue: ")]
    assert len(told) == 2, log.read_text()
    assert all("set DB_PGBOUNCER=true" in line for line in told)
    assert "Traceback" not in log.read_text()


async def test_jobs_run_through_it(
    through: JobService, engine: Engine, database: FreshDatabase, tmp_path: Path
) -> None:
    # To an address that webhooks are not sent to, so each fails at once, without a network.
    nowhere = {"url": "http://127.0.0.1:1/", "method": "POST", "body": {}}
    made = await through.enqueue_many([NewJob("default", "send_webhook", nowhere, max_retries=0)] * 20)
    with run_pgbouncer(database) as bouncer:
        environment = {
            **bouncer.environment,
            "DB_PGBOUNCER": "true",
            "GOQUEUE_REDIS_URL": engine.redis.url.get_secret_value(),
            "GOQUEUE_REDIS_PREFIX": engine.redis.prefix,
            "GOQUEUE_WORKER_HEALTH_PORT": "0",
            "GOQUEUE_QUEUES": "default",
        }
        with Process([GOQUEUE, "worker"], environment=environment, log=tmp_path / "log") as process:

            async def ended() -> Any:
                return {(await through.get(job.id)).status for job in made} == {"failed"}

            await eventually(ended, 30)
            assert process.returncode is None
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    assert not [line for line in lines if line["level"] == "error" and "attempt" not in line], lines
