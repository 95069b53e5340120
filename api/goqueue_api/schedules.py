"""Cron schedules: create or replace, show, pause, resume, run now, delete."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from goqueue.access import Scope
from goqueue.errors import Conflict, Forbidden, NotFound
from goqueue.store import schedules
from goqueue_api import examples
from goqueue_api.access import needs
from goqueue_api.bodies import body_of, json_response, read
from goqueue_api.context import actor, caller, context
from goqueue_api.errors import documented
from goqueue_api.middleware import traceparent
from goqueue_api.plans import SchedulePut, first_tick, is_within, schedule_name, schedule_view, template
from goqueue_api.routing import Direct
from goqueue_api.schedule_acts import run_now, switch
from goqueue_api.views import JobView, ScheduleView, created_view, job_view

router = APIRouter(tags=["schedules"], route_class=Direct)


@router.get("/schedules/{name}", summary="Show a schedule", response_model=ScheduleView, responses=documented(400, 404))
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
    summary="Create or replace a schedule",
    response_model=ScheduleView,
    responses={**documented(400, 413), 201: {"model": ScheduleView, "description": "Created."}},
    openapi_extra=body_of(SchedulePut, examples=examples.SCHEDULE),
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
            template(wanted, job),
            wanted.enabled,
            next_tick,
            database.keyring,
            tenant=who.tenant,
            actor=actor(request),
        )
    return json_response(schedule_view(schedule), 201 if created else 200)


@router.post(
    "/schedules/{name}/pause", summary="Pause a schedule", response_model=ScheduleView, responses=documented(400, 404)
)
@needs(Scope.SCHEDULES_MANAGE)
async def pause(request: Request, name: str) -> Response:
    """Let the schedule fire no more until it is resumed; its definition stays."""
    return await _switch(request, name, enabled=False)


@router.post(
    "/schedules/{name}/resume", summary="Resume a schedule", response_model=ScheduleView, responses=documented(400, 404)
)
@needs(Scope.SCHEDULES_MANAGE)
async def resume(request: Request, name: str) -> Response:
    """Let a paused schedule fire again, next at the first tick from now on."""
    return await _switch(request, name, enabled=True)


async def _switch(request: Request, name: str, *, enabled: bool) -> Response:
    database, who = context(request).service.database, caller(request)
    changed = await switch(database, schedule_name(name), who.tenant, actor(request), enabled=enabled)
    return json_response(schedule_view(changed))


@router.post(
    "/schedules/{name}/run",
    summary="Run a schedule now",
    status_code=201,
    response_model=JobView,
    responses={
        **documented(400, 404, 409),
        200: {"model": JobView, "description": "A job with the template's `unique_key` has not ended yet: that job."},
    },
)
@needs(Scope.SCHEDULES_MANAGE)
async def run(request: Request, name: str) -> Response:
    """Create the schedule's job now, paused or not. When it fires next does not change."""
    parts, who = context(request), caller(request)

    async def admit() -> None:
        if parts.quotas is not None:
            await parts.quotas.admit(who.tenant, 1)

    order, made = await run_now(
        parts.service,
        parts.registry,
        parts.queues,
        schedule_name(name),
        who.tenant,
        actor(request),
        trace_context=traceparent(request.scope),
        admit=admit,
    )
    if made.created:
        return json_response(created_view(order, made), 201)
    try:
        return json_response(job_view(await parts.service.get(made.id, who.reach)))
    except NotFound:
        raise Conflict("the job with this key was deleted and has not ended yet", {"id": made.id}) from None


@router.delete("/schedules/{name}", summary="Delete a schedule", status_code=204, responses=documented(400, 404))
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
