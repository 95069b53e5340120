"""Cron: each tick of each schedule becomes exactly one job, whoever leads and whenever a leader dies.

The job carries the tick as its `source_key`, which is unique, so firing twice finds the first job. Ticks missed in an
absence are made up for by one job for the latest of them, if that is younger than the catch-up bound.

One schedule holds up no other: each is fired by itself, within a bounded time, and one that cannot fire (its unique key
is held by a transaction that is not over) is tried again after a while.

A stored tick was computed by the zone data of its time. When a scheduler begins to lead it computes the next tick of
all schedules anew, and of each once more before it fires: a newer release of the zone data may have moved it.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from goqueue import cron, encryption, metrics, tracing
from goqueue.encryption import KeyMissing
from goqueue.errors import Conflict, GoQueueError, InvalidInput, StoreUnavailable
from goqueue.job import Source
from goqueue.orders import accept
from goqueue.registry import Registry
from goqueue.retry import RetryPolicy
from goqueue.service import JobService
from goqueue.store import schedules
from goqueue.store.schedules import Schedule

TICK: Final = 0.5
"""Seconds between two looks at the schedules."""

LONGEST: Final = 3.0
"""Seconds that one schedule may take to fire."""

TOGETHER: Final = 2
"""Schedules that fire at the same time: one whose unique key another transaction holds keeps no other from firing."""

BACKOFF: Final = RetryPolicy(base=1.0, factor=2.0, maximum=60.0, jitter=0.25)
"""Seconds until a schedule that could not fire is tried again."""

CHUNK: Final = 500
"""Schedules whose next tick is computed anew after one look at PostgreSQL."""

log = structlog.get_logger(__name__)


class CronDuty:
    """The leader's cron duty; `catch_up` in seconds."""

    name = "cron"

    def __init__(self, service: JobService, registry: Registry, queues: Collection[str], catch_up: float) -> None:
        self._service = service
        self._registry = registry
        self._queues = queues
        self._catch_up = timedelta(seconds=catch_up)
        self.fired = 0
        self.begin()

    def begin(self) -> None:
        """Compute the next ticks anew, and try every schedule."""
        self._waiting: dict[int, tuple[int, float]] = {}  # could not fire: how often, and when it is tried again
        self._firing: dict[int, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(TOGETHER)
        self._anew_after: int | None = 0

    def end(self) -> None:
        """Fire no more."""
        for task in list(self._firing.values()):
            task.cancel()

    async def tick(self) -> float:
        """Fire what is due, then compute some of the next ticks anew where that is not done yet."""
        await self._fire_due()
        if self._anew_after is None:
            return TICK
        await self._compute_anew(self._anew_after)
        return 0.0

    async def _compute_anew(self, after: int) -> None:
        """Replace next ticks that are none by the zone data in force, in one chunk of the schedules."""
        async with self._service.database.connection() as connection:
            found = await schedules.ahead(connection, after, CHUNK)
        for schedule, now in found:
            await self._correct(schedule, now)
            self._anew_after = schedule.id
            await asyncio.sleep(0)  # a computation takes some 0.1 ms: others have their turn
        if len(found) < CHUNK:
            self._anew_after = None

    async def _correct(self, schedule: Schedule, now: datetime) -> bool:
        """Whether the stored next tick was another one than that by the zone data in force, and was replaced."""
        try:
            tick = cron.in_force(
                schedule.cron,
                schedule.time_zone,
                schedule.next_tick,
                last=schedule.last_tick,
                changed=schedule.updated_at,
                oldest=now - self._catch_up,
            )
        except InvalidInput:
            return False  # it cannot fire: told when it is due
        if tick == schedule.next_tick:
            return False
        log.info("next tick computed anew", schedule=schedule.name, was=str(schedule.next_tick), now=str(tick))
        async with self._service.database.connection() as connection:
            await schedules.move(connection, schedule, tick)
        return True

    async def _fire_due(self) -> None:
        async with self._service.database.connection() as connection:
            due = await schedules.due(connection)
        for schedule, now in due:
            if schedule.id not in self._firing and self._waiting.get(schedule.id, (0, 0.0))[1] <= time.monotonic():
                self._firing[schedule.id] = asyncio.create_task(self._fire_in_turn(schedule, now), name="fire")

    async def _fire_in_turn(self, schedule: Schedule, now: datetime) -> None:
        try:
            async with self._turns:
                await self._fire_or_tell(schedule, now)
        finally:
            self._firing.pop(schedule.id, None)

    async def _fire_or_tell(self, schedule: Schedule, now: datetime) -> None:
        """Fire; where that fails the tick stays due, for a scheduler that has the key or knows the time zone, or for
        when the unique key is free, and the other schedules fire."""
        try:
            async with asyncio.timeout(LONGEST):
                await self._fire(schedule, now)
        except TimeoutError:
            self._put_off(schedule, f"not within {LONGEST:g} s")
        except GoQueueError as error:
            self._put_off(schedule, error.message, error.fields)
        except Exception as error:
            log.exception("schedule failed", schedule=schedule.name)
            self._put_off(schedule, str(error))
        else:
            self._waiting.pop(schedule.id, None)

    def _put_off(self, schedule: Schedule, why: str, fields: Mapping[str, Any] | None = None) -> None:
        failures, _ = self._waiting.get(schedule.id, (0, 0.0))
        if not failures:
            log.error("schedule cannot fire yet", schedule=schedule.name, error=why, fields=dict(fields or {}))
        self._waiting[schedule.id] = (failures + 1, time.monotonic() + BACKOFF.delay(failures + 1))

    async def _fire(self, schedule: Schedule, now: datetime) -> None:
        if await self._correct(schedule, now):
            return  # the next look finds it where it is due
        oldest = now - self._catch_up
        tick = cron.missed(schedule.cron, schedule.time_zone, schedule.next_tick, now, oldest)
        job_id = await self._enqueue(schedule, tick) if tick is not None else None
        following = cron.next_tick(schedule.cron, schedule.time_zone, max(now, tick or now))
        async with self._service.database.connection() as connection:
            await schedules.advance(connection, schedule, tick or schedule.next_tick, job_id, following)

    async def _enqueue(self, schedule: Schedule, tick: datetime) -> int | None:
        about = {"goqueue.schedule.name": schedule.name, "goqueue.schedule.tick": tick.isoformat()}
        with tracing.doing("fire schedule", about):
            return await self._make(schedule, tick)

    async def _make(self, schedule: Schedule, tick: datetime) -> int | None:
        key = f"schedule:{schedule.id}:{tick.isoformat()}"
        try:
            place = encryption.template_of(schedule.stored_name)
            payload = encryption.payload(self._service.database.keyring, place, schedule.job.get("payload"))
            job = {**schedule.job, "payload": payload}
            order = accept(
                job, self._registry, self._queues, source=Source.SCHEDULE, source_key=key, tenant=schedule.tenant
            )
            made = await self._service.enqueue(order)
        except (StoreUnavailable, KeyMissing, Conflict):
            raise
        except GoQueueError as error:
            log.error("schedule cannot fire", schedule=schedule.name, error=error.message, fields=error.fields)
            return None
        self.fired += made.created
        metrics.FIRED.inc(made.created)
        log.info("schedule fired", schedule=schedule.name, tick=tick.isoformat(), job_id=made.id)
        return made.id
