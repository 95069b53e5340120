"""`goqueue migrate` on databases as people have them: one line for what is wrong, and nobody stalled for long."""

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from goqueue.errors import UnfitDatabase
from goqueue.store import ground, migrate
from goqueue.store.grants import TABLES
from goqueue_cli.embedded import EmbeddedPostgres, free_port
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase

ROLE = "plain"


def run_migrate(database: FreshDatabase, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", **database.environment, "GOQUEUE_LOG_FORMAT": "console", **more}
    return subprocess.run([GOQUEUE, "migrate"], env=environment, capture_output=True, text=True, timeout=55)


@pytest.fixture
def plain(bare_database: FreshDatabase) -> str:
    """The address by which a role without rights reaches a bare database."""
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone() is None:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}'".encode())
    return make_conninfo(bare_database.dsn, user=ROLE, password=ROLE)


def test_without_a_database_it_tries_as_the_settings_say_and_prints_a_line_for_each_failure(
    bare_database: FreshDatabase,
) -> None:
    away = run_migrate(bare_database, POSTGRES_PORT=str(free_port()), DB_MAX_RETRIES="2", DB_RETRY_DELAY="10ms")
    lines = away.stderr.splitlines() + away.stdout.splitlines()
    assert away.returncode == 1
    assert len(lines) == 3, lines
    assert all("Connection refused" in line for line in lines)


def test_it_waits_for_a_database_that_comes_later(own_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    later = FreshDatabase(own_postgres, "goqueue")
    own_postgres.stop()
    log = tmp_path / "log"
    environment = {**later.environment, "DB_MAX_RETRIES": "1000", "DB_RETRY_DELAY": "50ms"}
    with Process([GOQUEUE, "migrate"], environment=environment, log=log) as process:
        until = time.monotonic() + 40
        while "database is unavailable" not in log.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)  # a file gives no sign
        own_postgres.start()
        assert process.wait(40) == 0, log.read_text()


def test_a_role_without_the_right_to_create_is_told_which_right_it_lacks(
    bare_database: FreshDatabase, plain: str
) -> None:
    refused = run_migrate(bare_database, POSTGRES_USER=ROLE, POSTGRES_PASSWORD=ROLE)
    [line] = refused.stderr.splitlines()
    assert refused.returncode == 1
    assert f'GRANT CREATE ON SCHEMA "public" TO "{ROLE}"' in line


@pytest.mark.parametrize(
    "table",
    [
        "jobs (id serial PRIMARY KEY, title text, salary int)",
        "workers (id int)",
        "queues (name text, paused_at timestamptz)",
        "api_keys (id int, secret text)",
    ],
)
def test_a_table_of_somebody_else_is_left_alone_and_named(bare_database: FreshDatabase, table: str) -> None:
    name = table.split()[0]
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {table}".encode())
        with pytest.raises(UnfitDatabase, match=f'table "{name}" in schema "public" is not GoQueue\'s'):
            migrate.upgrade(bare_database.dsn)
        made = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert made == [(name,)]


def test_beside_a_table_of_somebody_else_it_lives_in_a_schema_of_its_own(
    bare_database: FreshDatabase, plain: str
) -> None:
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE jobs (id serial PRIMARY KEY, title text)")
        with pytest.raises(UnfitDatabase) as refused:
            migrate.upgrade(plain)
        # The message's own cure, by whoever may.
        _, cure = refused.value.message.split("a schema of its own: ")
        connection.execute(cure.encode())
        migrate.upgrade(plain)
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
        assert {name for (name,) in connection.execute(tables, ("goqueue",)).fetchall()} == set(TABLES)
        assert connection.execute(tables, ("public",)).fetchall() == [("jobs",)]


def test_a_table_further_down_the_search_path_is_not_adopted(bare_database: FreshDatabase) -> None:
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE jobs (id serial PRIMARY KEY, title text); CREATE SCHEMA own")
        migrate.upgrade(make_conninfo(bare_database.dsn, options="-c search_path=own,public"))
        columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'public.jobs'::regclass AND attnum > 0"
        assert connection.execute(columns).fetchall() == [("id",), ("title",)]
        assert connection.execute("SELECT to_regclass('own.jobs') IS NOT NULL").fetchone() == (True,)


def test_every_table_is_looked_at_before_it_is_made() -> None:
    assert set(ground.MADE_BY) | {"goqueue_schema"} == set(TABLES)


def test_migrations_that_start_together_take_turns(bare_database: FreshDatabase) -> None:
    with ThreadPoolExecutor() as threads:
        list(threads.map(migrate.upgrade, [bare_database.dsn] * 4))
    with psycopg.connect(bare_database.dsn) as connection:
        assert connection.execute("SELECT version_num FROM goqueue_schema").fetchall() == [(migrate.head(),)]
        assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_behind_a_long_reader_writers_wait_a_second_at_most_and_the_migration_gets_through_later(
    bare_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(bare_database.dsn, "0003")
    told = threading.Event()
    said: list[dict[str, object]] = []

    def warning(event: str, **more: object) -> None:
        said.append({"event": event, **more})
        told.set()

    monkeypatch.setattr(migrate.log, "warning", warning)
    with (
        psycopg.connect(bare_database.dsn, application_name="dump") as reader,
        psycopg.connect(bare_database.dsn, autocommit=True) as writer,
        ThreadPoolExecutor() as threads,
    ):
        reader.execute("SELECT count(*) FROM jobs")
        migrating = threads.submit(migrate.upgrade, bare_database.dsn)
        until = time.monotonic() + 40
        longest = 0.0
        while not told.is_set():
            began = time.monotonic()
            writer.execute("INSERT INTO jobs (queue, type, payload) VALUES ('default', 'noop', '{}')")
            longest = max(longest, time.monotonic() - began)
            assert time.monotonic() < until
        reader.rollback()
        migrating.result(40)
    assert longest < 6, "a writer waited for longer than the lock timeout, with room for a busy machine"
    assert said[0]["event"] == "a table is locked, trying again"
    assert "application dump" in str(said[0]["holder"])
    assert "jobs" in str(said[0]["holder"])
