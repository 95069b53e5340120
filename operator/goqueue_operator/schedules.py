"""GoQueueSchedules: each time of each schedule becomes at most one job, whoever leads and whenever a leader dies.

The job's `source_key` names schedule and time, so making it twice finds the first one. What was dealt with last stands
in the status; a time that was made but not noted is made again, and found. After an absence one job stands for all
times that were missed, if the latest of them is younger than `startingDeadlineSeconds`. Jobs stay when their schedule
is deleted.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from goqueue import cron, metrics, tracing
from goqueue.errors import Conflict, GoQueueError, InvalidInput, NotFound, StoreUnavailable
from goqueue.job import Source
from goqueue.orders import accept
from goqueue.registry import Registry
from goqueue.service import JobService
from goqueue_operator import payloads, rows
from goqueue_operator.conditions import Condition, merge, moment, timestamp
from goqueue_operator.events import tell
from goqueue_operator.jobstatus import difference
from goqueue_operator.kube import SCHEDULES, Kube, KubeError, KubeUnavailable, Object
from goqueue_operator.payloads import NoPayload

TOGETHER: Final = 16
"""Schedules that are looked after at the same time."""

TICK: Final = 0.5
"""Seconds between two looks at the schedules."""

KEPT: Final = 50
"""Jobs of one schedule that a status names."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Schedule:
    """One GoQueueSchedule, and when it is due."""

    resource: Object
    status: Object
    """As it should be."""
    written: Object
    """As it was written last."""
    next: datetime | None = None
    """The earliest time that was not dealt with; None: not known yet, or never."""
    wrong: str = ""
    """Why it cannot fire, where its definition is to blame."""
    told: str = ""

    @property
    def spec(self) -> Object:
        """Its spec."""
        spec: Object = self.resource["spec"]
        return spec

    @property
    def zone(self) -> str:
        """Its time zone."""
        return self.spec.get("timeZone") or "UTC"

    def plan(self, now: datetime) -> None:
        """Find out when it is due next.

        A change of the schedule, and a suspension, let no time of the past fire. Where the time that the status says
        comes next is none by the present zone data, they have changed, and the last one was meant for another time.
        """
        metadata = self.resource["metadata"]
        last = moment(self.status.get("lastScheduleTime"))
        after = last or datetime.fromisoformat(metadata["creationTimestamp"])
        if self.status.get("observedGeneration", metadata.get("generation")) != metadata.get("generation"):
            after = now
        self.wrong = ""
        line = self.spec["cron"]
        try:
            planned = moment(self.status.get("nextScheduleTime"))
            if after == last and planned is not None and not cron.is_tick(line, self.zone, planned):
                after = cron.counterpart(line, self.zone, last)
            self.next = cron.next_tick(line, self.zone, after)
        except InvalidInput as error:
            self.next, self.wrong = None, "; ".join(f"{name}: {what}" for name, what in error.fields.items())


