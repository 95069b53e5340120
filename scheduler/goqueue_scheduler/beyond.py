"""How many jobs are beyond the windows, by PostgreSQL's count.

Enqueuers and the refill keep the number as they go. What else happens to jobs out there (cancelled, deleted, inserted
by a program's own transaction) is only seen here. A count costs as much as the queue has waiting jobs, so it is made
the less often the longer it takes, and on a connection of its own, beside the refill.
"""

import time
from typing import Final

from goqueue.broker import Broker
from goqueue.broker.overflow import Size
from goqueue.store import overflow
from goqueue.store.connect import Database
from goqueue_scheduler.refill import Refill

TICK: Final = 0.5
"""Seconds between two looks at which queues are to be counted."""

COUNTED: Final = 10.0
"""Seconds between two counts of a queue, at least."""

SHARE: Final = 10
"""Times that a count takes until the next one."""

MOST: Final = 20_000_000
"""Jobs of a queue that are counted at most; of a longer one it is known only that there are so many."""


class BeyondCount:
    """Counts the queues that have jobs beyond their windows, as the refill duty says."""

    name = "beyond"

    def __init__(self, database: Database, broker: Broker, refill: Refill) -> None:
        self._database = database
        self._broker = broker
        self._refill = refill
        self._next: dict[str, float] = {}

    def begin(self) -> None:
        """A term of leadership begins."""
        self._next.clear()

    def end(self) -> None:
        """The term is over."""

    async def tick(self) -> float:
        """Count what is to be counted by now; seconds until the next tick."""
        overflowing = set(self._refill.overflowing)
        self._next = {queue: at for queue, at in self._next.items() if queue in overflowing}
        for queue in overflowing:
            began = time.monotonic()
            if began >= self._next.get(queue, 0.0):
                right = await self._count(queue)
                took = time.monotonic() - began
                self._next[queue] = time.monotonic() + max(COUNTED if right else TICK, SHARE * took)
        return TICK

    async def _count(self, queue: str) -> bool:
        """Correct the number of one queue; whether it was right."""
        async with self._database.connection() as connection:
            before = (await self._broker.overflow.sizes([queue]))[queue]
            ready = await overflow.ready_count(connection, queue, MOST)
            after = (await self._broker.overflow.sizes([queue]))[queue]
        missed = missing(ready, before, after)
        if missed and (ready < MOST or missed > 0):
            await self._broker.overflow.recount(queue, missed)
        return not missed


def missing(ready: int, before: Size, after: Size) -> int:
    """By how much the number beyond a window is too low (negative: too high), by a count between two looks at Redis.

    Enqueuers and workers go on meanwhile, so the looks differ. Only what both say is an error: the rest was under way
    and would be counted twice.
    """
    first, second = (max(0, ready - size.depth) - size.beyond for size in (before, after))
    if (first > 0) != (second > 0):
        return 0
    return min(first, second, key=abs)
