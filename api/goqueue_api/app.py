"""The application: its parts, its routes, its lifetime."""

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from goqueue import logs, registry, settings
from goqueue.broker import Broker
from goqueue.orders import Order
from goqueue.registry import REGISTRY, Registry
from goqueue.service import JobService
from goqueue.settings import ApiSettings, DatabaseSettings, EngineSettings, PostgresSettings, RedisSettings
from goqueue.store import migrate
from goqueue.store.connect import Database, dsn
from goqueue_api import bulk, errors, health, jobs, queues, schedules
from goqueue_api.context import Context
from goqueue_api.middleware import Boundary
from goqueue_api.rates import Rates

BODIES = (Order, jobs.StatusChange, jobs.Outcome, schedules.SchedulePut)
"""Bodies that routes read by hand; OpenAPI must know their schemas."""


def create_app(
    database: Database,
    broker: Broker,
    *,
    api: ApiSettings,
    engine: EngineSettings,
    connect: DatabaseSettings,
    types: Registry = REGISTRY,
) -> FastAPI:
    """Build the API on stores that it opens at start-up and closes at the end.

    Raises (at start-up):
        StoreUnavailable: PostgreSQL does not answer.
        StaleSchema: migrations are missing.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await database.open(connect)
        async with database.connection() as connection:
            await migrate.check(connection)
        service = JobService(database, broker)
        app.state.context = Context(service, types, engine.queues, Rates())
        try:
            yield
        finally:
            await service.close()
            await broker.close()
            await database.close()

    app = FastAPI(
        title="GoQueue",
        summary="Background jobs on PostgreSQL and Redis.",
        version=version("goqueue"),
        lifespan=lifespan,
        docs_url="/docs" if api.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if api.docs else None,
        redirect_slashes=False,
    )
    errors.install(app)
    app.add_middleware(
        Boundary,
        seconds=api.request_timeout,
        max_bytes=api.max_body_bytes,
        max_bulk_bytes=api.max_bulk_body_bytes,
    )
    for part in (bulk, jobs, queues, schedules, health):
        app.include_router(part.router)
    _document_bodies(app)
    return app


def _document_bodies(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            for model in BODIES:
                found = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(found.pop("$defs", {}))
                schemas[model.__name__] = found
            # FastAPI documents 422 for parameters; ours is 400 in the one shape.
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def from_environment() -> FastAPI:
    """The API as the environment says; uvicorn's factory, called in each server process."""
    engine = settings.load(EngineSettings)
    logs.configure(engine, process="api")
    import goqueue.builtin  # noqa: F401 - registers the three built-in types

    registry.load(engine.jobs)
    api, connect = settings.load(ApiSettings), settings.load(DatabaseSettings)
    database = Database(
        dsn(settings.load(PostgresSettings), connect),
        connect,
        minimum=min(2, connect.max_open_conns),
        maximum=connect.max_open_conns,
        statement_timeout=api.request_timeout,
        wait=api.request_timeout / 2,  # so that a database that is away is told from a request that takes long
    )
    broker = Broker(settings.load(RedisSettings))
    return create_app(database, broker, api=api, engine=engine, connect=connect)
