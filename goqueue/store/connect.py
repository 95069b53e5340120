"""Connections to PostgreSQL: the connection string, the pool, and what every connection is told first."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import orjson
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from goqueue.encryption import Keyring
from goqueue.errors import SettingsError, StoreContended, StoreRefused, StoreTimeout, StoreUnavailable, UnfitDatabase
from goqueue.logger import Logger
from goqueue.settings import DatabaseSettings, PostgresSettings
from goqueue.store import refusals, session, times

log = Logger(__name__)

Connection = psycopg.AsyncConnection[TupleRow]

set_json_loads(orjson.loads)


def dsn(postgres: PostgresSettings, database: DatabaseSettings | None = None) -> str:
    """A libpq connection string. It holds the password: never log it, never pass it on a command line."""
    return make_conninfo(
        "",
        host=",".join(name.strip() for name in postgres.host.split(",")),
        hostaddr="",  # else PGHOSTADDR would lead to another server than POSTGRES_HOST names, with its password
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
        client_encoding="UTF8",
        # Of the hosts that POSTGRES_HOST names, and after a failover: only one that takes writes will do.
        target_session_attrs="read-write",
        # A database host that vanished must not hold a process for the kernel's two hours.
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )


class Hosts:
    """The hosts of a connection string in the order in which to try them: the one that answered last comes first, so
    that one that does not answer costs its timeout once, and not at each new connection."""

    def __init__(self, conninfo: str, connect_timeout: int) -> None:
        """`connect_timeout` in seconds holds for each address, unless the connection string has one."""
        given = {"connect_timeout": connect_timeout, **conninfo_to_dict(conninfo), "client_encoding": "UTF8"}
        hosts = str(given.get("host") or "").split(",")
        ports = str(given.get("port") or "").split(",")
        self._conninfo = make_conninfo("", **given)
        # Where addresses are given beside the names, or ports do not match, libpq has its own word on it.
        movable = not given.get("hostaddr") and len(hosts) > 1 and len(ports) in (1, len(hosts))
        self._pairs = list(zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=True)) if movable else []
        self.count = len(hosts)

    def conninfo(self) -> str:
        """The connection string with the hosts in their present order."""
        if not self._pairs:
            return self._conninfo
        hosts, ports = zip(*self._pairs, strict=True)
        return make_conninfo(self._conninfo, host=",".join(hosts), port=",".join(ports))

    def prefer(self, host: str, port: int) -> None:
        """Try this one first from now on."""
        self._pairs.sort(key=lambda pair: (pair[0], pair[1] or "5432") != (host, str(port)))


async def connect(conninfo: str, settings: DatabaseSettings, *, hint: str = "") -> Connection:
    """A connection to a database that can serve, trying again as `DB_MAX_RETRIES` and `DB_RETRY_DELAY` say.

    The first failed attempt is logged with the hint.

    There is no bound around an attempt: libpq's `connect_timeout` holds for each address of each host.

    Raises:
        StoreUnavailable: PostgreSQL did not answer within all attempts; the message has its last word.
        UnfitDatabase: it answered, and cannot serve as it is set up.
        SettingsError: the address cannot be understood.
    """
    for left in range(settings.max_retries, -1, -1):
        try:
            connection = await psycopg.AsyncConnection.connect(conninfo)
            break
        except psycopg.OperationalError as error:
            reason = refusals.reason(error)
            if not left:
                cure = f"; {hint}" if hint else ""
                raise StoreUnavailable(f"database is unavailable: {reason}{cure}") from error
            more = {"hint": hint} if hint and left == settings.max_retries else {}
            log.warning("database is unavailable", reason=reason, attempts_left=left, **more)
            await asyncio.sleep(settings.retry_delay)
        except (psycopg.ProgrammingError, UnicodeError) as error:
            raise SettingsError(f"POSTGRES_*: {refusals.reason(error)}") from None
    await connection.set_autocommit(True)
    encoding = session.encoding(connection.pgconn)
    if encoding != "UTF8":
        name = connection.info.dbname
        await connection.close()
        raise UnfitDatabase(refusals.not_utf8(name, encoding))
    return connection


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
        self._hosts = Hosts(conninfo, settings.connect_timeout)
        self.maximum = maximum
        self.statement_timeout = statement_timeout
        self.pgbouncer = settings.pgbouncer
        self.broken = 0
        """How often a connection could not be had, or broke in use."""
        self._checking: asyncio.Task[None] | None = None
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self._hosts.conninfo,
            min_size=minimum,
            max_size=maximum,
            max_lifetime=settings.conn_max_lifetime,
            timeout=wait or settings.connect_timeout * self._hosts.count,
            reconnect_timeout=0.1,  # a failed reconnect is tried anew by the next caller, not after a long backoff
            configure=self._configure,
            kwargs={"autocommit": True},
            open=False,
            name="goqueue",
        )

    async def _configure(self, connection: Connection) -> None:
        times.in_utc(connection)
        self._hosts.prefer(connection.info.host, connection.info.port)
        connection.prepare_threshold = None if self.pgbouncer else 0
        preamble = session.preamble(
            connection.info.server_version,
            pgbouncer=self.pgbouncer,
            statement_timeout_ms=int(self.statement_timeout * 1000),
        )
        await connection.execute(preamble, prepare=False)

    async def open(self, settings: DatabaseSettings) -> None:
        """Connect, trying again as `DB_MAX_RETRIES` and `DB_RETRY_DELAY` say.

        Raises:
            StoreUnavailable: PostgreSQL did not answer within all attempts; the message has its last word.
            UnfitDatabase: it answered, and cannot serve as it is set up.
        """
        # A connection of its own, since a pool says only that it has none, not why.
        began = time.monotonic()
        probe = await connect(self._hosts.conninfo(), settings, hint=self.hint)
        took = time.monotonic() - began
        try:
            await self._configure(probe)
        except psycopg.Error as error:
            raise UnfitDatabase(f"the session cannot be set up: {refusals.reason(error)}") from error
        finally:
            await probe.close()
        await self._pool.open()
        try:
            # So that the first caller does not wait for hosts that do not answer, of which it may have no time to.
            async with self._pool.connection(timeout=settings.connect_timeout + 2 * took):
                pass
        except (PoolTimeout, psycopg.OperationalError) as error:
            raise StoreUnavailable(f"database is unavailable: {refusals.reason(error)}") from error

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
            StoreContended: a row stayed locked by another transaction.
            StoreTimeout: a statement took longer than this pool allows.
            UnfitDatabase: a pooler loses prepared statements, which `DB_PGBOUNCER` was not told of.
        """
        try:
            async with self._pool.connection() as connection:
                try:
                    yield connection
                except psycopg.errors.ReadOnlySqlTransaction as error:
                    # The server became a standby under us: the next connection looks for one that takes writes.
                    await connection.close()
                    raise psycopg.OperationalError("the server takes no writes") from error
        except (psycopg.errors.DuplicatePreparedStatement, psycopg.errors.InvalidSqlStatementName) as error:
            raise UnfitDatabase(refusals.POOLED) from error
        except (PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError) as error:
            if isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
                raise StoreContended("a row or table is locked by another transaction") from error
            if isinstance(error, psycopg.errors.QueryCanceled):
                raise StoreTimeout("request timeout") from error
            self._check_others()
            raise StoreUnavailable("database is unavailable") from error
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise StoreRefused(f"the database refused the value: {type(error).__name__}") from error

    def _check_others(self) -> None:
        self.broken += 1
        if self._checking is None or self._checking.done():
            self._checking = asyncio.get_running_loop().create_task(self._pool.check())

    def stats(self) -> dict[str, int]:
        """The pool's own counters, for metrics."""
        return self._pool.get_stats()


async def fetch_all(connection: Connection, query: LiteralString, parameters: Any = None) -> list[TupleRow]:
    """All rows of a statement."""
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall()
