"""The schema's version: bring the database to it, or refuse to work on another one."""

import time
from typing import TYPE_CHECKING, Any

import psycopg

from goqueue.errors import StaleSchema
from goqueue_migrations import REVISIONS

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LOCK = 0x60_0E_0E
"""Advisory lock under which one process at a time migrates; the number only has to be ours."""


def head() -> str:
    """The newest revision that this code knows."""
    return REVISIONS[-1]


def upgrade(dsn: str, revision: str = "head") -> None:
    """Bring the database to `revision`; does nothing where it is there already.

    Raises:
        psycopg.Error: the database cannot be reached or refuses.
    """
    _run(dsn, "upgrade", revision)


def downgrade(dsn: str, revision: str = "base") -> None:
    """Take the database back to `revision`."""
    _run(dsn, "downgrade", revision)


def _run(dsn: str, direction: str, revision: str) -> None:
    # Imported here: the processes that only check the schema shall not carry Alembic and SQLAlchemy.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool)
    with engine.connect() as connection:
        _wait_for_turn(connection)
        try:
            config = Config()
            config.set_main_option("script_location", "goqueue_migrations:")
            config.attributes["connection"] = connection
            getattr(command, direction)(config, revision)
            connection.commit()
        finally:
            connection.rollback()
            connection.exec_driver_sql("SELECT pg_advisory_unlock(%s)", (_LOCK,))
            connection.commit()


def _wait_for_turn(connection: "Connection") -> None:
    """Take the lock. Asking again and again, since a wait inside PostgreSQL would hold a snapshot, for whose end a
    `CREATE INDEX CONCURRENTLY` of the one that migrates waits in turn."""
    while not connection.exec_driver_sql("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).scalar_one():
        connection.commit()
        time.sleep(0.2)
    connection.commit()


async def check(connection: psycopg.AsyncConnection[Any]) -> None:
    """Refuse a database whose schema is older than this code; a newer one is fine (expand first, contract later).

    Raises:
        StaleSchema: migrations are missing; the message says how to run them.
    """
    try:
        cursor = await connection.execute("SELECT version_num FROM goqueue_schema")
        row = await cursor.fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    except psycopg.errors.InsufficientPrivilege:
        raise StaleSchema("this role has no rights in the database: run `goqueue migrate --grant-to ROLE`") from None
    current = row[0] if row else None
    if current is None or current in REVISIONS[:-1]:
        raise StaleSchema(f"database schema is at {current or 'nothing'}, needs {head()}: run `goqueue migrate`")
