"""Census: what the queues hold, for the metrics. Only the leader takes it, so that it is exported once.

Redis' word on what waits costs nothing and is asked for often; where Redis is unavailable, PostgreSQL's last count
(`goqueue_scheduler.counts`) takes its place.
"""

import time
from collections.abc import Iterable
from typing import Final

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable
from goqueue.instruments import OTHER
from goqueue.service import promptly
from goqueue.store import dispatch, queues
from goqueue.store.connect import Database
from goqueue_scheduler.counts import Counts

INTERVAL: Final = 2.0
"""Seconds between two looks at Redis and the workers."""

_SHOWN: Final = (metrics.DEPTH, metrics.OLDEST, metrics.PAUSED, metrics.QUEUE_WORKERS, metrics.WORKERS)


class Census:
    """The leader's census of these queues."""

    name = "census"

    def __init__(self, database: Database, broker: Broker, names: Iterable[str], counts: Counts) -> None:
        self._database = database
        self._broker = broker
        self._names = list(names)
        self._counts = counts

    def begin(self) -> None:
        """Nothing is kept from one look to the next."""

    def end(self) -> None:
        """Show nothing: another one looks."""
        for metric in _SHOWN:
            metric.forget()

    async def tick(self) -> float:
        """Look once, where anybody asks."""
        if metrics.DEPTH.on:
            try:
                await self._look()
            finally:
                await self._show_waiting()
        return INTERVAL

    async def _show_waiting(self) -> None:
        waiting = await self._waiting()
        for name, count in self._counts.counted.items():
            depth, oldest = waiting.get(name, (count.ready, count.oldest))
            metrics.DEPTH.set(depth, name)
            metrics.OLDEST.set(oldest, name)

    async def _waiting(self) -> dict[str, tuple[int, float]]:
        """Queue to (depth, age of the longest-waiting job in seconds) by Redis; empty where it is unavailable."""
        try:
            depths = await promptly(self._broker.depths(self._names))
        except BrokerUnavailable:
            return {}
        now = time.time()
        return {
            name: (found.depth, max(0.0, now - found.oldest_ms / 1000) if found.depth else 0.0)
            for name, found in depths.items()
        }

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
