"""Cron: each tick of each schedule becomes exactly one job, whoever leads and whenever a leader dies.

The job carries the tick as its `source_key`, which is unique, so firing twice finds the first job. Ticks missed in an
absence are made up for by one job for the latest of them, if that is younger than the catch-up bound.

A stored tick was computed by the zone data of its time. When a scheduler begins to lead it computes the next tick of
all schedules anew, and of each once more before it fires: a newer release of the zone data may have moved it.
"""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

import structlog

from goqueue import cron, encryption, metrics, tracing
from goqueue.encryption import KeyMissing
from goqueue.errors import Conflict, GoQueueError, InvalidInput, StoreUnavailable
from goqueue.job import Source
from goqueue.orders import accept
from goqueue.registry import Registry
from goqueue.service import JobService
from goqueue.store import schedules
from goqueue.store.schedules import Schedule

TICK: Final = 0.5
"""Seconds between two looks at the schedules."""

TOGETHER: Final = 16
"""Schedules that fire at the same time: one whose unique key another transaction holds keeps no other from firing."""

CHUNK: Final = 500
"""Schedules whose next tick is computed anew after one look at PostgreSQL."""

log = structlog.get_logger(__name__)


class CronDuty:
    """The leader's cron duty; `catch_up` in seconds."""

    def __init__(self, service: JobService, registry: Registry, queues: Collection[str], catch_up: float) -> None:
        self._service = service
        self._registry = registry
        self._queues = queues
        self._catch_up = timedelta(seconds=catch_up)
        self._waiting: set[int] = set()  # schedules that could not fire, and whose tick stays due
        self._firing: set[int] = set()
        self._turns = asyncio.Semaphore(TOGETHER)
        self.fired = 0

    async def run(self) -> None:
        """Fire until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fire_due(), name="fire")
            group.create_task(self._compute_anew(), name="compute next ticks")

    async def _compute_anew(self) -> None:
        """Replace next ticks that are none by the zone data in force."""
        after = 0
        while True:
            try:
                async with self._service.database.connection() as connection:
                    found = await schedules.ahead(connection, after, CHUNK)
                for schedule, now in found:
                    await self._correct(schedule, now)
                    after = schedule.id
                    await asyncio.sleep(0)  # a computation takes some 0.1 ms: others have their turn
            except StoreUnavailable as error:
                log.warning("schedules not read", error=error.message)
                await asyncio.sleep(TICK)
            else:
                if len(found) < CHUNK:
                    return

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
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    async with self._service.database.connection() as connection:
                        due = await schedules.due(connection)
                except StoreUnavailable as error:
                    log.warning("schedules not read", error=error.message)
                else:
                    # Those that could not fire at the last look come last.
                    for schedule, now in sorted(due, key=lambda found: found[0].id in self._waiting):
                        if schedule.id not in self._firing:
                            self._firing.add(schedule.id)
                            group.create_task(self._fire_in_turn(schedule, now), name="fire")
                await asyncio.sleep(TICK)

    async def _fire_in_turn(self, schedule: Schedule, now: datetime) -> None:
        try:
            async with self._turns:
                await self._fire_or_tell(schedule, now)
        finally:
            self._firing.discard(schedule.id)

    async def _fire_or_tell(self, schedule: Schedule, now: datetime) -> None:
        """Fire; where that fails the tick stays due, for a scheduler that has the key or knows the time zone, and the
        other schedules fire."""
        try:
            await self._fire(schedule, now)
        except StoreUnavailable as error:
            log.warning("schedule not fired, trying again", schedule=schedule.name, error=error.message)
        except GoQueueError as error:
            if schedule.id not in self._waiting:
                log.error("schedule cannot fire yet", schedule=schedule.name, error=error.message, fields=error.fields)
                self._waiting.add(schedule.id)
        else:
            self._waiting.discard(schedule.id)

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
