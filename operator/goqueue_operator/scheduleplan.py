"""One GoQueueSchedule: when it is due, and its status. Pure, but for the zone data it reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from goqueue import cron
from goqueue.errors import InvalidInput
from goqueue.lifecycle import JobStatus
from goqueue_operator import rows
from goqueue_operator.conditions import Condition, merge, moment, timestamp
from goqueue_operator.jobstatus import Refusal
from goqueue_operator.kube import Object
from goqueue_operator.tokens import token_of

RUN_NOW: Final = "goqueue.io/run-now"
"""Annotation of a GoQueueSchedule: each new value makes one job at once."""


@dataclass(slots=True)
class Backoff:
    """When to try again what has failed: after 1 s, 2 s, 4 s … 30 s; at most 5 s where a store was unavailable."""

    tries: int = 0
    at: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """Whether it may be tried."""
        return self.at is None or self.at <= now

    def failed(self, reason: str, now: datetime) -> None:
        """Wait longer than before."""
        longest = 5.0 if reason == "StoreUnavailable" else 30.0
        self.at = now + timedelta(seconds=min(2.0 ** min(self.tries, 10), longest))
        self.tries += 1

    def succeeded(self) -> None:
        """Wait no more."""
        self.tries, self.at = 0, None


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
    problem: Refusal | None = None
    """Why it makes no job for now."""
    tried: datetime | None = None
    """The time for which a job could not be made so far."""
    told: str = ""
    """The problem that an event was left for."""
    backoff: Backoff = field(default_factory=Backoff)
    """Of the time that is due."""
    run_backoff: Backoff = field(default_factory=Backoff)
    """Of the job that the annotation asks for."""
    write_backoff: Backoff = field(default_factory=Backoff)
    """Of a status that Kubernetes refuses."""

    @property
    def spec(self) -> Object:
        """Its spec."""
        spec: Object = self.resource["spec"]
        return spec

    @property
    def zone(self) -> str:
        """Its time zone."""
        return self.spec.get("timeZone") or "UTC"

    @property
    def suspended(self) -> bool:
        """Whether it makes no jobs at its times."""
        return bool(self.spec.get("suspend"))

    @property
    def deadline(self) -> timedelta:
        """For how long a time stays due for which no job could be made."""
        return timedelta(seconds=self.spec.get("startingDeadlineSeconds", 3600))

    @property
    def skips(self) -> bool:
        """Whether the time that was dealt with last made no job."""
        skipped, made = (moment(self.status.get(name)) for name in ("lastSkippedTime", "lastScheduleTime"))
        return skipped is not None and (made is None or skipped > made)

    @property
    def run_token(self) -> str | None:
        """The token for which a job is still to be made at once."""
        token = token_of(self.resource, RUN_NOW)
        return token if token != self.status.get("runNow") else None

    def plan(self, now: datetime) -> None:
        """Find out when it is due next.

        A change of the schedule, and a suspension, let no time of the past fire. Where the time that the status says
        comes next is none by the present zone data, they have changed, and the last one was meant for another time.
        """
        metadata = self.resource["metadata"]
        dealt_with = [moment(self.status.get(name)) for name in ("lastScheduleTime", "lastSkippedTime")]
        last = max((time for time in dealt_with if time is not None), default=None)
        after = last or datetime.fromisoformat(metadata["creationTimestamp"])
        if self.status.get("observedGeneration", metadata.get("generation")) != metadata.get("generation"):
            after = now
        self.problem, self.tried = None, None
        line = self.spec["cron"]
        try:
            planned = moment(self.status.get("nextScheduleTime"))
            if (
                last is not None
                and after == last
                and planned is not None
                and not cron.is_tick(line, self.zone, planned)
            ):
                after = cron.counterpart(line, self.zone, last)
            self.next = cron.next_tick(line, self.zone, after)
        except InvalidInput as error:
            names = {"time_zone": "timeZone"}  # as this kind calls it
            words = "; ".join(f"{names.get(name, name)}: {what}" for name, what in error.fields.items())
            self.next, self.problem = None, Refusal("CannotFire", words, final=True)

    def due(self, now: datetime) -> datetime | None:
        """The earliest time that is due; None where none is, or one was tried just now."""
        waits = self.next is None or self.next > now or self.suspended or not self.backoff.is_over(now)
        return None if waits else self.next

    def tick(self, first: datetime, now: datetime) -> datetime | None:
        """The time for which a job is to be made, where `first` is due; None where the latest is too long ago."""
        return cron.missed(self.spec["cron"], self.zone, first, now, now - self.deadline)

    def dealt_with(self, now: datetime, changes: Object) -> None:
        """Go on to the next time."""
        self.next = cron.next_tick(self.spec["cron"], self.zone, now)
        self.status = self.status | changes
        self.backoff.succeeded()
        self.problem, self.tried = None, None

    def give_up(self, tick: datetime) -> None:
        """Leave the time that was tried without a job: `tick`, a later one, is due."""
        if self.tried is not None:
            self.status = self.status | {"lastSkippedTime": timestamp(self.tried)}
        self.next, self.tried = tick, None
        self.backoff.succeeded()

    def ended(self, ends: Mapping[int, rows.End]) -> None:
        """Note which of its jobs have ended; `ends` has those of all schedules.

        A row that this schedule did not make is not its job, whatever the status says: a restored database gives ids
        again.
        """
        active = self.status.get("active") or []
        own = {id: end for id, end in ends.items() if rows.made_by(end.source_key, self.resource["metadata"]["uid"])}
        open_ones = [id for id in active if id in own and own[id].finished_at is None]
        if open_ones == active:
            return
        times = [moment(self.status.get("lastSuccessfulTime"))]
        times += [own[id].finished_at for id in active if id in own and own[id].status == JobStatus.COMPLETED]
        latest = max((time for time in times if time is not None), default=None)
        self.status = self.status | {"active": open_ones}
        if latest is not None:
            self.status["lastSuccessfulTime"] = timestamp(latest)

    def wanted(self, now: datetime) -> dict[str, Any]:
        """The status as it should be written."""
        generation = self.resource["metadata"].get("generation", 1)
        status = self.status | {"observedGeneration": generation}
        status.pop("nextScheduleTime", None)
        if self.next is not None and not self.suspended:
            status["nextScheduleTime"] = timestamp(self.next)
        status["conditions"] = merge(status.get("conditions") or (), [self._ready()], generation, now)
        return status

    def _ready(self) -> Condition:
        if self.problem is not None:
            return Condition("Ready", False, self.problem.reason, self.problem.message)
        if self.suspended:  # as asked for, so that nobody who waits for readiness waits for its end
            return Condition("Ready", True, "Suspended", "makes no jobs at its times: spec.suspend is true")
        return Condition("Ready", True, "Scheduled", "makes a job at the next time")
