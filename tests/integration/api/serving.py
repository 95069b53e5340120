"""The API in this process on real stores, for tests that look inside or make many calls."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI

import goqueue.builtin  # noqa: F401 - registers the types that the tests ask for
from goqueue import key_management
from goqueue.access import Actor, Scope
from goqueue.broker import Broker
from goqueue.key_management import NewKey
from goqueue.settings import ApiSettings, DatabaseSettings, EngineSettings, OidcSettings
from goqueue.store.connect import Database
from goqueue_api.app import create_app
from tests.integration.engine import Engine

OWNER = Actor("cli:test")


def app_on(engine: Engine, *, oidc: OidcSettings | None = None, pgbouncer: bool = False, **api: Any) -> FastAPI:
    """The app on the engine's stores with connections of its own; keys are required unless `api` says otherwise."""
    connect = DatabaseSettings(max_retries=0, pgbouncer=pgbouncer)
    return create_app(
        Database(engine.dsn, connect, maximum=4),
        Broker(engine.redis),
        api=ApiSettings(**{"auth": "required", **api}),
        engine=EngineSettings(),
        connect=connect,
        oidc=oidc,
    )


@contextlib.asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, which runs meanwhile."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=("192.0.2.7", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            yield client


async def new_key(engine: Engine, *scopes: Scope | str, **more: Any) -> dict[str, str]:
    """The headers of a key made just now; all scopes where none is named."""
    wanted = NewKey(name="test", scopes=set(map(Scope, scopes or Scope)), **more)
    _, token = await key_management.create(engine.database, wanted, OWNER)
    return {"Authorization": f"Bearer {token.text}"}
