"""Is it alive, is it ready."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from goqueue.errors import BrokerUnavailable
from goqueue.service import promptly
from goqueue.store import migrate
from goqueue_api.access import open_to_all
from goqueue_api.bodies import json_response
from goqueue_api.context import context
from goqueue_api.errors import documented
from goqueue_api.routing import Direct
from goqueue_api.views import Health

router = APIRouter(tags=["health"], route_class=Direct)


@router.get(
    "/", summary="Check that the API answers (root)", response_model=Health, responses=documented(), name="root"
)
@router.get(
    "/health", summary="Check that the API answers", response_model=Health, responses=documented(), name="health"
)
@router.get("/livez", summary="Liveness probe", response_model=Health, responses=documented())
@open_to_all
async def live(_: Request) -> Response:
    """The process answers."""
    return json_response({"status": "ok"})


@router.get("/health/db", summary="Check the database", response_model=Health, responses=documented())
@open_to_all
async def database(request: Request) -> Response:
    """PostgreSQL answers."""
    async with context(request).service.database.connection() as connection:
        await connection.execute("SELECT 1")
    return json_response({"status": "ok"})


@router.get("/readyz", summary="Readiness probe", response_model=Health, responses=documented())
@open_to_all
async def ready(request: Request) -> Response:
    """Jobs can be accepted: PostgreSQL answers and has the schema. Redis away is `degraded`: they still are."""
    service = context(request).service
    async with service.database.connection() as connection:
        await migrate.check(connection)
    try:
        await promptly(service.broker.ping())
    except BrokerUnavailable:
        return json_response({"status": "degraded", "redis": "unavailable"})
    return json_response({"status": "ok"})
