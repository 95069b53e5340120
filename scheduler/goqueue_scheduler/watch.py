"""Which workers are dead. Not by comparing clocks: by watching each worker's beat stand still for a lease.

Only time in which this leader could read the workers counts, so an outage of PostgreSQL, which silences all workers,
buries none of them.
"""

import time
from typing import Final

import structlog

from goqueue import metrics
from goqueue.store import dispatch, rescue
from goqueue.store.connect import Database
from goqueue_scheduler.rescuer import Orphanage

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


class Watcher:
    """The leader's duty of burying dead workers; their jobs are the rescuer's."""

    name = "watch"

    def __init__(self, database: Database, orphans: Orphanage, lease_seconds: float) -> None:
        self._database = database
        self._orphans = orphans
        self._lease = lease_seconds
        self._watch = Watch(lease_seconds)
        self.buried = 0

    def begin(self) -> None:
        """Watch on: what was seen in a former term counts, less the time in between."""

    def end(self) -> None:
        """Nothing to put away."""

    async def tick(self) -> float:
        """Look at all workers once."""
        async with self._database.connection() as connection:
            workers = {worker.id: worker for worker in await dispatch.workers(connection)}
            dead = self._watch.look({worker.id: worker.beat for worker in workers.values()}, time.monotonic())
            for worker_id in dead:
                try:
                    buried = await rescue.bury(connection, workers[worker_id])
                finally:
                    self._orphans.ask_scan(workers[worker_id].queues)  # also where only the answer was lost
                if buried:
                    self.buried += 1
                    metrics.BURIED.inc()
                    log.warning("worker is dead", worker=workers[worker_id].name, worker_id=worker_id)
        return min(TICK, self._lease / 10)
