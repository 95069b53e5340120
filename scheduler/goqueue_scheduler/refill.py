"""Refill: each ready set holds a window of its queue; what is beyond it follows as the set drains.

The leader trims sets that grew over the window and refills those that fell below it, from PostgreSQL and from the marks
on (`goqueue.window`). The highest priority that is left out comes first. Within one, ids ascend, and jobs that are
found by their `dispatch_at` are merged in by time. docs/decisions/0017-bounded-ready-sets.md says what that guarantees.
"""

import contextlib
import time
from collections.abc import Iterable
from typing import Final

import structlog

from goqueue.broker import Broker
from goqueue.broker.outage import full
from goqueue.errors import BrokerUnavailable
from goqueue.job import ReadyJob, ready_score, ready_time_ms
from goqueue.store import overflow, queues
from goqueue.store.connect import Connection, Database
from goqueue.window import LeftOut, Level, Mark

TICK: Final = 0.2
"""Seconds between two looks while nothing is beyond a window."""

BUSY: Final = 0.02
"""Seconds between two looks while a set drains."""

BUDGET: Final = 0.2
"""Seconds that one queue is refilled for before the next one has its turn."""

SLACK: Final = 20
"""A set is trimmed when it is longer than the window by this part of it."""

SHORTEST: Final = 1000
"""Members that a set keeps however full Redis is."""

LIMITED: Final = 60.0
"""Seconds for which a set stays short that had to make room for the others."""

SEARCHED: Final = 30.0
"""Seconds between two searches for queues that this process does not know."""

log = structlog.get_logger(__name__)


