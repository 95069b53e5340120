"""Retention: final jobs past their age are deleted, a few thousand ids at a time, so that nobody notices."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from goqueue import metrics
from goqueue.errors import StoreUnavailable
from goqueue.store import audit, declines, dispatch, idempotency
from goqueue.store.connect import Database

PAUSE: Final = 0.1
"""Seconds between two chunks."""

CHUNK: Final = 5000
"""Entries of the audit log, or idempotency keys, that are looked at together."""

PASS: Final = 300.0
"""Seconds between two walks through the table."""

DECLINES: Final = 30 * 86400.0
"""Seconds after which a payment's declines are forgotten; Stripe forgets its idempotency keys after a day or more."""

log = structlog.get_logger(__name__)


class Pruner:
    """The leader's retention duty; ages in seconds."""

    def __init__(self, database: Database, completed: float, failed: float, audited: float) -> None:
        self._database = database
        self._completed = completed
        self._failed = failed
        self._audited = audited

    async def run(self) -> None:
        """Walk until cancelled."""
        while True:
            try:
                gone = await self.walk()
                if gone:
                    log.info("old jobs deleted", jobs=gone)
                await self.forget_deeds()
                await self.forget_declines()
                await self.forget_keys()
            except StoreUnavailable:
                pass
            await asyncio.sleep(PASS)

    async def forget_deeds(self) -> int:
        """Delete the entries of the audit log that are old enough; how many there were."""
        gone = 0
        while True:
            async with self._database.connection() as connection:
                count = await audit.prune(connection, self._audited, CHUNK)
            gone += count
            if count < CHUNK:
                return gone
            await asyncio.sleep(PAUSE)

    async def forget_declines(self) -> int:
        """Delete the counts of declined payments that are old enough; how many there were."""
        async with self._database.connection() as connection:
            return await declines.prune(connection, DECLINES)

    async def forget_keys(self) -> int:
        """Delete the idempotency keys of requests whose jobs ended long enough ago; how many there were."""
        gone = 0
        while True:
            async with self._database.connection() as connection:
                looked, forgotten = await idempotency.prune(connection, CHUNK)
            gone += forgotten
            if looked < CHUNK:
                return gone
            await asyncio.sleep(PAUSE)

    async def walk(self) -> int:
        """One pass from the oldest id to the first chunk that is too young; how many jobs were deleted."""
        young = datetime.now(UTC) - timedelta(seconds=min(self._completed, self._failed))
        gone, after = 0, 0
        while True:
            async with self._database.connection() as connection:
                count, through, oldest = await dispatch.prune(connection, after, self._completed, self._failed)
            gone += count
            metrics.PRUNED.inc(count)
            if through is None or oldest is None or oldest > young:
                return gone
            after = through
            await asyncio.sleep(PAUSE)
