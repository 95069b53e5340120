"""Connections to PostgreSQL: the connection string, the pool, and what every connection is told first."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import orjson
import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from goqueue.encryption import Keyring
from goqueue.errors import StoreRefused, StoreTimeout, StoreUnavailable
from goqueue.logger import Logger
from goqueue.settings import DatabaseSettings, PostgresSettings

log = Logger(__name__)

Connection = psycopg.AsyncConnection[TupleRow]

set_json_loads(orjson.loads)

PLANNER: tuple[LiteralString, ...] = (
    # The engine's statements touch rows by key. A plan made while the table was small must not scan it when it is
    # large, and prepared statements keep their plans for long.
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET jit = off",
    # An array of one id is so cheap to find that PostgreSQL would plan each claim anew, in the hope of a better plan
    # than the only one there is.
    "SET plan_cache_mode = force_generic_plan",
    "SET timezone = 'UTC'",
)


def dsn(postgres: PostgresSettings, database: DatabaseSettings | None = None) -> str:
    """A libpq connection string. It holds the password: never log it, never pass it on a command line."""
    return make_conninfo(
        "",
        host=postgres.host,
        port=postgres.port,
        user=postgres.user,
        password=postgres.password.get_secret_value() or None,
        dbname=postgres.db,
        sslmode=postgres.sslmode,
        sslrootcert=str(postgres.sslrootcert) if postgres.sslrootcert else None,
        sslcert=str(postgres.sslcert) if postgres.sslcert else None,
        sslkey=str(postgres.sslkey) if postgres.sslkey else None,
        connect_timeout=database.connect_timeout if database else None,
        application_name="goqueue",
        # Of the hosts that POSTGRES_HOST names, and after a failover: only one that takes writes will do.
        target_session_attrs="read-write",
        # A database host that vanished must not hold a process for the kernel's two hours.
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )


class Database:
    """A pool of connections for one process.

    `connection()` waits for a free one; after a broken one the others are checked, so that a restart of PostgreSQL
    costs a process one failed statement instead of one for each pooled connection.
    """

    def __init__(
        self,
        conninfo: str,
        settings: DatabaseSettings,
        *,
        minimum: int = 1,
        maximum: int = 4,
        statement_timeout: float = 0,
        wait: float | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        """`statement_timeout` in seconds bounds every statement, 0: no bound; `wait` the wait for a connection.

        `keyring` encrypts what jobs hold, None: nothing is encrypted.
        """
        self.keyring = keyring
        self.hint = ""
        """Logged beside the first failed attempt to connect."""
        self._conninfo = conninfo
        self._statement_timeout = int(statement_timeout * 1000)
        self.pgbouncer = settings.pgbouncer
        self._checking: asyncio.Task[None] | None = None
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            conninfo,
            min_size=minimum,
            max_size=maximum,
            max_lifetime=settings.conn_max_lifetime,
            timeout=wait or settings.connect_timeout,
            reconnect_timeout=0.1,  # a failed reconnect is tried anew by the next caller, not after a long backoff
            configure=self._configure,
            kwargs={"autocommit": True},
            open=False,
            name="goqueue",
        )

    async def _configure(self, connection: Connection) -> None:
        connection.prepare_threshold = None if self.pgbouncer else 0
        if not self.pgbouncer:
            await connection.execute("; ".join(PLANNER), prepare=False)
            if self._statement_timeout:
                limit = str(self._statement_timeout)
                await connection.execute("SELECT set_config('statement_timeout', %s, false)", (limit,), prepare=False)

    async def open(self, settings: DatabaseSettings) -> None:
        """Connect, trying again as `DB_MAX_RETRIES` and `DB_RETRY_DELAY` say.

        Raises:
            StoreUnavailable: PostgreSQL did not answer within all attempts; the message has its last word.
        """
        # A connection of its own, since a pool says only that it has none, not why.
        for left in range(settings.max_retries, -1, -1):
            try:
                async with asyncio.timeout(settings.connect_timeout):
                    probe = await psycopg.AsyncConnection.connect(self._conninfo)
                await probe.close()
                break
            except (psycopg.OperationalError, TimeoutError) as error:
                reason = " ".join(str(error).split()) or f"no answer within {settings.connect_timeout} s"
                if not left:
                    raise StoreUnavailable(f"database is unavailable: {reason}") from error
                hint = {"hint": self.hint} if self.hint and left == settings.max_retries else {}
                log.warning("database is unavailable", reason=reason, attempts_left=left, **hint)
                await asyncio.sleep(settings.retry_delay)
        await self._pool.open()

    async def close(self) -> None:
        """Close all connections."""
        if self._checking:
            self._checking.cancel()
        await self._pool.close(timeout=5)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow an autocommit connection.

        Raises:
            StoreUnavailable: no connection could be had, or it broke in use. Whether a statement in flight took
                effect is then unknown; all of the engine's writes may be repeated.
            StoreRefused: a value does not fit.
            StoreTimeout: a statement took longer than this pool allows.
        """
        try:
            async with self._pool.connection() as connection:
                try:
                    yield connection
                except psycopg.errors.ReadOnlySqlTransaction as error:
                    # The server became a standby under us: the next connection looks for one that takes writes.
                    await connection.close()
                    raise psycopg.OperationalError("the server takes no writes") from error
        except (PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError) as error:
            if isinstance(error, psycopg.errors.DeadlockDetected):
                raise
            if isinstance(error, psycopg.errors.QueryCanceled):
                raise StoreTimeout("request timeout") from error
            self._check_others()
            raise StoreUnavailable("database is unavailable") from error
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise StoreRefused(f"the database refused the value: {type(error).__name__}") from error

    def _check_others(self) -> None:
        if self._checking is None or self._checking.done():
            self._checking = asyncio.get_running_loop().create_task(self._pool.check())

    def stats(self) -> dict[str, int]:
        """The pool's own counters, for metrics."""
        return self._pool.get_stats()


async def fetch_all(connection: Connection, query: LiteralString, parameters: Any = None) -> list[TupleRow]:
    """All rows of a statement."""
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall()