class Refill:
    """The leader's refill duty for these queues and any other that has open jobs."""

    name = "refill"

    def __init__(self, database: Database, broker: Broker, names: Iterable[str]) -> None:
        self._database = database
        self._broker = broker
        self._known = list(names)
        self._names = self._known
        self._searched_at = -SEARCHED
        self._left_out = LeftOut()
        self._limits: dict[str, tuple[int, float]] = {}
        self.overflowing: set[str] = set()
        """Queues that have jobs beyond their windows."""

    def begin(self) -> None:
        """Forget what was left out: the reconciler of a new leader walks first, and leaves it out again."""
        self._left_out = self._broker.left_out = LeftOut()
        self._limits.clear()

    async def tick(self) -> float:
        """Trim and refill; seconds until the next tick."""
        return BUSY if await self.look() else TICK

    def end(self) -> None:
        """The term is over; another leader finds out for itself what is left out."""
        self._broker.left_out = None

    async def look(self) -> bool:
        """One look at all queues; whether any was trimmed or refilled."""
        async with self._database.connection() as connection:
            if time.monotonic() - self._searched_at >= SEARCHED:
                self._names = self._known + await queues.in_use(connection, self._known)
                self._searched_at = time.monotonic()
            if self._left_out.full:
                await self._make_room(connection)
            marks = await self._take()
            levels = {*marks, *self._left_out.listed}
            names = list(dict.fromkeys((*self._names, *(level.queue for level in levels))))
            busy = False
            for queue, size in (await self._broker.overflow.sizes(names)).items():
                mine = sorted((level for level in levels if level.queue == queue), key=lambda level: -level.priority)
                try:
                    if not mine and size.beyond:
                        await self._broker.overflow.forget(queue)
                    busy |= await self._trim(connection, queue, size.depth)
                    busy |= bool(mine) and await self._fill(connection, mine, marks)
                except BrokerUnavailable as error:
                    if not self._broker.answered:
                        raise
                    self._left_out.full |= full(error)  # refused of this queue; the others go on
            self.overflowing = {level.queue for level in {*marks, *self._left_out.listed}}
        return busy

    async def _take(self) -> dict[Level, Mark]:
        """All marks, those of this process included."""
        mine, self._left_out.marks = self._left_out.marks, {}
        try:
            return await self._broker.overflow.take(mine)
        except BaseException as error:
            self._left_out.restore(mine)
            self._left_out.full |= full(error)
            raise

    # --- trim --------------------------------------------------------------------------------------------------------

    async def _trim(self, connection: Connection, queue: str, depth: int) -> bool:
        """Take the tail out of a set that is too long, a chunk at a time; whether there is more to take out."""
        size = self._size(queue)
        until = time.monotonic() + BUDGET
        while depth > size + size // SLACK:
            if time.monotonic() > until:
                return True
            depth -= await self._cut(connection, queue, min(depth - size, overflow.CHUNK))
        return False

    async def _cut(self, connection: Connection, queue: str, count: int, *, marked: bool = True) -> int:
        """Take the last members out of a set; what they were is marked in Redis before, or remembered here only."""
        tail = await self._broker.overflow.tail(queue, count)
        listed = await overflow.still_ready(connection, queue, [job.id for job in tail])
        waiting = [ReadyJob(job.id, queue, job.score, listed[job.id]) for job in tail if job.id in listed]
        self._left_out.add(waiting)
        if marked:
            marks, self._left_out.marks = self._left_out.marks, {}
            try:
                await self._broker.overflow.lower(marks)
            except BaseException:
                self._left_out.restore(marks)
                raise
        if tail:  # what was no id of a job is gone already
            await self._broker.overflow.trim(queue, tail, len(waiting))
        return max(1, len(tail))

    def _size(self, queue: str) -> int:
        """Members that the queue's set may have for now."""
        size, until = self._limits.get(queue, (self._broker.window.size, 0.0))
        if time.monotonic() > until:
            self._limits.pop(queue, None)
            return self._broker.window.size
        return min(size, self._broker.window.size)

    async def _make_room(self, connection: Connection) -> None:
        """Redis has no memory left: halve the longest set, so that the other queues' jobs get in.

        A full Redis takes no marks either. The jobs are remembered here, and marked as soon as it does.
        """
        self._left_out.full = False
        sizes = await self._broker.overflow.sizes(self._names)
        queue = max(sizes, key=lambda name: sizes[name].depth)
        depth = sizes[queue].depth
        if depth <= SHORTEST:
            return
        self._limits[queue] = (depth // 2, time.monotonic() + LIMITED)
        log.warning("redis is full; shortening the longest ready set", queue=queue, jobs=depth, to=depth // 2)
        with contextlib.suppress(BrokerUnavailable):  # of the count, where it is full still
            while depth > self._limits[queue][0]:
                count = min(depth - self._limits[queue][0], overflow.CHUNK)
                depth -= await self._cut(connection, queue, count, marked=False)

    # --- fill --------------------------------------------------------------------------------------------------------

    async def _fill(self, connection: Connection, levels: list[Level], marks: dict[Level, Mark]) -> bool:
        """Fill one queue's set, the highest level first; whether anything was read.

        Members that are behind the first job left out do not count: they came in past it.
        """
        size = self._size(levels[0].queue)
        until = time.monotonic() + BUDGET
        worked = False
        for level in levels:
            ahead = await self._ahead(level, marks)
            if ahead > size - size // 4:
                break
            while ahead < size and (level in marks or level in self._left_out.listed):
                if time.monotonic() > until:
                    break
                ahead += await self._step(connection, level, marks)
                worked = True
            if ahead >= size or (time.monotonic() > until and ahead * 4 > size):
                break
        return worked

    async def _ahead(self, level: Level, marks: dict[Level, Mark]) -> int:
        """Members that run before the first job of the level that is left out."""
        since = min(marks[level].since_ms if level in marks else 2**62, self._listed_ms(level))
        return await self._broker.overflow.ahead(level.queue, ready_score(level.priority, since))

    def _listed_ms(self, level: Level) -> int:
        place = self._left_out.listed.get(level)
        return 2**62 if place is None else int(place[0].timestamp() * 1000)

    async def _step(self, connection: Connection, level: Level, marks: dict[Level, Mark]) -> int:
        """Push one chunk of what waits longest; how many jobs were not in the set."""
        mark = marks.get(level)
        if mark is None or self._listed_ms(level) < mark.since_ms:
            return await self._step_listed(connection, level)
        walked = await overflow.walk(connection, level, mark.id)
        added = await self._push(walked.jobs)
        if walked.next is None:
            del marks[level]
        else:
            since = ready_time_ms(walked.jobs[-1].score) if walked.jobs else mark.since_ms
            marks[level] = Mark(walked.next, max(since, mark.since_ms))
        await self._broker.overflow.move(level, marks.get(level))
        return added

    async def _step_listed(self, connection: Connection, level: Level) -> int:
        place = self._left_out.listed.pop(level)
        try:
            walked = await overflow.walk_listed(connection, level, place)
            added = await self._push(walked.jobs)
        except BaseException:
            self._left_out.lower_listed(level, place)
            raise
        if walked.next is not None:
            self._left_out.lower_listed(level, walked.next)
        await self._broker.overflow.show_listed(
            level, self._listed_ms(level) if level in self._left_out.listed else None
        )
        return added

    async def _push(self, jobs: list[ReadyJob]) -> int:
        """Straight into the set: the window has room."""
        return await self._broker.overflow.refill(jobs[0].queue, jobs) if jobs else 0
