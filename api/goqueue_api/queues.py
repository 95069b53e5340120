"""Queues: how deep, how old, how fast; pause and resume."""

from collections.abc import Collection

from fastapi import APIRouter, Request
from starlette.responses import Response

from goqueue.access import Scope
from goqueue.errors import Forbidden
from goqueue.overview import seen
from goqueue_api.access import needs
from goqueue_api.bodies import json_response
from goqueue_api.context import actor, caller, context, known_queue
from goqueue_api.errors import documented
from goqueue_api.overview import overview
from goqueue_api.routing import Direct
from goqueue_api.views import QueuesView

router = APIRouter(tags=["queues"], route_class=Direct)


@router.get("/queues", summary="List queues", response_model=QueuesView, responses=documented())
@needs(Scope.JOBS_READ)
async def show(request: Request) -> Response:
    """Every queue as it is now."""
    parts = context(request)
    return json_response(await overview(parts.service, parts.queues, parts.rates, caller(request).reach))


@router.post("/queues/{name}/pause", summary="Pause a queue", status_code=204, responses=documented(400))
@needs(Scope.QUEUES_MANAGE)
async def pause(request: Request, name: str) -> Response:
    """Let no worker fetch from the queue; running jobs go on, new ones are accepted."""
    await context(request).service.pause(await _managed(request, name), actor(request))
    return Response(status_code=204)


@router.post("/queues/{name}/resume", summary="Resume a queue", status_code=204, responses=documented(400))
@needs(Scope.QUEUES_MANAGE)
async def resume(request: Request, name: str) -> Response:
    """Let workers fetch from the queue again."""
    await context(request).service.resume(await _managed(request, name), actor(request))
    return Response(status_code=204)


async def _managed(request: Request, name: str) -> str:
    """A queue that the caller may pause. All tenants and types share queues: a caller with a tenant, or restricted to
    types, pauses only those that its key names."""
    parts, who = context(request), caller(request)
    known: Collection[str] = parts.queues
    if name not in known and who.tenant is None and who.queues is None:
        known = [*known, *await seen(parts.service)]  # those of types that this process has not loaded
    queue = known_queue(name, known)
    who.check_use(queue)
    if who.queues is None and (who.tenant is not None or who.types is not None):
        raise Forbidden("forbidden", {"queue": queue})
    return queue
