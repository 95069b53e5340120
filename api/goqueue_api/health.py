"""Is it alive, is it ready, which job types does it know."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from goqueue.errors import BrokerUnavailable
from goqueue.store import migrate
from goqueue_api.bodies import json_response
from goqueue_api.context import context
from goqueue_api.errors import documented
from goqueue_api.views import Health, TypeView

router = APIRouter(tags=["health"])


@router.get("/", response_model=Health, responses=documented())
@router.get("/health", response_model=Health, responses=documented())
@router.get("/livez", response_model=Health, responses=documented())
async def live() -> Response:
    """The process answers."""
    return json_response({"status": "ok"})


@router.get("/health/db", response_model=Health, responses=documented())
async def database(request: Request) -> Response:
    """PostgreSQL answers."""
    async with context(request).service.database.connection() as connection:
        await connection.execute("SELECT 1")
    return json_response({"status": "ok"})


@router.get("/readyz", response_model=Health, responses=documented())
async def ready(request: Request) -> Response:
    """Jobs can be accepted: PostgreSQL answers and has the schema. Redis away is `degraded`: they still are."""
    service = context(request).service
    async with service.database.connection() as connection:
        await migrate.check(connection)
    try:
        await service.broker.ping()
    except BrokerUnavailable:
        return json_response({"status": "degraded", "redis": "unavailable"})
    return json_response({"status": "ok"})


@router.get("/types", response_model=list[TypeView], responses=documented(), tags=["types"])
async def types(request: Request) -> Response:
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
