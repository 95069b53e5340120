"""Dispatch: every job that waits and is due stands in Redis, whatever happened to Redis or to its enqueuer.

Three sweeps, from cheap to thorough:
- due       each tick: jobs whose `dispatch_at` came (scheduled, retried, handed back, rescued).
- strays    each second: jobs younger than the last look whose enqueuer may have died between commit and push, or
            whose transaction (a library user's own) took longer than the due sweep looks back.
            Each id is looked at once, so the cost is one row read a job, at any depth; none for long runs of ids
            that their enqueuer noted in Redis after its push (a bulk).
- reconcile every minute, and at once when the lead changes, Redis lost its contents or a worker died: all open jobs.
Pushing a job that stands there already changes nothing.
"""

import asyncio
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, StoreUnavailable
from goqueue.job import ReadyJob
from goqueue.store import dispatch
from goqueue.store.connect import Connection, Database

TICK: Final = 0.2
"""Seconds between two looks at what is due."""

STRAY_AGE: Final = 2.0
"""Seconds that an enqueuer has for its own push."""

OVERLAP: Final = timedelta(seconds=5)
"""How far the due sweep looks back: a retry written now may become visible a little later."""

WINDOW: Final = 100_000
"""Ids above the floor that are always tolerated."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Sweeps:
    """How far each sweep got. Kept only while leading: a new leader reconciles first."""

    due_through: datetime
    swept: int
    due_pushed: dict[int, datetime] = field(default_factory=dict)
    """Pushed within the overlap, with the `dispatch_at` they had: not pushed again."""
    waiting: dispatch.Boundary | None = None
    waiting_since: float = 0.0
    reconciled_at: float = 0.0


def gaps(start: int, stop: int, runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts (from, up to but without) of start..stop that lie in none of the runs (first, last)."""
    for first, last in sorted(runs):
        if start < min(first, stop):
            yield start, min(first, stop)
        start = max(start, last + 1)
    if start < stop:
        yield start, stop


