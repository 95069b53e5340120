"""Up to which id the list of jobs is complete: no job with a lower id can appear any more.

Ids are drawn before their transactions commit, so a job can appear behind one with a higher id that a reader has seen.
The edge is found as the dispatcher finds its own (`goqueue.store.dispatch`): an id is passed when every transaction
that was writing to `jobs` when it was the next one to be drawn is over.
"""

import asyncio
from typing import Final

from goqueue.store import dispatch
from goqueue.store.connect import Connection
from goqueue.store.dispatch import Boundary

PATIENCE: Final = 0.5
"""Seconds that a reader waits for transactions under way; most take milliseconds."""

LOOK: Final = 0.01
"""Seconds between two looks at them."""


class SettledEdge:
    """The edge as far as this process knows it."""

    def __init__(self) -> None:
        self._id = 0
        self._next: Boundary | None = None
        """A boundary whose writers were not over at the last look."""

    async def find(self, connection: Connection) -> int:
        """All jobs below this id are visible; waits a moment for transactions under way, so that it is a recent one.

        A transaction that stays open holds the edge where it is, and a process that knows none yet returns 0.
        """
        wanted = await dispatch.boundary(connection)
        waited = 0.0
        while True:
            if not wanted.writers:
                return self._pass(wanted)
            if self._next is not None and await dispatch.settled(connection, self._next):
                self._pass(self._next)
            if await dispatch.settled(connection, wanted):
                return self._pass(wanted)
            if self._next is None:
                self._next = wanted
            if waited >= PATIENCE:
                return self._id
            await asyncio.sleep(LOOK)
            waited += LOOK

    def _pass(self, limit: Boundary) -> int:
        self._id = max(self._id, limit.next_id)
        if self._next is not None and self._next.next_id <= self._id:
            self._next = None
        return self._id
