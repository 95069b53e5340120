"""The schema's version: bring the database to it, or refuse to work on another one."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
import structlog

from goqueue.errors import GoQueueError, StaleSchema, StoreUnavailable, UnfitDatabase
from goqueue.store import grants, refusals, session
from goqueue.store.ground import check_ground
from goqueue_migrations import REVISIONS

log = structlog.get_logger(__name__)

_TAKE_LOCK = "SELECT pg_try_advisory_xact_lock(6295054)"
"""Advisory lock under which one process at a time migrates; the number (0x600E0E) only has to be ours."""

LOCK_TIMEOUT: Final = "1s"
"""How long a migration waits for a lock on a table. Everybody else's statements wait behind it for that long."""

PATIENCE: Final = 600.0
"""Seconds for which locks on tables are tried for again."""

SAY_AGAIN: Final = 10.0
"""Seconds between two lines that say what is waited for."""

_HOLDER_OF_LOCK = """
SELECT pid, application_name, usename FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND objid = 6295054 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_OLDEST_READER = """
SELECT pid, application_name, usename, relation::regclass::text, extract(epoch FROM now() - xact_start)::int
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()
    AND relation = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY xact_start LIMIT 1
"""


def head() -> str:
    """The newest revision that this code knows."""
    return REVISIONS[-1]


def upgrade(dsn: str, revision: str = "head", *, pgbouncer: bool = False) -> None:
    """Bring the database to `revision`; does nothing where it is there already.

    Args:
        dsn: Where.
        revision: One of `REVISIONS`, or `head`.
        pgbouncer: The address is that of a PgBouncer in transaction mode. Then a `statement_timeout` or `lock_timeout`
            of the role holds for what runs outside of a transaction (`CREATE INDEX CONCURRENTLY`).

    Raises:
        UnfitDatabase: the role, the schema or the database is not set up for it; the message says what to change.
        GoQueueError: the database refuses, or a lock could not be had within `PATIENCE`.
        StoreUnavailable: it cannot be reached.
    """
    _run(dsn, "upgrade", revision, pgbouncer)


def downgrade(dsn: str, revision: str = "base", *, pgbouncer: bool = False) -> None:
    """Take the database back to `revision`; raises as `upgrade` does."""
    _run(dsn, "downgrade", revision, pgbouncer)


def _run(dsn: str, direction: str, revision: str, pgbouncer: bool) -> None:
    # Imported here: the processes that only check the schema shall not carry Alembic and SQLAlchemy.
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import DBAPIError

    def connect() -> psycopg.Connection[Any]:
        return _connect(dsn, pgbouncer)

    with _turn(connect):
        until = time.monotonic() + PATIENCE
        pause = 1.0
        while True:
            try:
                with connect() as connection:
                    check_ground(connection)
                _migrate(connect, direction, revision)
                return
            except DBAPIError as error:
                cause = error.orig
                passes = isinstance(cause, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected)
                if not passes or time.monotonic() > until:
                    raise _refused(cause or error, _oldest_reader(connect) if passes else None) from error
            except psycopg.Error as error:
                raise _refused(error, None) from error
            except CommandError as error:
                raise GoQueueError(f"cannot migrate: {' '.join(str(error).split())}") from error
            log.warning("a table is locked, trying again", seconds=pause, holder=_oldest_reader(connect))
            time.sleep(pause)
            pause = min(pause * 2, 10.0)


def _migrate(connect: Callable[[], psycopg.Connection[Any]], direction: str, revision: str) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import Connection, create_engine, event
    from sqlalchemy.pool import NullPool

    # hstore would be looked for by a prepared statement.
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool, use_native_hstore=False)

    @event.listens_for(engine, "begin")
    def _bound(connection: Connection) -> None:
        # For the transaction alone: PgBouncer gives the session's connection to others after it.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")

    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", "goqueue_migrations:")
        config.attributes["connection"] = connection
        getattr(command, direction)(config, revision)
        connection.commit()


def _connect(dsn: str, pgbouncer: bool) -> psycopg.Connection[Any]:
    try:
        connection = psycopg.connect(dsn, prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"database is unavailable: {refusals.reason(error)}") from error
    try:
        encoding = session.encoding(connection.pgconn)
        if encoding != "UTF8":
            raise UnfitDatabase(refusals.not_utf8(connection.info.dbname, encoding))
        preamble = session.preamble(connection.info.server_version, pgbouncer=pgbouncer)
        connection.execute(preamble, prepare=False)
        connection.commit()
        # Said with each BEGIN, which holds through PgBouncer too: an open transaction must not keep a snapshot.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _turn(connect: Callable[[], psycopg.Connection[Any]]) -> Iterator[None]:
    """Hold the lock within the block, in a transaction that is open for as long: a session's lock would stay on
    PgBouncer's server connection when this process is gone.

    No transaction here may have a snapshot for longer than a statement, since a `CREATE INDEX CONCURRENTLY` waits for
    it to end. So this asks again and again instead of waiting inside PostgreSQL, and by statements without parameters:
    the portal of one with parameters keeps its snapshot until the next statement.
    """
    with connect() as guard:
        _take(guard)
        try:
            yield
        finally:
            with contextlib.suppress(psycopg.Error):
                guard.rollback()


def _take(guard: psycopg.Connection[Any]) -> None:
    said = -SAY_AGAIN
    while True:
        guard.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        if guard.info.server_version >= 170000:
            guard.execute("SET LOCAL transaction_timeout = 0")
        row = guard.execute(_TAKE_LOCK).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() - said >= SAY_AGAIN and (holder := guard.execute(_HOLDER_OF_LOCK).fetchone()) is not None:
            log.warning("another process migrates, waiting for it", holder=_named(*holder))
            said = time.monotonic()
        guard.rollback()
        time.sleep(0.2)


def _named(pid: int, application: str | None, user: str | None, *_: Any) -> str:
    return f"pid {pid}, application {application or 'unnamed'}, user {user or 'unknown'}"


def _oldest_reader(connect: Callable[[], psycopg.Connection[Any]]) -> str:
    """Who has had a lock on one of our tables for longest: most likely the one that is in the way."""
    with connect() as connection:
        found = connection.execute(_OLDEST_READER, (list(grants.TABLES),)).fetchone()
    return "gone by now" if found is None else f"{_named(*found)}, in {found[3]} for {found[4]} s"


def _refused(error: BaseException, holder: str | None) -> GoQueueError:
    words = refusals.reason(error)
    if holder is not None:
        return GoQueueError(f"cannot migrate: {words}; held by {holder}")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return UnfitDatabase(f"cannot migrate: {words}; run it as the owner of the tables")
    return GoQueueError(f"cannot migrate: {words}")


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
