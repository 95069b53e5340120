"""The due sweep: pushes jobs when their `dispatch_at` has come (scheduled, retried, handed back, rescued, owed).

It reads forward in the order of (`dispatch_at`, id), and a second of what it has read once more at each tick: a
transaction may show its rows a little after the time that it wrote into them. What takes longer is put off, to be read
a few chunks a tick beside what becomes due meanwhile: the many jobs of one moment, and what a transaction may have
written whose commit stalled.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.job import MAX_ID
from goqueue.store import dispatch
from goqueue.store.connect import Connection
from goqueue.store.dispatch import Boundary, Place

OVERLAP: Final = timedelta(seconds=1)
"""How much is read once more at each tick."""

BEFORE_LOCK: Final = timedelta(seconds=5)
"""How long a transaction may have lasted before it was seen to write; `dispatch_at` is counted from its beginning."""

CATCH_UP: Final = timedelta(seconds=60)
"""How far back a new leader begins: nobody led for some seconds. What is older is the walk's business."""

CHUNKS: Final = 4
"""Chunks that a tick reads at most of what became due, and as many of what was put off."""


@dataclass(slots=True)
class Writers:
    """Which transactions write, and since when. Pure."""

    since: dict[str, datetime] = field(default_factory=dict)

    def look(self, writers: frozenset[str], at: datetime) -> datetime | None:
        """Take those of the moment `at`.

        Returns:
            The `dispatch_at` from which on rows may have been passed by: a writer is over that was there for longer
            than the overlap reaches. None where there is none.
        """
        over = [since for writer, since in self.since.items() if writer not in writers]
        self.since = {writer: self.since.get(writer, at) for writer in writers}
        stalled = [since for since in over if at - since >= OVERLAP / 2]
        return min(stalled) - BEFORE_LOCK if stalled else None


@dataclass(slots=True)
class PutOff:
    """What is to be read later: a range under way and one after it. Pure."""

    current: tuple[Place, Place] | None = None
    """After the first place, up to the second."""
    following: tuple[Place, Place] | None = None

    def add(self, after: Place, through: Place) -> None:
        """Read these rows, too."""
        if self.current is None:
            self.current = (after, through)
        elif self.current[0] <= after <= self.current[1]:
            self.current = (self.current[0], max(through, self.current[1]))
        elif self.following is None:
            self.following = (after, through)
        else:
            self.following = (min(after, self.following[0]), max(through, self.following[1]))

    def advance(self, place: Place | None) -> None:
        """The current range was read up to this place; None: to its end."""
        if self.current is not None and place is not None and place < self.current[1]:
            self.current = (place, self.current[1])
        else:
            self.current, self.following = self.following, None


class DueSweep:
    """The dispatcher's first step."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.begin()

    def begin(self) -> None:
        """Start anew from the present."""
        self._place: Place | None = None
        self._pushed: dict[int, datetime] = {}  # within the overlap, with the `dispatch_at` that they had
        self._writers = Writers()
        self._put_off = PutOff()

    async def step(self, connection: Connection, edge: Boundary) -> bool:
        """Push what is due; whether there is more to do at once."""
        passed_by = self._writers.look(edge.writers, edge.at)
        if passed_by is not None:
            self._put_off.add((passed_by, 0), (edge.at, MAX_ID))
        again_from = (edge.at - OVERLAP, 0)
        place = self._place or (edge.at - CATCH_UP, 0)
        for _ in range(CHUNKS):
            last = await self._push_chunk(connection, place, edge.at, edge)
            if last is None:
                self._place = again_from
                break
            self._place = place = last
        else:
            self._put_off.add(min(place, again_from), (edge.at, MAX_ID))
            self._place = (edge.at, 0)
        self._pushed = {job: at for job, at in self._pushed.items() if at > again_from[0]}
        return await self._push_put_off(connection, edge)

    async def _push_put_off(self, connection: Connection, edge: Boundary) -> bool:
        for _ in range(CHUNKS):
            if self._put_off.current is None:
                return False
            place, (until, _) = self._put_off.current
            self._put_off.advance(await self._push_chunk(connection, place, until, edge))
        return self._put_off.current is not None

    async def _push_chunk(self, connection: Connection, place: Place, until: datetime, edge: Boundary) -> Place | None:
        """Push the next chunk; where it ended, None where nothing comes after it."""
        rows = await dispatch.due(connection, place, until)
        fresh = {job.id: (job, at) for job, at in rows if self._pushed.get(job.id) != at}
        added = await self._broker.push((job for job, _ in fresh.values()), arrived=False)
        metrics.DISPATCHED.inc(added, "due")
        self._pushed.update({job: at for job, (_, at) in fresh.items() if at > edge.at - OVERLAP})
        return (rows[-1][1], rows[-1][0].id) if len(rows) == dispatch.CHUNK else None
