"""Which job types there are."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from goqueue.access import Scope
from goqueue_api.access import needs
from goqueue_api.bodies import json_response
from goqueue_api.context import context
from goqueue_api.errors import documented
from goqueue_api.routing import Direct
from goqueue_api.views import TypeView

router = APIRouter(tags=["types"], route_class=Direct)


@router.get("/types", summary="List job types", response_model=list[TypeView], responses=documented())
@needs(Scope.JOBS_READ)
async def find(request: Request) -> Response:
    """The job types, each with the JSON Schema of its payload."""
    return json_response(
        [
            {
                "name": kind.name,
                "description": kind.description,
                "queue": kind.queue,
                "timeout": kind.timeout,
                "payload": kind.payload.model_json_schema(),
            }
            for kind in sorted(context(request).registry, key=lambda kind: kind.name)
        ]
    )
