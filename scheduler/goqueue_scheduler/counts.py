"""Counts by PostgreSQL of what the queues hold. It reads as many rows as are open or failed, so it is asked the less
often the longer it takes, and each statement is bounded."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from goqueue import metrics
from goqueue.errors import StoreTimeout
from goqueue.instruments import OTHER
from goqueue.store import queues
from goqueue.store.bounds import bounded
from goqueue.store.connect import Database

INTERVAL: Final = 10.0
"""Seconds between two counts, at least."""

SHARE: Final = 50
"""Times that a count takes until the next one."""

LONGEST: Final = 30.0
"""Seconds that a statement may take."""

LATEST: Final = 300.0
"""Seconds between two counts, at most."""

_SHOWN: Final = (metrics.IN_FLIGHT, metrics.SCHEDULED, metrics.FAILED)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Count:
    """Jobs of one queue; `oldest` in seconds."""

    ready: int = 0
    scheduled: int = 0
    processing: int = 0
    failed: int = 0
    oldest: float = 0.0


class Counts:
    """The leader's duty of counting by PostgreSQL."""

    name = "counts"

    def __init__(self, database: Database, names: Iterable[str]) -> None:
        self._database = database
        self._names = list(names)
        self.counted: dict[str, Count] = {}
        """The last count."""
        self._pause = INTERVAL

    def begin(self) -> None:
        """Count anew."""
        self.counted = {}

    def end(self) -> None:
        """Show nothing: another one counts."""
        self.counted = {}
        for metric in _SHOWN:
            metric.forget()

    async def tick(self) -> float:
        """Count once, where anybody asks."""
        if not metrics.DEPTH.on:
            return INTERVAL
        began = time.monotonic()
        counted = {name: Count() for name in (*self._names, OTHER)}
        try:
            try:
                await self._count_open(counted)
            finally:
                await self._count_failed(counted)
        except StoreTimeout:
            log.warning("counting takes too long", longest=LONGEST, again_in=LATEST)
            return LATEST
        self.counted = counted
        return min(LATEST, max(INTERVAL, SHARE * (time.monotonic() - began)))

    async def _count_open(self, counted: dict[str, Count]) -> None:
        async with self._database.connection() as connection, bounded(connection, LONGEST):
            opened = await queues.open_counts(connection)
        for found in opened:
            count = counted.get(found.queue, counted[OTHER])
            count.ready += found.ready
            count.scheduled += found.scheduled
            count.processing += found.processing
            count.oldest = max(count.oldest, found.oldest_seconds or 0.0)
        for name, count in counted.items():
            metrics.SCHEDULED.set(count.scheduled, name)
            metrics.IN_FLIGHT.set(count.processing, name)

    async def _count_failed(self, counted: dict[str, Count]) -> None:
        async with self._database.connection() as connection, bounded(connection, LONGEST):
            failed = await queues.failed_counts(connection)
        for queue, jobs in failed.items():
            counted.get(queue, counted[OTHER]).failed += jobs
        for name, count in counted.items():
            metrics.FAILED.set(count.failed, name)