class Schedules:
    """All GoQueueSchedules."""

    def __init__(
        self,
        kube: Kube,
        service: JobService,
        registry: Registry,
        queues: Collection[str],
        installation: str = "",
    ) -> None:
        self._kube = kube
        self._service = service
        self._registry = registry
        self._queues = queues
        self._installation = installation
        self.schedules: dict[str, Schedule] = {}
        self._turns = asyncio.Semaphore(TOGETHER)
        self.fired = 0
        """Jobs that were made."""

    def on_event(self, kind: str | None, resource: Object) -> None:
        """A schedule was made, changed or deleted."""
        metadata = resource["metadata"]
        if kind == "DELETED" or metadata.get("deletionTimestamp"):
            self.schedules.pop(metadata["uid"], None)
            return
        known = self.schedules.get(metadata["uid"])
        if known is not None and known.resource["metadata"].get("generation") == metadata.get("generation"):
            return  # our own status
        written = known.written if known is not None else resource.get("status") or {}
        schedule = Schedule(resource, known.status if known is not None else written, written)
        schedule.plan(datetime.now(UTC))
        self.schedules[metadata["uid"]] = schedule

    async def run(self) -> None:
        """Fire until cancelled."""
        while True:
            now, began = datetime.now(UTC), time.monotonic()
            await asyncio.gather(*(self._look_or_tell(schedule, now) for schedule in self.schedules.values()))
            metrics.OPERATOR_SECONDS.observe(time.monotonic() - began, "schedules")
            await asyncio.sleep(TICK)

    async def _look_or_tell(self, schedule: Schedule, now: datetime) -> None:
        """Look after a schedule; where that fails its time stays due. One whose unique key another transaction holds
        must not keep the others from firing: up to `TOGETHER` are looked after at a time."""
        async with self._turns:
            try:
                await self._look(schedule, now)
            except (StoreUnavailable, Conflict, KubeUnavailable, KubeError) as error:
                name = schedule.resource["metadata"]["name"]
                log.warning("schedule not looked after, trying again", schedule=name, error=str(error))

    async def _look(self, schedule: Schedule, now: datetime) -> None:
        if schedule.next is None or schedule.spec.get("suspend"):
            await self._write(schedule, now)
            return
        if schedule.next > now:
            await self._write(schedule, now)
            return
        if not await self._is_as_known(schedule):
            return
        deadline = timedelta(seconds=schedule.spec.get("startingDeadlineSeconds", 3600))
        tick = cron.missed(schedule.spec["cron"], schedule.zone, schedule.next, now, now - deadline)
        changes: Object = {"lastScheduleTime": timestamp(tick or schedule.next)}
        if tick is not None:
            changes |= await self._fire(schedule, tick)
        schedule.next = cron.next_tick(schedule.spec["cron"], schedule.zone, max(now, tick or now))
        schedule.status = schedule.status | changes
        await self._write(schedule, now)

    async def _is_as_known(self, schedule: Schedule) -> bool:
        """Whether the schedule still exists and is what we know: before it fires, whatever the watch did not show."""
        metadata = schedule.resource["metadata"]
        resource = await self._kube.find(SCHEDULES, metadata["namespace"], metadata["name"])
        if resource is None or resource["metadata"]["uid"] != metadata["uid"]:
            self.schedules.pop(metadata["uid"], None)
            return False
        if resource["metadata"].get("generation") != metadata.get("generation"):
            self.on_event("MODIFIED", resource)
            return False
        return True

    async def _fire(self, schedule: Schedule, tick: datetime) -> Object:
        """Make the job of a time, as the concurrency policy allows; what the status has to say of it."""
        metadata = schedule.resource["metadata"]
        key = rows.tick_key(metadata["uid"], metadata["namespace"], tick, self._installation)
        before = rows.tick_key(metadata["uid"], metadata["namespace"], tick)
        made, active = await self._active(schedule, {key, before})
        if before in made and key != before:  # an earlier version fired it and could not note it
            return {"lastJobID": made[before], "active": [*active, made[before]][-KEPT:]}
        rule = schedule.spec.get("concurrencyPolicy", "Allow")
        if active and rule == "Forbid":
            log.info("schedule skipped, its earlier job has not ended", schedule=metadata["name"], jobs=active)
            return {"active": active}
        if rule == "Replace":
            for id in active:
                with contextlib.suppress(Conflict, NotFound):
                    await self._service.cancel(id)
            active = []
        try:
            about = {
                "k8s.namespace.name": metadata["namespace"],
                "goqueue.schedule.name": metadata["name"],
                "goqueue.schedule.tick": tick.isoformat(),
            }
            with tracing.doing("fire schedule", about):
                spec = schedule.spec["jobTemplate"]["spec"]
                payload = await payloads.fetch(self._kube, metadata["namespace"], spec)
                body = payloads.body(spec, payload)
                order = accept(body, self._registry, self._queues, source=Source.SCHEDULE, source_key=key)
                job = await self._service.enqueue(order)
        except (StoreUnavailable, Conflict):
            raise
        except NoPayload as error:
            schedule.wrong = str(error)
            return {"active": active}
        except GoQueueError as error:
            details = "; ".join(f"{name}: {what}" for name, what in error.fields.items())
            schedule.wrong = f"{error.message}: {details}" if details else error.message
            return {"active": active}
        schedule.wrong = ""
        self.fired += job.created
        metrics.FIRED.inc(job.created)
        log.info("schedule fired", schedule=metadata["name"], tick=tick.isoformat(), job_id=job.id)
        own = job.created or made.get(key) == job.id
        return {"lastJobID": job.id, "active": [*active, *([job.id] if own else [])][-KEPT:]}

    async def _active(self, schedule: Schedule, keys: Collection[str]) -> tuple[dict[str, int], list[int]]:
        """The jobs that this very time has made already (key → id), and its earlier jobs that have not ended.

        A job that it did not make is none of them, whatever the status says: a restored database gives ids again.
        """
        async with self._service.database.connection() as connection:
            same = {key: id for key, (id, _) in (await rows.by_key(connection, keys)).items()}
            ids = list(schedule.status.get("active") or ())
            open_ticks = await rows.open_ticks(connection, ids, schedule.resource["metadata"]["uid"]) if ids else []
        return same, [id for id in open_ticks if id not in same.values()]

    async def _write(self, schedule: Schedule, now: datetime) -> None:
        metadata = schedule.resource["metadata"]
        generation = metadata.get("generation", 1)
        suspended = bool(schedule.spec.get("suspend"))
        status = schedule.status | {"observedGeneration": generation}
        status.pop("nextScheduleTime", None)
        if schedule.next is not None and not suspended:
            status["nextScheduleTime"] = timestamp(schedule.next)
        status["conditions"] = merge(status.get("conditions") or (), [_ready(schedule, suspended)], generation, now)
        schedule.status = status
        patch: dict[str, Any] | None = difference(schedule.written, status)
        if patch is not None:
            body = {"metadata": {"uid": metadata["uid"]}, "status": patch}
            await self._kube.patch(SCHEDULES, metadata["namespace"], metadata["name"], body, "status")
            schedule.written = status
        if schedule.wrong and schedule.told != schedule.wrong:
            schedule.told = schedule.wrong
            await tell(self._kube, schedule.resource, "GoQueueSchedule", "CannotFire", schedule.wrong, warning=True)


def _ready(schedule: Schedule, suspended: bool) -> Condition:
    if schedule.wrong:
        return Condition("Ready", False, "CannotFire", schedule.wrong)
    if suspended:
        return Condition("Ready", False, "Suspended", "spec.suspend is true")
    return Condition("Ready", True, "Scheduled", "makes a job at the next time")
