"""Leadership: a row in `leaders` that its holder renews. Whoever may replace a silent holder waits one lease.

A row and not an advisory lock, because a lock hangs on a connection: a frozen leader or a vanished host would keep
it, and PgBouncer in transaction mode cannot hold it at all. Two leaders for a moment do no harm: every duty is
idempotent or guarded by a unique key.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable

import structlog

from goqueue.errors import StoreUnavailable, UnfitDatabase
from goqueue.store import leaders
from goqueue.store.connect import Database
from goqueue.tasks import end_all

log = structlog.get_logger(__name__)


class Leadership:
    """Runs `duties` while this process leads `duty`; `ttl` in seconds."""

    def __init__(self, database: Database, duty: str, ttl: float) -> None:
        self._database = database
        self._duty = duty
        self._ttl = ttl
        self.holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.leading = False
        self.asked_at = time.monotonic()
        """When this process last asked for the lead, whatever the answer (`time.monotonic()`)."""

    async def run(self, duties: Callable[[], Awaitable[None]]) -> None:
        """Try to lead; do the duties while leading; step down when cancelled. Ends only by cancellation."""
        working: asyncio.Task[None] | None = None
        held_until = 0.0
        try:
            while True:
                self.asked_at = asked = time.monotonic()
                try:
                    # Whoever has locked the row must not keep this one from stepping down when its lease is over.
                    async with asyncio.timeout(self._ttl / 3), self._database.connection() as connection:
                        term = await leaders.take(connection, self._duty, self.holder, self._ttl)
                    if term is not None:
                        held_until = asked + self._ttl
                    elif working is not None:
                        held_until = 0.0
                except (StoreUnavailable, TimeoutError):
                    term = None
                if term is not None and (working is None or working.done()):
                    self._surface(working)
                    log.info("leading", duty=self._duty, term=term, holder=self.holder)
                    working = asyncio.ensure_future(duties())
                elif working is not None and time.monotonic() >= held_until - self._ttl / 3:
                    log.warning("lead lost", duty=self._duty, holder=self.holder)
                    await self._end(working)
                    working = None
                self.leading = working is not None
                await asyncio.sleep(self._ttl / 3)
        finally:
            await self._end(working)
            if self.leading:
                await self._step_down()

    def _surface(self, working: "asyncio.Future[None] | None") -> None:
        if working is not None and not working.cancelled() and (error := working.exception()) is not None:
            unfit = error.split(UnfitDatabase)[0] if isinstance(error, BaseExceptionGroup) else None
            if unfit is not None:  # starting anew does not help
                raise _first(unfit)
            log.error("duties failed, starting anew", duty=self._duty, exc_info=error)

    async def _end(self, working: "asyncio.Future[None] | None") -> None:
        if working is not None:
            await end_all([working])
            await asyncio.gather(working, return_exceptions=True)

    async def _step_down(self) -> None:
        try:
            async with asyncio.timeout(2), self._database.connection() as connection:
                await leaders.leave(connection, self._duty, self.holder)
        except (StoreUnavailable, TimeoutError):
            log.warning("could not step down; the lease will run out", duty=self._duty)


def _first(group: BaseExceptionGroup[UnfitDatabase]) -> UnfitDatabase:
    """One error of a group, however deep it lies."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
