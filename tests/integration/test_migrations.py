"""The schema's history: up, down and up again, and the Go project's rows survive."""

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from goqueue.errors import StaleSchema
from goqueue.store import migrate
from goqueue_migrations import REVISIONS
from tests.servers.stores import FreshDatabase

SHAPE = """
SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
WHERE table_schema = 'public' ORDER BY table_name, column_name
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
RULES = """
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1
"""

# The tables that the Go project made over time.
GORM = """
CREATE TABLE jobs (
    id bigserial PRIMARY KEY, created_at timestamptz, updated_at timestamptz, deleted_at timestamptz, queue text,
    type text, payload jsonb, status text DEFAULT 'pending', attempts bigint DEFAULT 0, max_retries bigint DEFAULT 5,
    result jsonb, error text
);
CREATE INDEX idx_jobs_status ON jobs (status);
CREATE INDEX idx_jobs_deleted_at ON jobs (deleted_at);
"""
GOOSE = """
CREATE TABLE jobs (
    id BIGSERIAL PRIMARY KEY, queue VARCHAR(255) NOT NULL, type VARCHAR(255) NOT NULL, payload JSONB,
    status VARCHAR(50) NOT NULL DEFAULT 'queued', attempts INT NOT NULL DEFAULT 0, max_retries INT NOT NULL DEFAULT 5,
    available_at TIMESTAMPTZ NOT NULL DEFAULT now(), locked_at TIMESTAMPTZ, locked_by BIGINT, result JSONB, error TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX idx_jobs_status ON jobs (status);
CREATE INDEX idx_jobs_queue_status ON jobs (queue, status);
CREATE INDEX idx_jobs_available_at ON jobs (available_at);
CREATE INDEX idx_jobs_locked_at ON jobs (locked_at);
"""


def shape(connection: psycopg.Connection[tuple[object, ...]]) -> list[list[tuple[object, ...]]]:
    return [connection.execute(query).fetchall() for query in (SHAPE, INDEXES, RULES)]


def test_the_list_of_revisions_is_that_of_the_scripts() -> None:
    config = Config()
    config.set_main_option("script_location", "goqueue_migrations:")
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in scripts)[::-1] == REVISIONS


def test_up_down_and_up_again_gives_the_same_schema(bare_database: FreshDatabase) -> None:
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        migrate.upgrade(bare_database.dsn)
        first = shape(connection)
        migrate.downgrade(bare_database.dsn)
        left = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert left == [("goqueue_schema",)]
        migrate.upgrade(bare_database.dsn)
        assert shape(connection) == first


def test_migrating_twice_changes_nothing(bare_database: FreshDatabase) -> None:
    migrate.upgrade(bare_database.dsn)
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        first = shape(connection)
        migrate.upgrade(bare_database.dsn)
        assert shape(connection) == first


@pytest.mark.parametrize(("table", "words"), [(GORM, ("pending", "processing")), (GOOSE, ("queued", "running"))])
def test_the_go_projects_rows_survive(bare_database: FreshDatabase, table: str, words: tuple[str, str]) -> None:
    waiting, running = words
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        connection.execute(table)
        for status in (waiting, running, "completed", "failed"):
            connection.execute(
                "INSERT INTO jobs (queue, type, payload, status, attempts, max_retries, result, error, created_at,"
                " updated_at)"
                " VALUES ('email', 'send_email', '{\"to\": \"a@b.c\"}', %s, 2, 3, '{\"ok\": true}', '', now(), now())",
                (status,),
            )
        migrate.upgrade(bare_database.dsn)
        rows = connection.execute(
            "SELECT status, attempts, max_retries, payload->>'to', result->>'ok', error, finished_at IS NOT NULL,"
            " dispatch_at IS NOT NULL FROM jobs ORDER BY id"
        ).fetchall()
        kept = (2, 3, "a@b.c", "true", None)
        assert rows == [
            ("pending", *kept, False, True),
            ("pending", *kept, False, True),  # whoever ran it is gone
            ("completed", *kept, True, False),
            ("failed", *kept, True, False),
        ]
        indexes = " ".join(str(row[0]) for row in connection.execute(INDEXES).fetchall())
        assert "status" not in indexes


def test_both_ways_to_the_schema_agree(bare_database: FreshDatabase, database: FreshDatabase) -> None:
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        connection.execute(GOOSE)
        migrate.upgrade(bare_database.dsn)
        adopted = shape(connection)
    with psycopg.connect(database.dsn) as connection:
        created = shape(connection)
    assert adopted == created


async def test_a_process_refuses_a_schema_older_than_its_code(bare_database: FreshDatabase) -> None:
    async with await psycopg.AsyncConnection.connect(bare_database.dsn, autocommit=True) as connection:
        with pytest.raises(StaleSchema, match="at nothing, needs"):
            await migrate.check(connection)
        migrate.upgrade(bare_database.dsn, "0001")
        with pytest.raises(StaleSchema, match="at 0001, needs"):
            await migrate.check(connection)
        migrate.upgrade(bare_database.dsn)
        await migrate.check(connection)


async def test_a_newer_schema_is_accepted_so_that_old_pods_outlive_an_upgrade(bare_database: FreshDatabase) -> None:
    migrate.upgrade(bare_database.dsn)
    async with await psycopg.AsyncConnection.connect(bare_database.dsn, autocommit=True) as connection:
        await connection.execute("UPDATE goqueue_schema SET version_num = '9999'")
        await migrate.check(connection)
