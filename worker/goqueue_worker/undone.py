"""Ends of attempts that a failover has undone are written again.

A standby that takes over may lack the last transactions. Where the end of an attempt was among them, its job is
`processing` again, under a worker that lives and is done with it: no rescue would ever take it. So the newest ends are
kept, and after a connection broke PostgreSQL is asked which of them it no longer has.
"""

import asyncio
import time
from typing import Final

import structlog

from goqueue.errors import StoreUnavailable
from goqueue.store import attempts
from goqueue.store.connect import Database
from goqueue_worker.completer import Completer

LOOK_SECONDS: Final = 60.0
"""A look is made this often, too, since a pooler may hide that a connection broke."""

log = structlog.get_logger(__name__)


class Rewriter:
    """Finds undone ends, and has them written again."""

    def __init__(self, database: Database, completer: Completer, every: float) -> None:
        """`every` in seconds: how often it is asked whether a connection broke."""
        self._database = database
        self._completer = completer
        self._every = every
        self._broken = database.broken
        self._looked_at = time.monotonic()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            broken = self._database.broken
            if broken == self._broken and time.monotonic() - self._looked_at < LOOK_SECONDS:
                continue
            try:
                await self._look()
            except StoreUnavailable:
                continue
            self._broken, self._looked_at = broken, time.monotonic()

    async def _look(self) -> None:
        unwritten = set(self._completer.ids)
        written = {key: end for key, end in self._completer.recent.all().items() if key[0] not in unwritten}
        if not written:
            return
        async with self._database.connection() as connection:
            undone = await attempts.still_processing(connection, written)
        again = [written[key] for key in undone if key in written]
        for end in again:
            self._completer.put(end)
        if again:
            log.warning("ends undone by a failover, writing them again", jobs=[end.id for end in again][:20])
