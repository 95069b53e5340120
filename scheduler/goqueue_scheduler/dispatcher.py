"""Dispatch: every job that waits and is due is in Redis, whatever happened to Redis or to its enqueuer.

From cheap to thorough:
- due sweep     each tick: jobs whose `dispatch_at` came (`goqueue_scheduler.due`).
- stray sweep   each tick: ids of two seconds ago whose enqueuer may have died (`goqueue_scheduler.strays`).
- walk          every minute, and at once when the lead changes or Redis lost its contents: all open jobs. A duty of its
                own (`goqueue_scheduler.reconciler`), so that nothing here waits for it.
Pushing a job that is there already changes nothing.
"""

import asyncio
from typing import Final, Protocol

from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable
from goqueue.store import dispatch
from goqueue.store.connect import Connection, Database
from goqueue.store.dispatch import Boundary
from goqueue_scheduler.due import DueSweep
from goqueue_scheduler.strays import StraySweep

TICK: Final = 0.2
"""Seconds between two looks at what is due."""


class Step(Protocol):
    """A part of each of the dispatcher's ticks."""

    def begin(self) -> None:
        """Forget what was known: a term of leadership begins."""
        ...

    async def step(self, connection: Connection, edge: Boundary) -> bool:
        """Do a bounded amount of work; whether there is more to do at once.

        `edge` was read at the beginning of the tick.
        """
        ...


class Dispatcher:
    """The leader's dispatch duty: its steps one after the other. Redis refusing one does not stop the next."""

    name = "dispatch"

    def __init__(self, database: Database, broker: Broker, ask_walk: asyncio.Event) -> None:
        self._database = database
        self.due = DueSweep(broker)
        self.strays = StraySweep(broker, ask_walk)
        self.steps: list[Step] = [self.due, self.strays]

    def begin(self) -> None:
        """Begin with what is due now."""
        for step in self.steps:
            step.begin()

    async def tick(self) -> float:
        """Each step once."""
        more, refused = False, None
        async with self._database.connection() as connection:
            edge = await dispatch.boundary(connection)
            for step in self.steps:
                try:
                    more = await step.step(connection, edge) or more
                except BrokerUnavailable as error:
                    refused = error
        if refused is not None:
            raise refused
        return 0.0 if more else TICK

    def end(self) -> None:
        """Nothing to put away."""
