"""Up to which id the list of jobs is complete: no job with a lower id can appear any more.

Ids are drawn before their transactions commit, so a job can appear behind one with a higher id that a reader has seen.
The edge is found as the dispatcher finds its own (`goqueue.store.dispatch`): an id is passed when every transaction
that was writing to `jobs` when it was the next one to be drawn is over.
"""

import asyncio
import time
from typing import Final

from goqueue.store import dispatch
from goqueue.store.connect import Database
from goqueue.store.dispatch import Boundary

PATIENCE: Final = 0.5
"""Seconds that a reader waits for transactions under way; most take milliseconds."""

LOOK: Final = 0.01
"""Seconds between the first two looks at them; each wait is half as long again as the one before."""


class SettledEdge:
    """The edge as far as this process knows it. Readers that ask at the same time share one search."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._id = 0
        self._next: Boundary | None = None
        """A boundary whose writers were not over at the last look."""
        self._searching: asyncio.Task[int] | None = None

    async def find(self) -> int:
        """All jobs below this id are visible; waits a moment for transactions under way, so that it is a recent one.

        A transaction that stays open holds the edge where it is, and a process that knows none yet returns 0.

        Raises:
            StoreUnavailable: PostgreSQL is away.
        """
        if self._searching is None or self._searching.done():
            self._searching = asyncio.create_task(self._search(), name="settled")
            self._searching.add_done_callback(_looked_at)
        return await asyncio.shield(self._searching)

    async def _search(self) -> int:
        until, pause = time.monotonic() + PATIENCE, LOOK
        async with self._database.connection() as connection:
            wanted = await dispatch.boundary(connection)
        if wanted.next_id < self._id:  # a failover lost the newest jobs: their ids are drawn again
            self._id, self._next = 0, None
        if not wanted.writers:
            return self._pass(wanted)
        while True:
            async with self._database.connection() as connection:
                if self._next is not None and await dispatch.settled(connection, self._next):
                    self._pass(self._next)
                if await dispatch.settled(connection, wanted):
                    return self._pass(wanted)
            if self._next is None:
                self._next = wanted
            if time.monotonic() >= until:
                return self._id
            await asyncio.sleep(pause)
            pause *= 1.5

    def _pass(self, limit: Boundary) -> int:
        self._id = max(self._id, limit.next_id)
        if self._next is not None and self._next.next_id <= self._id:
            self._next = None
        return self._id


def _looked_at(task: asyncio.Task[int]) -> None:
    if not task.cancelled():
        task.exception()  # where all who waited for it have left, nobody else looks
