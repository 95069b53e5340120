"""The worker's membership, simulated: the same protocol as `goqueue_worker.membership`, without thread or process.

It beats as a simulated process of its own, `<worker>:beat`, so that a worker whose event loop is blocked goes on
beating, as the real one does.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import orjson
import psycopg

from goqueue.settings import EngineSettings
from goqueue.store import sql
from goqueue_worker.membership import FENCE_AT
from tests.simulation.loop import PROCESS, SimulatedLoop
from tests.simulation.pg.client import SimulatedConnection
from tests.simulation.pg.server import Server


class SimulatedMembership:
    """The interface of `Membership`."""

    def __init__(
        self,
        server: Server,
        loop: SimulatedLoop,
        dsn: str,
        engine: EngineSettings,
        name: str,
        queues: list[str],
        concurrency: int,
        standing: Callable[[], Any],
        on_joined: Callable[[int], None],
        on_fence: Callable[[], None],
        *_: Any,
        **__: Any,
    ) -> None:
        self._server = server
        self._loop = loop
        self._process = PROCESS.get()
        self._lease = engine.lease_seconds
        self._interval = engine.heartbeat_seconds
        self._me = (name, queues, concurrency)
        self._standing = standing
        self._on_joined = on_joined
        self._on_fence = on_fence
        self._stop = asyncio.Event()
        self._empty = True
        self._connection: SimulatedConnection | None = None
        self.worker_id: int | None = None
        self.beaten_at = 0.0

    def start(self) -> None:
        """Begin to register and beat."""
        self._loop.spawn(f"{self._process}:beat", self._run(), "beat")

    def leave(self, *, empty: bool) -> None:
        """Stop beating, and deregister if `empty`."""
        self._empty = empty
        self._stop.set()

    @property
    def fenced(self) -> bool:
        """True while the worker must not run jobs."""
        return self.worker_id is None or time.monotonic() - self.beaten_at > FENCE_AT * self._lease

    @property
    def age(self) -> float:
        """Seconds since the last heartbeat that was written."""
        return time.monotonic() - self.beaten_at if self.beaten_at else math.nan

    def _in_worker(self, call: Callable[..., None], *arguments: Any) -> None:
        context = copy_context()
        context.run(PROCESS.set, self._process)
        context.run(call, *arguments)

    async def _run(self) -> None:
        was_fenced = True
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                was = self.worker_id
                async with asyncio.timeout(max(1, int(self._lease * FENCE_AT / 2))):
                    await self._beat()
                self.beaten_at = started
                if (was_fenced or was != self.worker_id) and self.worker_id is not None:
                    self._in_worker(self._on_joined, self.worker_id)
                was_fenced = False
            except (psycopg.Error, OSError, TimeoutError):
                await self._hang_up()
            if self.fenced and not was_fenced:
                was_fenced = True
                self._in_worker(self._on_fence)
            pause = self._interval if not was_fenced else min(self._interval, 0.5)
            wait = max(0.05, pause - (time.monotonic() - started))
            try:
                async with asyncio.timeout(wait):
                    await self._stop.wait()
            except TimeoutError:
                pass
        await self._depart()

    async def _beat(self) -> None:
        if self._connection is None:
            await asyncio.sleep(0.002)
            session = self._server.connect(self._process)
            if session is None:
                raise psycopg.OperationalError("cannot connect")
            self._connection = SimulatedConnection(self._server, session)
        if self.worker_id is not None:
            now = self._standing()
            values = {
                "worker": self.worker_id,
                "name": self._me[0],
                "busy": now.busy,
                "draining": now.draining,
                "stats": orjson.dumps(now.stats).decode(),
            }
            cursor = await self._connection.execute(sql.HEARTBEAT, values)
            if await cursor.fetchone() is not None:
                return
            self.worker_id = None
            self._in_worker(self._on_fence)
        row = await (await self._connection.execute(sql.REGISTER_WORKER, self._me)).fetchone()
        self.worker_id = int(row[0])

    async def _depart(self) -> None:
        try:
            if self.worker_id is not None and self._connection is not None and self._empty:
                await self._connection.execute(sql.DEREGISTER_WORKER, (self.worker_id,))
        except psycopg.Error:
            pass
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
