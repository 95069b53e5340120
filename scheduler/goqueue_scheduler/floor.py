"""The floor rises behind final jobs, so that walks and counts do not read them (see `goqueue.store.dispatch`).

Few jobs that are still open in the range are parked: they get a `dispatch_at`. That goes in chunks, each a transaction
of its own: a parked row is harmless, and no claim waits for longer than for one chunk.
"""

from typing import Final

import structlog

from goqueue.store import dispatch
from goqueue.store.connect import Connection
from goqueue_scheduler.strays import StraySweep
from goqueue_scheduler.walk import Walk

WINDOW: Final = 100_000
"""Ids above the floor that are always tolerated."""

CHUNK: Final = 5000
"""Ids that are parked together."""

TRIES: Final = 20
"""Times that a chunk with a locked row is tried again, a tick apart."""

log = structlog.get_logger(__name__)


def crowded(open: int, window: int) -> bool:
    """Whether so many of a range of ids are open that it is read for good reason, and the floor stays."""
    return open > 0 and (window <= WINDOW or open * 4 > window)


class Floor:
    """Raises the floor after a walk, in steps."""

    def __init__(self, strays: StraySweep) -> None:
        self._strays = strays
        self.begin()

    def begin(self) -> None:
        """Aim at nothing."""
        self._target: int | None = None
        self._open = 0
        self._decided = False
        self._tries = 0

    def aim(self, walk: Walk) -> None:
        """A walk has counted the open jobs up to its edge: rise towards it where they are few."""
        self.begin()
        self._target, self._open = walk.edge.next_id, walk.open_above

    async def step(self, connection: Connection) -> bool:
        """Rise over one chunk; whether there is more to do at once.

        Not over ids that a transaction under way may have drawn: the floor waits before them. Not over a row that
        another transaction has locked either: it is tried a few times more, and then after the next walk.
        """
        if self._target is None or (settled := self._strays.settled) == 0:
            return False
        start = await dispatch.floor(connection)
        self._target = min(self._target, settled)
        if not self._decided:
            self._decided = True
            if crowded(self._open, self._target - start):
                self._target = None
                return False
        if self._target <= start:
            self._target = None
            return False
        stop = min(self._target, start + CHUNK)
        parked, through = await dispatch.park(connection, start, stop)
        await dispatch.raise_floor(connection, through)
        log.debug("floor raised", floor=through, parked=parked)
        if through == stop:
            self._tries = 0
            return True
        self._tries += 1
        if self._tries == TRIES:
            self._target = None
        return False
