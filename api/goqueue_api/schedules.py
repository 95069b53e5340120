"""Cron schedules: create or replace, show, delete."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from goqueue.access import Scope
from goqueue.errors import Forbidden, NotFound
from goqueue.store import schedules
from goqueue_api.access import needs
from goqueue_api.bodies import body_of, json_response, read
from goqueue_api.context import actor, caller, context
from goqueue_api.errors import documented
from goqueue_api.plans import SchedulePut, first_tick, is_within, schedule_name, schedule_view
from goqueue_api.routing import Direct
from goqueue_api.views import ScheduleView

router = APIRouter(tags=["schedules"], route_class=Direct)


@router.get("/schedules", response_model=list[ScheduleView], responses=documented())
@needs(Scope.JOBS_READ)
async def list_all(request: Request) -> Response:
    """All schedules of the caller's tenant, by name."""
    database, reach = context(request).service.database, caller(request).reach
    async with database.connection() as connection:
        found = await schedules.list_all(connection, database.keyring, reach=reach)
    return json_response([schedule_view(schedule) for schedule in found if is_within(schedule, reach)])


@router.get("/schedules/{name}", response_model=ScheduleView, responses=documented(400, 404))
@needs(Scope.JOBS_READ)
async def get(request: Request, name: str) -> Response:
    """One schedule."""
    database, who = context(request).service.database, caller(request)
    async with database.connection() as connection:
        found = await schedules.get(connection, schedule_name(name), database.keyring, tenant=who.tenant)
    if found is None or not is_within(found, who.reach):
        raise NotFound("schedule not found")
    return json_response(schedule_view(found))


@router.put(
    "/schedules/{name}",
    response_model=ScheduleView,
    responses={**documented(400, 413), 201: {"model": ScheduleView, "description": "Created."}},
    openapi_extra=body_of(SchedulePut),
)
@needs(Scope.SCHEDULES_MANAGE)
async def put(request: Request, name: str) -> Response:
    """Create or replace a schedule. It fires next at the first tick from now on. With the cron expression and time zone
    of before it keeps the tick of before, also one that is due: it fires with the new job."""
    parts = context(request)
    chosen = schedule_name(name)
    wanted = await read(request, SchedulePut)
    next_tick, job = first_tick(wanted, parts.registry, parts.queues)
    database, who = parts.service.database, caller(request)
    who.check_use(job.queue, job.type)
    async with database.connection() as connection:
        there = await schedules.get(connection, chosen, tenant=who.tenant)
        if there is not None and not is_within(there, who.reach):
            raise Forbidden("forbidden", {"name": chosen})
        schedule, created = await schedules.put(
            connection,
            chosen,
            wanted.cron,
            wanted.time_zone,
            wanted.job,
            wanted.enabled,
            next_tick,
            database.keyring,
            tenant=who.tenant,
            actor=actor(request),
        )
    return json_response(schedule_view(schedule), 201 if created else 200)


@router.delete("/schedules/{name}", status_code=204, responses=documented(400, 404))
@needs(Scope.SCHEDULES_MANAGE)
async def delete(request: Request, name: str) -> Response:
    """Remove a schedule; the jobs it made stay."""
    chosen, who = schedule_name(name), caller(request)
    async with context(request).service.database.connection() as connection:
        there = await schedules.get(connection, chosen, tenant=who.tenant)
        if there is None or not is_within(there, who.reach):
            raise NotFound("schedule not found")
        await schedules.delete(connection, chosen, tenant=who.tenant, actor=actor(request))
    return Response(status_code=204)
