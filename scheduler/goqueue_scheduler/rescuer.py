"""Rescue: which workers are dead. Not by comparing clocks: by watching each worker's beat stand still for a lease.

Only time in which this leader could read the workers counts, so an outage of PostgreSQL, which silences all workers,
buries none of them.
"""

import asyncio
import contextlib
import time
from typing import Final

import structlog

from goqueue import metrics
from goqueue.errors import StoreUnavailable
from goqueue.store import dispatch
from goqueue.store.connect import Database
from goqueue_scheduler.dispatcher import Dispatcher

TICK: Final = 0.5
"""Seconds between two looks at the workers."""

log = structlog.get_logger(__name__)


class Watch:
    """Since when each worker's beat has stood still, in observed seconds. Pure: time comes in as an argument."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._seen: dict[int, tuple[int, float]] = {}
        self._last_look: float | None = None

    def look(self, beats: dict[int, int], now: float) -> set[int]:
        """Take the workers' beats at `now` (monotonic seconds); returns the ids that are dead."""
        if self._last_look is not None and now - self._last_look > self._lease / 3:
            # We were blind; that time proves nothing about anybody.
            blind = now - self._last_look
            self._seen = {worker: (beat, since + blind) for worker, (beat, since) in self._seen.items()}
        self._last_look = now
        self._seen = {
            worker: self._seen[worker] if self._seen.get(worker, (None,))[0] == beat else (beat, now)
            for worker, beat in beats.items()
        }
        return {worker for worker, (_, since) in self._seen.items() if now - since >= self._lease}


class Rescuer:
    """The leader's rescue duty: buries dead workers and has the dispatcher take their jobs."""

    def __init__(self, database: Database, dispatcher: Dispatcher, lease_seconds: float) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._lease = lease_seconds
        self._watch = Watch(lease_seconds)  # longer than the duty, which begins anew where another one failed
        self.buried = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with contextlib.suppress(StoreUnavailable):  # the watch will see that it was blind
                await self._look()
            await asyncio.sleep(min(TICK, self._lease / 10))

    async def _look(self) -> None:
        async with self._database.connection() as connection:
            workers = {worker.id: worker for worker in await dispatch.workers(connection)}
            dead = self._watch.look({worker.id: worker.beat for worker in workers.values()}, time.monotonic())
            for worker_id in dead:
                try:
                    buried = await dispatch.bury(connection, workers[worker_id])
                finally:
                    self._dispatcher.ask_reconcile()  # also where only the answer was lost
                if buried:
                    self.buried += 1
                    metrics.BURIED.inc()
                    log.warning("worker is dead", worker=workers[worker_id].name, worker_id=worker_id)
