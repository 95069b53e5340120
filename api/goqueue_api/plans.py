"""What a schedule may be: the rules of `PUT /schedules/{name}`, which the console command follows, too."""

from collections.abc import Collection
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from goqueue import cron
from goqueue.access import Reach
from goqueue.builtin import TYPE_OF_QUEUE
from goqueue.errors import InvalidInput
from goqueue.job import NewJob
from goqueue.orders import accept
from goqueue.registry import Registry
from goqueue.store.schedules import Schedule

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9_.-]{0,126}[a-z0-9])?$")]


class SchedulePut(BaseModel):
    """The body of `PUT /schedules/{name}`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    cron: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        description="Five fields: minute, hour, day of the month, month, day of the week.", examples=["0 6 * * 1-5"]
    )
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        "UTC", description="IANA name of the zone in which the times are meant.", examples=["Europe/Berlin"]
    )
    job: dict[str, Any] = Field(
        description="The job to create at each tick: as the body of `POST /jobs/create`, without `available_at`."
    )
    enabled: bool = Field(True, description="Whether it fires.")


class _Named(BaseModel):
    name: Name


def schedule_name(text: str) -> str:
    """A schedule's name from the path.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return _Named(name=text).name
    except ValueError:
        raise InvalidInput("validation failed", {"name": "lower case letters, digits, '-', '_' and '.'"}) from None


def first_tick(wanted: SchedulePut, registry: Registry, queues: Collection[str]) -> tuple[datetime, NewJob]:
    """When a schedule put now fires first, and the job that it makes then.

    Raises:
        InvalidInput: it never does, or the job that it is to make would be refused.
    """
    cron.check(wanted.cron)
    tick = cron.next_tick(wanted.cron, wanted.time_zone, datetime.now(UTC))
    if "available_at" in wanted.job:
        raise InvalidInput("validation failed", {"job.available_at": "the schedule itself says when"})
    try:
        job = accept(wanted.job, registry, queues)
    except InvalidInput as error:
        fields = {f"job.{name}": what for name, what in error.fields.items()} or {"job": error.message}
        raise InvalidInput(error.message, fields) from None
    return tick, job


def template(wanted: SchedulePut, job: NewJob) -> dict[str, Any]:
    """The job of a schedule as it is stored: with its queue, by which callers are restricted."""
    return {**wanted.job, "queue": job.queue}


def is_within(schedule: Schedule, reach: Reach) -> bool:
    """Whether the jobs that a schedule makes are within reach."""
    queue = str(schedule.job["queue"])
    return reach.covers(schedule.tenant, queue, schedule.job.get("type") or TYPE_OF_QUEUE.get(queue, ""))


def schedule_view(schedule: Schedule) -> dict[str, Any]:
    """A `ScheduleView` as a dictionary. One schedule that cannot fire must not keep a list of them from being shown."""
    following: list[datetime] = []
    wrong: str | None = None
    try:
        if schedule.enabled:
            following = list(islice(cron.ticks(schedule.cron, schedule.time_zone, datetime.now(UTC)), 5))
    except InvalidInput as error:
        wrong = "; ".join(f"{name}: {what}" for name, what in error.fields.items())
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "job": schedule.job,
        "enabled": schedule.enabled,
        "tenant": schedule.tenant,
        "last_tick": schedule.last_tick,
        "last_job_id": schedule.last_job_id,
        "next_ticks": following,
        "cannot_fire": wrong,
        "created_at": schedule.created_at,
        "updated_at": schedule.updated_at,
    }
