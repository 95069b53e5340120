"""GoQueueSchedules: each time of each schedule becomes at most one job, whoever leads and whenever a leader dies.

The job's `source_key` names schedule and time, so making it twice finds the first one. What was dealt with last is in
the status; a time that was made but not noted is made again, and found. After an absence one job stands for all
times that were missed, if the latest of them is younger than `startingDeadlineSeconds`. A time for which no job can be
made stays due until then, or until the next one is due. Jobs stay when their schedule is deleted.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

import structlog

from goqueue import metrics, tracing
from goqueue.errors import Conflict, NotFound, StoreUnavailable
from goqueue.job import Enqueued, Source
from goqueue.orders import accept
from goqueue.registry import Registry
from goqueue.service import JobService
from goqueue_operator import payloads, rows
from goqueue_operator.conditions import timestamp
from goqueue_operator.events import Budget, tell
from goqueue_operator.jobstatus import Refusal, difference
from goqueue_operator.kube import SCHEDULES, Kube, KubeError, KubeUnavailable, Object
from goqueue_operator.namespaces import Namespaces
from goqueue_operator.refusals import FAILURES, refusal_of
from goqueue_operator.scheduleplan import Schedule

TOGETHER: Final = 16
"""Schedules that are looked after at the same time."""

TICK: Final = 0.5
"""Seconds between two looks at the schedules."""

FOLLOW_SECONDS: Final = 5.0
"""Seconds between two looks at the jobs that they made."""

KEPT: Final = 50
"""Jobs of one schedule that a status names."""

log = structlog.get_logger(__name__)


class NotMade(Exception):
    """No job could be made for now."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Schedules:
    """All GoQueueSchedules."""

    def __init__(
        self,
        kube: Kube,
        service: JobService,
        registry: Registry,
        queues: Collection[str],
        installation: str = "",
        namespaces: Namespaces = Namespaces(),  # noqa: B008 - immutable
    ) -> None:
        self._kube = kube
        self._service = service
        self._registry = registry
        self._queues = queues
        self._installation = installation
        self._namespaces = namespaces
        self.schedules: dict[str, Schedule] = {}
        self._turns = asyncio.Semaphore(TOGETHER)
        self._followed_at = 0.0
        self._events = Budget()
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
            known.resource = resource  # our own status, or an annotation
            return
        written = known.written if known is not None else resource.get("status") or {}
        schedule = Schedule(resource, known.status if known is not None else written, written)
        schedule.plan(datetime.now(UTC))
        queue = schedule.spec["jobTemplate"]["spec"].get("queue")
        why = self._namespaces.refusal(metadata["namespace"], [queue]) if queue else None
        if why is not None:
            schedule.next, schedule.problem = None, Refusal("QueueNotAllowed", why)
        elif schedule.problem is None:
            schedule.problem = self._refusal(schedule.spec["jobTemplate"]["spec"])
        self.schedules[metadata["uid"]] = schedule

    def _refusal(self, spec: Object) -> Refusal | None:
        """Why no job can be made of a template, as far as its spec tells before a time is due."""
        if spec.get("payloadFrom") is not None:
            return None
        try:
            accept(payloads.body(spec, payloads.storable(spec.get("payload"))), self._registry, self._queues)
        except FAILURES as error:
            return refusal_of(error)
        return None

    async def run(self) -> None:
        """Fire until cancelled."""
        while True:
            now, began = datetime.now(UTC), time.monotonic()
            if began - self._followed_at >= FOLLOW_SECONDS:
                self._followed_at = began
                with contextlib.suppress(StoreUnavailable):
                    await self.follow()
            await asyncio.gather(*(self._look_or_tell(schedule, now) for schedule in self.schedules.values()))
            metrics.OPERATOR_SECONDS.observe(time.monotonic() - began, "schedules")
            await asyncio.sleep(TICK)

    async def follow(self) -> None:
        """Find out which of their jobs have ended, in one statement for all schedules."""
        ids = {id for schedule in self.schedules.values() for id in schedule.status.get("active") or ()}
        if not ids:
            return
        async with self._service.database.connection() as connection:
            ends = await rows.ends(connection, list(ids))
        for schedule in self.schedules.values():
            schedule.ended(ends)

    async def _look_or_tell(self, schedule: Schedule, now: datetime) -> None:
        """Look after a schedule; where that fails its time stays due. One whose unique key another transaction holds
        must not keep the others from firing: up to `TOGETHER` are looked after at a time."""
        async with self._turns:
            try:
                await self._look(schedule, now)
            except (KubeUnavailable, KubeError) as error:
                metadata = schedule.resource["metadata"]
                if isinstance(error, KubeError) and error.code in (404, 409):  # its deletion was not shown
                    with contextlib.suppress(KubeUnavailable, KubeError):
                        await self._is_as_known(schedule)
                    return
                log.warning("schedule not looked after, trying again", schedule=metadata["name"], error=str(error))
            except Exception as error:  # one schedule must not keep all others from firing
                note = f"the operator failed: {type(error).__name__}"
                if schedule.told != note:
                    schedule.told = note
                    log.exception("schedule not looked after", schedule=schedule.resource["metadata"]["name"])
                    await self._tell(schedule, "InternalError", note, warning=True)

    async def _look(self, schedule: Schedule, now: datetime) -> None:
        due = schedule.due(now)
        token = schedule.run_token if schedule.run_backoff.is_over(now) else None
        if (due or token) and not await self._is_as_known(schedule):
            return
        if token:
            await self._run_now(schedule, token, now)
        if due:
            await self._deal_with(schedule, due, now)
        await self._write(schedule, now)

    async def _is_as_known(self, schedule: Schedule) -> bool:
        """Whether the schedule still exists and is what we know: before it fires, whatever the watch did not show."""
        metadata = schedule.resource["metadata"]
        resource = await self._kube.find(SCHEDULES, metadata["namespace"], metadata["name"])
        found = (resource or {}).get("metadata", {})
        if resource is None or found["uid"] != metadata["uid"] or found.get("deletionTimestamp"):
            self.schedules.pop(metadata["uid"], None)
            return False
        if found.get("generation") != metadata.get("generation"):
            self.on_event("MODIFIED", resource)
            return False
        return True

    # --- the time that is due ----------------------------------------------------------------------------------------

    async def _deal_with(self, schedule: Schedule, due: datetime, now: datetime) -> None:
        """Make the job of the time that is due, or skip it; where neither can be, it stays due."""
        tick = schedule.tick(due, now)
        if tick is None:
            await self._miss(schedule, due, now)
            return
        if schedule.tried is not None and schedule.tried < tick:
            await self._give_up(schedule, schedule.tried, tick)
        try:
            skipped, changes = await self._fire(schedule, tick)
        except NotMade as error:
            schedule.problem, schedule.tried = error.refusal, tick
            schedule.backoff.failed(error.refusal.reason, now)
            return
        if skipped:
            metrics.SKIPPED.inc(1, "active")
            if not schedule.skips:  # of several one after the other the first is told
                note = f"no job for {timestamp(tick)}: an earlier one has not ended and concurrencyPolicy is Forbid"
                await self._tell(schedule, "JobAlreadyActive", note)
        schedule.dealt_with(now, changes)

    async def _give_up(self, schedule: Schedule, tried: datetime, tick: datetime) -> None:
        """Skip a time for which no job could be made until the next one is due."""
        first = not schedule.skips
        schedule.give_up(tick)
        metrics.SKIPPED.inc(1, "late")
        late, why = timestamp(tried), schedule.problem
        log.warning("schedule missed a time", schedule=schedule.resource["metadata"]["name"], tick=late)
        if first and why is not None:  # of several one after the other the first is told
            note = f"no job for {late} until the next time was due: {why.message}"
            await self._tell(schedule, "MissSchedule", note, warning=True)

    async def _miss(self, schedule: Schedule, due: datetime, now: datetime) -> None:
        """Go on where the latest time is older than the deadline."""
        late, why = timestamp(due), schedule.problem
        seconds = round(schedule.deadline.total_seconds())
        note = f"no job for {late} within startingDeadlineSeconds ({seconds}): "
        note += why.message if why is not None else "no operator served this schedule"
        metrics.SKIPPED.inc(1, "late")
        log.warning("schedule missed a time", schedule=schedule.resource["metadata"]["name"], tick=late)
        schedule.dealt_with(now, {"lastSkippedTime": late})
        await self._tell(schedule, "MissSchedule", note, warning=True)

    async def _fire(self, schedule: Schedule, tick: datetime) -> tuple[bool, Object]:
        """Make the job of a time, as the concurrency policy allows.

        Returns:
            Whether it was skipped, and what the status has to say.

        Raises:
            NotMade: the time stays due.
        """
        metadata = schedule.resource["metadata"]
        key = rows.tick_key(metadata["uid"], metadata["namespace"], tick, self._installation)
        before = rows.tick_key(metadata["uid"], metadata["namespace"], tick)
        try:
            made_before, active = await self._active(schedule, {key, before})
            if before in made_before and key != before:  # an earlier version fired it and could not note it
                id = made_before[before]
                noted = {"lastScheduleTime": timestamp(tick), "lastJobID": id}
                return False, noted | {"active": [*active, id][-KEPT:]}
            rule = schedule.spec.get("concurrencyPolicy", "Allow")
            if active and rule == "Forbid":
                log.info("schedule skipped, its earlier job has not ended", schedule=metadata["name"], jobs=active)
                return True, {"active": active, "lastSkippedTime": timestamp(tick)}
            if rule == "Replace":
                for id in active:
                    with contextlib.suppress(Conflict, NotFound):
                        await self._service.cancel(id)
                active = []
        except StoreUnavailable as error:
            raise NotMade(refusal_of(error)) from error
        made = await self._make(schedule, key, {"goqueue.schedule.tick": tick.isoformat()})
        log.info("schedule fired", schedule=metadata["name"], tick=tick.isoformat(), job_id=made.id)
        own = made.created or made_before.get(key) == made.id
        noted = {"lastScheduleTime": timestamp(tick), "lastJobID": made.id}
        return False, noted | {"active": [*active, *([made.id] if own else [])][-KEPT:]}

    async def _make(self, schedule: Schedule, key: str, about: tracing.Attributes) -> Enqueued:
        """Make a job of its template.

        Raises:
            NotMade: it cannot be made for now.
        """
        metadata = schedule.resource["metadata"]
        place = {"k8s.namespace.name": metadata["namespace"], "goqueue.schedule.name": metadata["name"]}
        try:
            with tracing.doing("fire schedule", {**place, **about}):
                spec = schedule.spec["jobTemplate"]["spec"]
                payload = await payloads.fetch(self._kube, metadata["namespace"], spec)
                body = payloads.body(spec, payload)
                tenant = self._namespaces.tenant(metadata["namespace"])
                order = accept(
                    body, self._registry, self._queues, source=Source.SCHEDULE, source_key=key, tenant=tenant
                )
                self._namespaces.check(metadata["namespace"], order.queue)
                made = await self._service.enqueue(order)
        except FAILURES as error:
            raise NotMade(refusal_of(error)) from error
        self.fired += made.created
        metrics.FIRED.inc(made.created)
        return made

    async def _active(self, schedule: Schedule, keys: Collection[str]) -> tuple[dict[str, int], list[int]]:
        """The jobs that this very time has made already (key → id), and its earlier jobs that have not ended.

        A job that it did not make is none of them, whatever the status says: a restored database gives ids again.
        """
        async with self._service.database.connection() as connection:
            same = {key: id for key, (id, _) in (await rows.by_key(connection, keys)).items()}
            ids = list(schedule.status.get("active") or ())
            open_ticks = await rows.open_ticks(connection, ids, schedule.resource["metadata"]["uid"]) if ids else []
        return same, [id for id in open_ticks if id not in same.values()]

    # --- a job at once -----------------------------------------------------------------------------------------------

    async def _run_now(self, schedule: Schedule, token: str, now: datetime) -> None:
        """Make the job that the annotation asks for: one for each token, whatever the times and the policy say."""
        metadata = schedule.resource["metadata"]
        key = rows.run_key(metadata["uid"], metadata["namespace"], token, self._installation)
        try:
            made = await self._make(schedule, key, {"goqueue.schedule.run_now": token})
        except NotMade as error:
            if schedule.run_backoff.tries == 0:
                await self._tell(schedule, "CannotRunNow", error.refusal.message, warning=True)
            schedule.run_backoff.failed(error.refusal.reason, now)
            return
        schedule.run_backoff.succeeded()
        schedule.status = schedule.status | {"runNow": token, "lastJobID": made.id}
        log.info("schedule run by hand", schedule=metadata["name"], job_id=made.id)
        await self._tell(schedule, "RunNow", f"job {made.id} was made as asked for by annotation")

    # --- the status --------------------------------------------------------------------------------------------------

    async def _write(self, schedule: Schedule, now: datetime) -> None:
        metadata = schedule.resource["metadata"]
        status = schedule.status = schedule.wanted(now)
        if difference(schedule.written, status) is not None and schedule.write_backoff.is_over(now):
            try:
                await self._kube.put_status(SCHEDULES, metadata["namespace"], metadata["name"], metadata["uid"], status)
            except KubeError as error:
                if error.code in (404, 409):
                    raise
                log.error("status refused", name=metadata["name"], namespace=metadata["namespace"], error=str(error))
                schedule.write_backoff.failed(error.reason, now)
            else:
                schedule.write_backoff.succeeded()
                schedule.written = status
        told = "" if schedule.problem is None else schedule.problem.message
        if told and told != schedule.told:
            log.warning("schedule makes no job", schedule=metadata["name"], error=told)
            await self._tell(schedule, "CannotFire", told, warning=True)
        schedule.told = told

    async def _tell(self, schedule: Schedule, reason: str, note: str, *, warning: bool = False) -> None:
        if self._events.take():
            await tell(self._kube, schedule.resource, "GoQueueSchedule", reason, note, warning=warning)
