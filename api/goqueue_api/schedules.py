"""Cron schedules: create or replace, show, delete."""

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from goqueue import cron
from goqueue.errors import InvalidInput, NotFound
from goqueue.orders import accept
from goqueue.store import schedules
from goqueue.store.schedules import Schedule
from goqueue_api.bodies import body_of, json_response, read
from goqueue_api.context import Context, context
from goqueue_api.errors import documented
from goqueue_api.routing import Direct
from goqueue_api.views import ScheduleView

router = APIRouter(tags=["schedules"], route_class=Direct)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9_.-]{0,126}[a-z0-9])?$")]


class SchedulePut(BaseModel):
    """The body of `PUT /schedules/{name}`; `job` is shaped like the body of `POST /jobs/create`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    cron: Annotated[str, Field(min_length=1, max_length=255)]
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    job: dict[str, Any]
    enabled: bool = True


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


def _view(schedule: Schedule) -> dict[str, Any]:
    following = islice(cron.ticks(schedule.cron, schedule.time_zone, datetime.now(UTC)), 5)
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "job": schedule.job,
        "enabled": schedule.enabled,
        "last_tick": schedule.last_tick,
        "last_job_id": schedule.last_job_id,
        "next_ticks": list(following) if schedule.enabled else [],
        "created_at": schedule.created_at,
        "updated_at": schedule.updated_at,
    }


def _check_template(job: dict[str, Any], parts: Context) -> None:
    if "available_at" in job:
        raise InvalidInput("validation failed", {"job.available_at": "the schedule itself says when"})
    try:
        accept(job, parts.registry, parts.queues)
    except InvalidInput as error:
        fields = {f"job.{name}": what for name, what in error.fields.items()} or {"job": error.message}
        raise InvalidInput(error.message, fields) from None


@router.get("/schedules", response_model=list[ScheduleView], responses=documented())
async def list_all(request: Request) -> Response:
    """All schedules, by name."""
    async with context(request).service.database.connection() as connection:
        found = await schedules.list_all(connection)
    return json_response([_view(schedule) for schedule in found])


@router.get("/schedules/{name}", response_model=ScheduleView, responses=documented(400, 404))
async def get(request: Request, name: str) -> Response:
    """One schedule."""
    async with context(request).service.database.connection() as connection:
        found = await schedules.get(connection, schedule_name(name))
    if found is None:
        raise NotFound("schedule not found")
    return json_response(_view(found))


@router.put(
    "/schedules/{name}",
    response_model=ScheduleView,
    responses={**documented(400, 413), 201: {"model": ScheduleView, "description": "Created."}},
    openapi_extra=body_of(SchedulePut),
)
async def put(request: Request, name: str) -> Response:
    """Create or replace a schedule. It fires next at the first tick from now on."""
    parts = context(request)
    chosen = schedule_name(name)
    wanted = await read(request, SchedulePut)
    next_tick = cron.next_tick(wanted.cron, wanted.time_zone, datetime.now(UTC))
    _check_template(wanted.job, parts)
    async with parts.service.database.connection() as connection:
        schedule, created = await schedules.put(
            connection, chosen, wanted.cron, wanted.time_zone, wanted.job, wanted.enabled, next_tick
        )
    return json_response(_view(schedule), 201 if created else 200)


@router.delete("/schedules/{name}", status_code=204, responses=documented(400, 404))
async def delete(request: Request, name: str) -> Response:
    """Remove a schedule; the jobs it made stay."""
    async with context(request).service.database.connection() as connection:
        if not await schedules.delete(connection, schedule_name(name)):
            raise NotFound("schedule not found")
    return Response(status_code=204)
