"""Reconciliation: compares all open jobs with Redis, a chunk at a time, beside the sweeps; then raises the floor.

It fills a Redis that lost its contents, and finds what no sweep can: members that Redis lost, ids that a worker had
fetched when it died.
"""

import asyncio
import secrets
import time
from typing import Final

import structlog

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.store import dispatch
from goqueue.store.connect import Connection, Database
from goqueue_scheduler.floor import Floor
from goqueue_scheduler.rescuer import Orphanage
from goqueue_scheduler.strays import StraySweep
from goqueue_scheduler.walk import Above, Agenda, Listed

TICK: Final = 0.2
"""Seconds between two looks at Redis' mark."""

SLICE: Final = 500
"""Rows that a walk reads at a time beside the other duties: the loop that serves them all is busy for a few ms."""

log = structlog.get_logger(__name__)


class Reconciler:
    """The leader's reconciliation duty; `interval` in seconds between two walks."""

    name = "reconcile"

    def __init__(
        self,
        database: Database,
        broker: Broker,
        strays: StraySweep,
        orphans: Orphanage,
        asked: asyncio.Event,
        interval: float,
    ) -> None:
        self._database = database
        self._broker = broker
        self._orphans = orphans
        self._asked = asked
        self._interval = interval
        self._floor = Floor(strays)
        self.begin()

    def begin(self) -> None:
        """A new leader walks first."""
        self._agenda = Agenda(self._interval)
        self._floor.begin()
        self._was_filled = False
        self._began = 0.0
        self._pushed = 0

    def end(self) -> None:
        """Nothing to put away."""

    async def tick(self) -> float:
        """One chunk of a walk, or a look at whether one is to begin."""
        async with self._database.connection() as connection:
            if not self._agenda.refilling:
                await self._look_at_redis(connection)
            if self._asked.is_set():
                self._asked.clear()
                self._agenda.asked = True
            if self._agenda.wants(time.monotonic()):
                self._agenda.begin(await dispatch.boundary(connection))
                self._began, self._pushed = time.monotonic(), 0
            if self._agenda.walk is None:
                return 0.0 if await self._floor.step(connection) else TICK
            began = time.monotonic()
            await self._step(connection)
        # Most of the time is for others; a Redis without its contents is filled as fast as can be.
        return 0.0 if self._agenda.refilling else min(TICK / 2, 2 * (time.monotonic() - began))

    async def _look_at_redis(self, connection: Connection) -> None:
        if await self._broker.epoch() is not None:
            self._was_filled = True
            return
        # The floor has left 0 where any leader before has filled Redis.
        self._was_filled = self._was_filled or await dispatch.floor(connection) > 0
        await self._broker.begin_epoch()
        self._agenda.lost()

    async def _step(self, connection: Connection) -> None:
        walk = self._agenda.walk
        if walk is None:
            return
        limit = dispatch.CHUNK if self._agenda.refilling else min(SLICE, dispatch.CHUNK)
        match walk.position:
            case Above(after=after, before=before):
                chunk = await dispatch.open_above_floor(connection, after, before, limit)
            case Listed(after=place, until=until):
                chunk = await dispatch.open_listed(connection, place, until, limit)
            case None:
                await self._finish(connection)
                return
        self._orphans.take(chunk.orphans)
        added = await self._broker.push(chunk.ready, arrived=False)
        metrics.DISPATCHED.inc(added, "reconcile")
        self._pushed += added
        if walk.advance(chunk.read, limit, chunk.last, chunk.open):
            await self._finish(connection)

    async def _finish(self, connection: Connection) -> None:
        """The walk is at its end. Where Redis cannot take the mark, this is repeated."""
        walk = self._agenda.walk
        if walk is None:
            return
        if self._agenda.refilling:
            complete = await self._broker.complete_epoch(secrets.token_hex(8))
            if complete and self._was_filled:
                log.warning("redis had lost its contents, all waiting jobs pushed anew")
                metrics.REDIS_LOSSES.inc()
            if complete:
                await dispatch.raise_floor(connection, 1)  # below every id; says that Redis was filled once
                self._was_filled = True
            self._agenda.filled(complete=complete)
        seconds = time.monotonic() - self._began
        metrics.RECONCILE_SECONDS.observe(seconds)
        log.debug("reconciled", pushed=self._pushed, seconds=round(seconds, 3))
        self._agenda.finish(time.monotonic())
        self._floor.aim(walk)
