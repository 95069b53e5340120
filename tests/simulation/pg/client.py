"""psycopg and its pool, as far as `goqueue.store` uses them, on the simulated server."""

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import psycopg
from psycopg.pq import ExecStatus
from psycopg_pool import PoolTimeout

from goqueue.settings import DatabaseSettings
from goqueue.store import session as sessions
from goqueue.store.connect import Database
from tests.simulation.pg.execution import Result
from tests.simulation.pg.server import Server, Session
from tests.simulation.pg.values import shown

_LOCK_TIMEOUT: Final = re.compile(r"lock_timeout = '?(\d+)(ms|s)?")


class _Columns:
    """The part of a PGresult that row factories look at."""

    status = ExecStatus.TUPLES_OK

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.nfields = len(names)

    def fname(self, at: int) -> bytes:
        return self._names[at].encode()


class SimulatedCursor:
    """A cursor."""

    _encoding = "utf-8"

    def __init__(self, connection: "SimulatedConnection", row_factory: Any = None) -> None:
        self._connection = connection
        self._row_factory = row_factory
        self._rows: list[Any] = []
        self.pgresult: Any = None
        self.rowcount = -1

    async def execute(self, query: Any, parameters: Any = None, **_: Any) -> "SimulatedCursor":
        """Run a statement."""
        result = await self._connection.ask(query, parameters)
        self.rowcount = result.count
        self.pgresult = _Columns(result.names) if result.names is not None else None
        rows = [tuple(map(shown, row)) for row in result.rows]
        if self._row_factory is not None and self.pgresult is not None:
            make = self._row_factory(self)
            rows = [make(row) for row in rows]
        self._rows = rows
        return self

    async def fetchall(self) -> list[Any]:
        """What is left of the rows."""
        rows, self._rows = self._rows, []
        return rows

    async def fetchone(self) -> Any:
        """The next row."""
        return self._rows.pop(0) if self._rows else None


class _Info:
    encoding = "utf-8"
    server_version = 180000


class SimulatedConnection:
    """An autocommit connection."""

    info = _Info()

    def __init__(self, server: Server, session: Session) -> None:
        self._server = server
        self.session = session
        self._depth = 0

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return self.session.cut

    async def ask(self, query: str, parameters: Any) -> Result:
        """Send a statement and wait for its result."""
        return await self._server.ask(self.session, query, parameters)

    def cursor(self, *, binary: bool = False, row_factory: Any = None) -> SimulatedCursor:
        """A cursor; `binary` makes no difference here."""
        return SimulatedCursor(self, row_factory)

    async def execute(self, query: Any, parameters: Any = None, **_: Any) -> SimulatedCursor:
        """Run a statement."""
        return await self.cursor().execute(query, parameters)

    async def close(self) -> None:
        """Close it."""
        self._server.hang_up(self.session)

    @contextlib.asynccontextmanager
    async def pipeline(self) -> AsyncIterator[None]:
        """Statements that wait for no answer; here each does."""
        yield

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A transaction; within one, nothing: what fails in the inner one ends the outer."""
        if self._depth:
            yield
            return
        await self.ask("BEGIN", None)
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            with contextlib.suppress(psycopg.Error):
                await self.ask("ROLLBACK", None)
            raise
        self._depth -= 1
        await self.ask("COMMIT", None)


class SimulatedPool:
    """What `Database` uses of psycopg's pool."""

    def __init__(self, server: Server, client: str, most: int, timeout: float) -> None:
        self._server = server
        self._client = client
        self._most = most
        self._timeout = timeout
        self._idle: deque[SimulatedConnection] = deque()
        self._lent = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[SimulatedConnection]:  # noqa: ASYNC109 - psycopg's signature
        """Lend a connection.

        Raises:
            PoolTimeout: there is none in time.
        """
        try:
            async with asyncio.timeout(timeout or self._timeout):
                connection = await self._get()
        except TimeoutError:
            raise PoolTimeout("couldn't get a connection") from None
        try:
            yield connection
        finally:
            self._lent -= 1
            if not connection.closed:
                self._idle.append(connection)
            self._wake()

    def _wake(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def _get(self) -> SimulatedConnection:
        while not self._idle and self._lent >= self._most:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._wake()
                raise
        self._lent += 1
        if self._idle:
            return self._idle.popleft()
        try:
            while True:
                await asyncio.sleep(0.002)
                session = self._server.connect(self._client)
                if session is not None:
                    return SimulatedConnection(self._server, session)
                await asyncio.sleep(0.1)
        except BaseException:
            self._lent -= 1
            self._wake()
            raise

    async def check(self) -> None:
        """Drop idle connections that are broken."""
        self._idle = deque(one for one in self._idle if not one.closed)

    async def close(self, timeout: float = 0) -> None:  # noqa: ASYNC109 - psycopg's signature
        """Close all idle connections."""
        for connection in self._idle:
            await connection.close()
        self._idle.clear()

    def get_stats(self) -> dict[str, int]:
        """No figures."""
        return {}


def database(server: Server, client: str, maximum: int = 4) -> Database:
    """A `Database` of a process, whose pool is one to the simulated server."""
    made = Database("host=simulated dbname=goqueue", DatabaseSettings(), maximum=maximum)
    made._pool = SimulatedPool(server, client, maximum, made._pool.timeout)  # type: ignore[assignment]
    preamble = sessions.preamble(180000, pgbouncer=False).decode()
    if match := _LOCK_TIMEOUT.search(preamble):
        server.lock_timeout = int(match[1]) / (1 if match[2] == "s" else 1000)
    return made
