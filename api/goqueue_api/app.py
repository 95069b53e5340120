"""The application: its parts, its routes, its lifetime."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any, Final

import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from goqueue import encryption, logs, metrics, registry, settings, tracing
from goqueue.broker import Broker
from goqueue.errors import ForeignBroker
from goqueue.gauges import watch_stores
from goqueue.queues import Queues
from goqueue.registry import REGISTRY, Registry
from goqueue.service import JobService
from goqueue.settings import (
    ApiSettings,
    DatabaseSettings,
    EncryptionSettings,
    EngineSettings,
    OidcSettings,
    PostgresSettings,
    RedisSettings,
)
from goqueue.store import installation, migrate
from goqueue.store.connect import Database, dsn
from goqueue.tasks import end_all
from goqueue_api import (
    admin,
    bulk,
    docs,
    errors,
    health,
    job_types,
    jobs,
    listing,
    openapi,
    queues,
    schedule_list,
    schedules,
)
from goqueue_api.access import Authenticator, Gate, check_decided, open_to_all
from goqueue_api.api_keys import ApiKeys
from goqueue_api.context import Context
from goqueue_api.memory import Memory
from goqueue_api.middleware import Boundary
from goqueue_api.openness import Openness, is_open
from goqueue_api.quotas import Quotas
from goqueue_api.rates import Rates
from goqueue_api.routing import Methods, all_routes
from goqueue_api.throttle import Limits, RedisCounter

PARTS: Final = (bulk, jobs, listing, queues, schedule_list, schedules, job_types, admin, health)
"""The modules whose `router` holds routes; the hot one is found early."""

log = structlog.get_logger(__name__)

CORS: Final[dict[str, Any]] = {
    "allow_methods": ["GET", "HEAD", "POST", "PUT", "DELETE"],
    "allow_headers": ["Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID", "traceparent"],
    "expose_headers": ["X-Request-ID", "Link", "RateLimit", "RateLimit-Policy", "Retry-After"],
    "allow_credentials": False,  # callers are known by a header, never by a cookie
    "max_age": 600,
}
"""What scripts of allowed web pages may do."""


def create_app(
    database: Database,
    broker: Broker,
    *,
    api: ApiSettings,
    engine: EngineSettings,
    connect: DatabaseSettings,
    oidc: OidcSettings | None = None,
    types: Registry = REGISTRY,
) -> FastAPI:
    """Build the API on stores that it opens at start-up and closes at the end.

    Raises (at start-up):
        StoreUnavailable: PostgreSQL does not answer.
        StaleSchema: migrations are missing.
        Undecided: a route does not say what it asks of its callers (at once).
    """

    memory = Memory(max(api.max_body_bytes, api.max_bulk_body_bytes), 0.4 * api.request_timeout)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await database.open(connect)
        async with database.connection() as connection:
            await migrate.check(connection)
            anybody = await is_open(api, oidc, connection)
            broker.installation = await installation.read(connection)
        openness = Openness(database, api.key_cache, open=anybody, for_good=api.auth != "auto")
        service = JobService(database, broker)
        rates = Rates()
        api_keys = ApiKeys(database, api.key_cache)
        watching = [
            asyncio.create_task(api_keys.watch(), name="keys"),
            asyncio.create_task(rates.watch(service), name="rates"),
            asyncio.create_task(_watch_stores(database, broker, api.processes), name="stores"),
        ]
        limits = None
        if api.rate_limit or api.address_rate_limit:
            limits = Limits(api.rate_limit, api.address_rate_limit, RedisCounter(broker.client, broker.prefix))
        ways: list[Authenticator] = [api_keys]
        if oidc is not None and oidc.issuer:
            from goqueue_api.jwks import KeySet  # brings cryptography along, which most do without
            from goqueue_api.oidc import Tokens

            issuer_keys = KeySet(oidc)
            ways.append(Tokens(oidc, issuer_keys))
            watching.append(asyncio.create_task(issuer_keys.watch(), name="jwks"))
        quotas = None
        if api.tenant_quota:
            quotas = Quotas(database, api.tenant_quota)
            watching.append(asyncio.create_task(quotas.watch(), name="quotas"))
        gate = Gate(ways, openness=openness, limits=limits)
        known = Queues(types, engine.queues)
        app.state.context = Context(
            service, types, known, rates, gate, memory, quotas, search_seconds=0.3 * api.request_timeout
        )
        try:
            yield
        finally:
            await end_all(watching)
            await asyncio.gather(*watching, return_exceptions=True)
            await service.close()
            await broker.close()
            await database.close()
            await asyncio.to_thread(tracing.end)

    app = FastAPI(
        title="GoQueue",
        summary="Background jobs on PostgreSQL and Redis.",
        description=openapi.DESCRIPTION,
        version=version("goqueue"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if api.docs else None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        # FastAPI's own spans tell the whole query, and would stand beside ours.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    parts = (*PARTS, docs) if api.docs else PARTS
    routes = [route for part in parts for route in part.router.routes if isinstance(route, APIRoute)]
    errors.install(app, Methods(routes))
    app.add_middleware(
        Boundary,
        seconds=api.request_timeout,
        max_bytes=api.max_body_bytes,
        max_bulk_bytes=api.max_bulk_body_bytes,
        memory=memory,
    )
    if tracing.on is not None:
        from goqueue_api.tracing import Traced

        app.add_middleware(Traced, spans=tracing.on)
    if api.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=api.cors_origins, **CORS)
    for route in app.routes:
        if isinstance(route, Route) and route.path == app.openapi_url:
            open_to_all(route.endpoint)
    for part in parts:
        app.include_router(part.router)
    check_decided(all_routes(app))
    openapi.install(app)
    return app


async def _watch_stores(database: Database, broker: Broker, processes: int) -> None:
    """Watch until cancelled. A Redis that has become another installation's ends the API, all of its processes."""
    try:
        await watch_stores(database, broker)
    except ForeignBroker as error:
        log.error(error.message)
        if processes > 1:
            os.kill(os.getppid(), signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)


def from_environment() -> FastAPI:
    """The API as the environment says; uvicorn's factory, called in each server process."""
    engine = settings.load(EngineSettings)
    logs.configure(engine, process="api")
    import goqueue.builtin  # noqa: F401 - registers the three built-in types

    registry.load(engine.jobs)
    tracing.begin("api")
    metrics.begin("api", Queues(REGISTRY, engine.queues), REGISTRY.names())
    api, connect = settings.load(ApiSettings), settings.load(DatabaseSettings)
    database = Database(
        dsn(settings.load(PostgresSettings), connect),
        connect,
        minimum=max(1, min(connect.max_idle_conns, connect.max_open_conns)),
        maximum=connect.max_open_conns,
        statement_timeout=api.request_timeout,
        wait=api.request_timeout / 2,  # so that a database that is away is told from a request that takes long
        keyring=encryption.load(settings.load(EncryptionSettings)),
    )
    broker = Broker(settings.load(RedisSettings))
    return create_app(database, broker, api=api, engine=engine, connect=connect, oidc=settings.load(OidcSettings))
