"""Rescue: jobs of workers that are no more wait again (`goqueue.rescue` says when, and at what price).

After a burial the queues of that worker are scanned by PostgreSQL, a chunk of rows at a time, and only orphans are
transferred; then, more slowly, all open jobs, as also when a term begins. The reconciler's walk hands over those that
it meets. Redis has no part in it: the due sweep pushes what waits again.
"""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

import structlog

from goqueue import metrics
from goqueue.errors import StoreContended, StoreRefused
from goqueue.rescue import UNCHARGED, Orphan, delays
from goqueue.store import dispatch, rescue
from goqueue.store.connect import Connection, Database
from goqueue_scheduler.walk import Above, Listed, Walk

TICK: Final = 0.1
"""Seconds between two looks at whether there is something to do."""

AGAIN: Final = 1.0
"""Seconds between two tries to rescue jobs whose rows are locked."""

BATCH: Final = 1000
"""Jobs that are rescued together."""

ERROR: Final = "its worker died"

log = structlog.get_logger(__name__)


class Orphanage:
    """What the rescuer is to look at. Pure."""

    def __init__(self) -> None:
        self.scan_asked = True
        self.queues: dict[str, None] = {}
        """Queues to scan before all others, in this order."""
        self.found: dict[int, Orphan] = {}

    def ask_scan(self, queues: Iterable[str] = ()) -> None:
        """A worker that served these queues was buried."""
        self.queues.update(dict.fromkeys(queues))
        self.scan_asked = True

    def take(self, orphans: Iterable[Orphan]) -> None:
        """These jobs are to be rescued."""
        self.found.update({orphan.id: orphan for orphan in orphans})


class Rescuer:
    """The leader's rescue duty."""

    name = "rescue"

    def __init__(self, database: Database, orphans: Orphanage) -> None:
        self._database = database
        self._orphans = orphans
        self.rescued = 0
        """Jobs taken from dead workers."""
        self.begin()

    def begin(self) -> None:
        """A former leader may have buried workers and not rescued their jobs."""
        self._orphans.scan_asked = True
        self._queue: tuple[str, int] | None = None  # the queue that is scanned, and the last id that was looked at
        self._listed_asked = False
        self._walk: Walk | None = None
        self._held: Counter[int] = Counter()
        self._again_after: frozenset[str] = frozenset()

    def end(self) -> None:
        """Nothing to put away."""

    async def tick(self) -> float:
        """Rescue what was found; else one chunk of a scan."""
        locked = await self._rescue() if self._orphans.found else False
        async with self._database.connection() as connection:
            began = time.monotonic()
            if self._queue is not None or self._orphans.queues:
                await self._scan_queue(connection)
                return 0.0
            if self._walk is None:
                await self._begin_walk(connection)
            if self._walk is not None:
                await self._scan(connection, self._walk)
        if self._orphans.found and not locked:
            return 0.0
        if self._walk is not None:
            return min(TICK, time.monotonic() - began)  # half of the time for others
        return AGAIN if locked and not self._orphans.scan_asked else TICK

    async def _scan_queue(self, connection: Connection) -> None:
        if self._queue is None:
            queue = next(iter(self._orphans.queues))
            del self._orphans.queues[queue]
            self._queue = (queue, 0)
        queue, after = self._queue
        chunk = await rescue.orphans_of_queue(connection, queue, after)
        self._orphans.take(chunk.found)
        self._queue = (queue, chunk.last) if chunk.read == rescue.CHUNK else None
        self._listed_asked = True

    async def _begin_walk(self, connection: Connection) -> None:
        if not (self._listed_asked or self._again_after or self._orphans.scan_asked):
            return
        edge = await dispatch.boundary(connection)
        if self._listed_asked:
            self._listed_asked = False
            self._walk = Walk.below_floor(edge)
        elif self._orphans.scan_asked:
            self._orphans.scan_asked = False
            self._held.clear()
            self._walk = Walk(edge)
            self._again_after = edge.writers
        elif not (self._again_after & edge.writers):
            # A claim of a worker that was buried meanwhile may have come into sight behind the last walk.
            self._again_after = frozenset()
            self._walk = Walk(edge)

    async def _scan(self, connection: Connection, walk: Walk) -> None:
        match walk.position:
            case Above(after=after, before=before):
                chunk = await rescue.orphans_above_floor(connection, after, before)
            case Listed(after=place, until=until):
                chunk = await rescue.orphans_listed(connection, place, until)
            case None:
                self._walk = None
                return
        self._orphans.take(chunk.found)
        if walk.advance(chunk.read, rescue.CHUNK, chunk.last):
            self._walk = None

    async def _rescue(self) -> bool:
        """Rescue what was found; whether some of it could not be, and is kept for another try."""
        given = delays(self._orphans.found.values(), self._held)
        items = list(given.items())
        for start in range(0, len(items), BATCH):
            await self._rescue_batch(dict(items[start : start + BATCH]))
        async with self._database.connection() as connection:
            still = {orphan.id for orphan in await rescue.orphans_among(connection, list(given))}
        self._orphans.found = {
            id: orphan for id, orphan in self._orphans.found.items() if id in still or id not in given
        }
        return bool(still)

    async def _rescue_batch(self, given: dict[int, float]) -> None:
        """Rescue these; where PostgreSQL refuses the write, in halves, so that one job holds up only itself."""
        try:
            async with self._database.connection() as connection:
                done = await rescue.rescue(connection, given, ERROR)
        except (StoreContended, StoreRefused) as error:
            if len(given) == 1:
                log.warning("job not rescued, tried again", jobs=list(given), error=error.message)
                return
            items = list(given.items())
            await self._rescue_batch(dict(items[: len(items) // 2]))
            await self._rescue_batch(dict(items[len(items) // 2 :]))
        else:
            self._count(done)

    def _count(self, done: list[rescue.Rescued]) -> None:
        if not done:
            return
        again = [one for one in done if one.fate == "pending"]
        self.rescued += len(done)
        charged = sum(one.deaths > UNCHARGED for one in again)
        metrics.RESCUED.inc(len(again) - charged, "again")
        metrics.RESCUED.inc(charged, "charged")
        metrics.RESCUED.inc(len(done) - len(again), "ended")
        metrics.SUSPECTS.inc(sum(one.deaths == UNCHARGED for one in again))
        log.warning("jobs rescued", jobs=[one.id for one in again][:20], count=len(done))
