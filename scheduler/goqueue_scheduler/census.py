"""Census: what the queues hold, for the metrics. Only the leader takes it, so that it is exported once.

Redis' word on what waits costs nothing and is asked for often. PostgreSQL counts as many rows as are open or failed, so
it is asked the less often the longer it takes.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, StoreUnavailable
from goqueue.instruments import OTHER
from goqueue.service import promptly
from goqueue.store import dispatch, queues
from goqueue.store.connect import Database

INTERVAL: Final = 2.0
"""Seconds between two looks at Redis and the workers."""

COUNTED: Final = 10.0
"""Seconds between two counts by PostgreSQL, at least."""

SHARE: Final = 50
"""Times that a count takes until the next one."""

_SHOWN: Final = (
    metrics.DEPTH,
    metrics.OLDEST,
    metrics.IN_FLIGHT,
    metrics.SCHEDULED,
    metrics.FAILED,
    metrics.PAUSED,
    metrics.QUEUE_WORKERS,
    metrics.WORKERS,
)


@dataclass(slots=True)
class _Count:
    """Jobs of one queue; `oldest` in seconds."""

    ready: int = 0
    scheduled: int = 0
    processing: int = 0
    failed: int = 0
    oldest: float = 0.0


class Census:
    """The leader's census of these queues."""

    def __init__(self, database: Database, broker: Broker, names: Iterable[str]) -> None:
        self._database = database
        self._broker = broker
        self._names = list(names)

    async def run(self) -> None:
        """Count until cancelled; then show nothing, as another one counts."""
        counted: dict[str, _Count] = {}
        count_at = 0.0
        try:
            while metrics.DEPTH.on:
                with contextlib.suppress(StoreUnavailable):
                    began = time.monotonic()
                    if began >= count_at:
                        counted = await self._count()
                        count_at = time.monotonic() + max(COUNTED, SHARE * (time.monotonic() - began))
                    await self._look()
                    waiting = await self._waiting()
                    for name, count in counted.items():
                        depth, oldest = waiting.get(name, (count.ready, count.oldest))
                        metrics.DEPTH.set(depth, name)
                        metrics.OLDEST.set(oldest, name)
                await asyncio.sleep(INTERVAL)
            await asyncio.Event().wait()  # nobody asks: a duty must not end
        finally:
            for metric in _SHOWN:
                metric.forget()

    async def _waiting(self) -> dict[str, tuple[int, float]]:
        """Queue to (depth, age of the first in seconds), as Redis knows it; empty where it is away."""
        try:
            depths = await promptly(self._broker.depths(self._names))
        except BrokerUnavailable:
            return {}
        now = time.time()
        return {
            name: (found.depth, max(0.0, now - found.oldest_ms / 1000) if found.depth else 0.0)
            for name, found in depths.items()
        }

    async def _count(self) -> "dict[str, _Count]":
        """As PostgreSQL counts; shows what only PostgreSQL knows."""
        async with self._database.connection() as connection:
            opened = await queues.open_counts(connection)
            failed = await queues.failed_counts(connection)
        counted = {name: _Count() for name in (*self._names, OTHER)}
        for found in opened:
            count = counted.get(found.queue, counted[OTHER])
            count.ready += found.ready
            count.scheduled += found.scheduled
            count.processing += found.processing
            count.oldest = max(count.oldest, found.oldest_seconds or 0.0)
        for queue, jobs in failed.items():
            counted.get(queue, counted[OTHER]).failed += jobs
        for name, count in counted.items():
            metrics.SCHEDULED.set(count.scheduled, name)
            metrics.IN_FLIGHT.set(count.processing, name)
            metrics.FAILED.set(count.failed, name)
        return counted

    async def _look(self) -> None:
        async with self._database.connection() as connection:
            paused = await queues.paused(connection)
            workers = await dispatch.workers(connection)
        draining = sum(worker.draining for worker in workers)
        metrics.WORKERS.set(len(workers) - draining, "active")
        metrics.WORKERS.set(draining, "draining")
        for name in self._names:
            metrics.PAUSED.set(name in paused, name)
        serving = dict.fromkeys((*self._names, OTHER), 0)
        for worker in workers:
            if not worker.draining:
                for name in {queue if queue in serving else OTHER for queue in worker.queues}:
                    serving[name] += 1
        for name, count in serving.items():
            metrics.QUEUE_WORKERS.set(count, name)