class Dispatcher:
    """The leader's dispatch duty."""

    def __init__(self, database: Database, broker: Broker, reconcile_seconds: float) -> None:
        self._database = database
        self._broker = broker
        self._interval = reconcile_seconds
        self._asked = asyncio.Event()
        self.repaired = 0
        """Jobs pushed although their enqueuer should have."""
        self.rescued = 0
        """Jobs taken from dead workers."""

    def ask_reconcile(self) -> None:
        """Reconcile at the next tick: something may have been lost."""
        self._asked.set()

    async def run(self) -> None:
        """Dispatch until cancelled."""
        sweeps: Sweeps | None = None
        away = False
        while True:
            try:
                sweeps = await self._tick(sweeps)
                if away:
                    log.info("dispatching again")
                away = False
            except (BrokerUnavailable, StoreUnavailable) as error:
                if not away:
                    log.warning("dispatch interrupted", error=error.message)
                away = True
                self._asked.set()  # a reconciliation may have been what was interrupted
            await asyncio.sleep(TICK)

    async def _tick(self, sweeps: Sweeps | None) -> Sweeps:
        async with self._database.connection() as connection:
            if sweeps is None:
                edge = await dispatch.boundary(connection)
                sweeps = Sweeps(due_through=edge.at - OVERLAP, swept=edge.next_id)
                self._asked.set()
            if await self._broker.epoch() is None:
                await self._refill(connection, sweeps)
            elif self._asked.is_set() or time.monotonic() - sweeps.reconciled_at > self._interval:
                await self.reconcile(connection, sweeps)
            await self._push_due(connection, sweeps)
            await self._push_strays(connection, sweeps)
        return sweeps

    async def _refill(self, connection: Connection, sweeps: Sweeps) -> None:
        """Redis lost its contents. If it loses them again meanwhile, the next tick finds the mark gone."""
        await self._broker.begin_epoch()
        await self.reconcile(connection, sweeps)
        empty = sweeps.swept <= 1  # a new installation: no job was ever made, so Redis held none
        if await self._broker.complete_epoch(secrets.token_hex(8)) and not empty:
            log.warning("redis had lost its contents, all waiting jobs pushed anew")
            metrics.REDIS_LOSSES.inc()

    async def _push_due(self, connection: Connection, sweeps: Sweeps) -> None:
        edge = await dispatch.boundary(connection)
        place = (sweeps.due_through, 0)
        while True:
            rows = await dispatch.due(connection, place)
            fresh = {job.id: (job, at) for job, at in rows if sweeps.due_pushed.get(job.id) != at}
            await self._broker.push((job for job, _ in fresh.values()), arrived=False)
            metrics.DISPATCHED.inc(len(fresh), "due")
            sweeps.due_pushed.update({job: at for job, (_, at) in fresh.items()})
            if len(rows) < dispatch.CHUNK:
                break
            place = (rows[-1][1], rows[-1][0].id)
        sweeps.due_through = edge.at - OVERLAP
        sweeps.due_pushed = {job: at for job, at in sweeps.due_pushed.items() if at > sweeps.due_through}

    async def _push_strays(self, connection: Connection, sweeps: Sweeps) -> None:
        if sweeps.waiting is None:
            sweeps.waiting = await dispatch.boundary(connection)
            sweeps.waiting_since = time.monotonic()
            return
        if time.monotonic() - sweeps.waiting_since < STRAY_AGE or not await dispatch.settled(
            connection, sweeps.waiting
        ):
            return
        stop = sweeps.waiting.next_id
        for start, end in gaps(sweeps.swept, stop, await self._broker.noted(sweeps.swept)):
            sweeps.swept = start
            while sweeps.swept < end:
                strays = await dispatch.recent(connection, sweeps.swept, end)
                missed = [job for job in strays if job.id not in sweeps.due_pushed]
                await self._broker.push(missed, arrived=False)
                self.repaired += len(missed)
                metrics.DISPATCHED.inc(len(missed), "stray")
                sweeps.swept = strays[-1].id + 1 if len(strays) == dispatch.CHUNK else end
        sweeps.swept = stop
        sweeps.waiting = None

    async def reconcile(self, connection: Connection, sweeps: Sweeps) -> None:
        """Compare all open jobs with what they need: a place in Redis, or a living worker."""
        started = time.monotonic()
        self._asked.clear()
        edge = await dispatch.boundary(connection)
        alive = {worker.id for worker in await dispatch.workers(connection)}
        pushed = open_above = 0
        after = 0
        while True:
            chunk = await dispatch.open_above_floor(connection, after, edge.next_id, edge.at)
            open_above += chunk.read
            pushed += await self._heal(connection, chunk, alive)
            after = chunk.last
            if chunk.read < dispatch.CHUNK:
                break
        place = (datetime(1, 1, 1, tzinfo=UTC), 0)
        while True:
            chunk = await dispatch.open_listed(connection, place, edge.at)
            pushed += await self._heal(connection, chunk, alive)
            place = chunk.last
            if chunk.read < dispatch.CHUNK:
                break
        await self._move_floor(connection, edge, open_above)
        sweeps.reconciled_at = time.monotonic()
        metrics.RECONCILE_SECONDS.observe(sweeps.reconciled_at - started)
        log.debug("reconciled", pushed=pushed, seconds=round(time.monotonic() - started, 3))

    async def _heal(self, connection: Connection, chunk: dispatch.OpenJobs, alive: set[int]) -> int:
        """Rescue before pushing: PostgreSQL's part must not wait for Redis."""
        ready: list[ReadyJob] = list(chunk.ready)
        orphans = [job for job, worker in chunk.running if worker not in alive]
        if orphans:
            again, count = await dispatch.rescue(connection, orphans, "its worker died")
            self.rescued += count
            metrics.RESCUED.inc(len(again), "again")
            metrics.RESCUED.inc(count - len(again), "ended")
            ready += again
            log.warning("jobs rescued", jobs=[job.id for job in again][:20], count=count)
        await self._broker.push(ready, arrived=False)
        metrics.DISPATCHED.inc(len(ready), "reconcile")
        return len(ready)

    async def _move_floor(self, connection: Connection, edge: dispatch.Boundary, open_above: int) -> None:
        """Raise the floor when the range above it holds few open jobs for its length (see `goqueue.store.dispatch`).

        The few are given a `dispatch_at` first; where many are open, the range is read for good reason and stays.
        """
        start = await dispatch.floor(connection)
        window = edge.next_id - start
        crowded = open_above > 0 and (window <= WINDOW or open_above * 4 > window)
        if crowded or window <= 0 or not await dispatch.settled(connection, edge):
            return
        async with connection.transaction():
            parked = await dispatch.park(connection, start, edge.next_id)
            await dispatch.raise_floor(connection, edge.next_id)
        log.debug("floor raised", floor=edge.next_id, parked=parked)
