"""Administration: API keys, and the audit log."""

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from goqueue import key_management
from goqueue.access import Scope
from goqueue.errors import Forbidden
from goqueue.job import MAX_ID
from goqueue.key_management import NewKey, Rotation
from goqueue.store import audit
from goqueue_api import examples
from goqueue_api.access import Caller, needs
from goqueue_api.bodies import body_of, json_response, read
from goqueue_api.context import actor, caller, context
from goqueue_api.errors import documented
from goqueue_api.routing import Guarded
from goqueue_api.views import key_view

router = APIRouter(tags=["admin"], route_class=Guarded)

NOT_KEPT: Final = {"cache-control": "no-store"}
"""A secret shall stand in no cache."""


class KeyView(BaseModel):
    """An API key without its secret. `queues` and `types` null: all; `tenant` null: the default tenant."""

    prefix: str
    name: str
    scopes: list[Scope]
    tenant: str | None
    queues: list[str] | None
    types: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    former_until: datetime | None


class NewKeyView(KeyView):
    """A key with its secret, which is shown this once."""

    key: str


class AuditView(BaseModel):
    """Who did what. `tenant` is that of the object."""

    id: int
    at: datetime
    actor: str
    tenant: str | None
    action: str
    object: str
    address: str | None
    request_id: str | None
    details: dict[str, Any] | None


class AuditQuery(BaseModel):
    """Which entries to list, the newest first. Pages by key: `before` is the id of the last one of the page before."""

    model_config = ConfigDict(extra="forbid")
    before: Annotated[int, Field(ge=1, le=MAX_ID, description="Last id of the page before.")] = MAX_ID
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


@router.get("/admin/keys", summary="List API keys", response_model=list[KeyView], responses=documented())
@needs(Scope.KEYS_MANAGE)
async def list_keys(request: Request) -> Response:
    """The API keys of the caller's tenant, the oldest first; of all tenants for a caller of the default tenant."""
    found = await key_management.find_all(context(request).service.database, actor(request))
    return json_response([key_view(key) for key in found])


@router.post(
    "/admin/keys",
    summary="Create an API key",
    status_code=201,
    response_model=NewKeyView,
    responses=documented(400, 413),
    openapi_extra=body_of(NewKey, examples=examples.KEY),
)
@needs(Scope.KEYS_MANAGE)
async def create_key(request: Request) -> Response:
    """Make a key with a part of what the caller may do itself. Its secret is shown in this answer only."""
    wanted = await read(request, NewKey)
    database = context(request).service.database
    key, token = await key_management.create(database, wanted, actor(request), caller(request).scopes)
    return json_response(key_view(key, token), 201, NOT_KEPT)


@router.delete("/admin/keys/{prefix}", summary="Revoke an API key", status_code=204, responses=documented(400, 404))
@needs(Scope.KEYS_MANAGE)
async def revoke_key(request: Request, prefix: str) -> Response:
    """Close a key for good; 403 for one that may do more than the caller."""
    database = context(request).service.database
    await key_management.revoke(database, prefix, actor(request), caller(request).scopes)
    return Response(status_code=204)


@router.post(
    "/admin/keys/{prefix}/rotate",
    summary="Replace a key's secret",
    response_model=NewKeyView,
    responses=documented(400, 404, 409, 413),
    openapi_extra=body_of(Rotation),
)
@needs(Scope.KEYS_MANAGE)
async def rotate_key(request: Request, prefix: str) -> Response:
    """Give a key another secret, shown in this answer only; the one of now stays good for the grace. 403 for a key that
    may do more than the caller."""
    wanted = await read(request, Rotation)
    database = context(request).service.database
    key, token = await key_management.rotate(database, prefix, wanted, actor(request), caller(request).scopes)
    return json_response(key_view(key, token), headers=NOT_KEPT)


def check_unrestricted(who: Caller) -> None:
    """See that a caller may read about all queues and types of its tenant.

    Raises:
        Forbidden: it is restricted to some.
    """
    for name, some in (("queues", who.queues), ("types", who.types)):
        if some is not None:
            raise Forbidden("forbidden", {name: f"the audit log covers all {name}"})


@router.get("/admin/audit", summary="List audit entries", response_model=list[AuditView], responses=documented(400))
@needs(Scope.KEYS_MANAGE)
async def list_audit(request: Request, query: Annotated[AuditQuery, Query()]) -> Response:
    """Who did what with the caller's tenant; with all tenants for a caller of the default tenant. 403 for a caller that
    is restricted to queues or types: the log covers all of them."""
    tenant = caller(request).tenant
    check_unrestricted(caller(request))
    async with context(request).service.database.connection() as connection:
        found = await audit.find(
            connection, tenant=tenant, all_tenants=tenant is None, before=query.before, limit=query.limit
        )
    return json_response(found)
