"""Making, closing and changing API keys: the rules of `goqueue keys` and of the routes under /admin/keys.

Nobody hands out more than they have: a key made with a key has a part of its scopes, within its reach. Nobody rotates
or revokes a key that may do more than they may. A manager of the default tenant manages the keys of all tenants.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints

from goqueue.access import ALL_SCOPES, TENANT, Actor, Reach, Scope
from goqueue.errors import Conflict, Forbidden, NotFound
from goqueue.keys import ApiKey, Token
from goqueue.store import audit, keys
from goqueue.store.audit import Action
from goqueue.store.connect import Database

GRACE: Final = 3600.0
"""Seconds that the former secret stays good after a rotation, where nothing else is said."""
MAX_GRACE: Final = 30 * 86_400.0
MAX_LIFE: Final = 10 * 366 * 86_400.0

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Names = Annotated[set[Name], Strict(False), Field(min_length=1, max_length=1000)]


class NewKey(BaseModel):
    """What is to be said of a new key. Queues and types it may be used for: all where nothing is said."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Name
    scopes: Annotated[set[Annotated[Scope, Strict(False)]], Strict(False), Field(min_length=1)]
    tenant: Annotated[str, StringConstraints(pattern=f"^{TENANT.pattern}$")] | None = Field(
        None, description="The default tenant where nothing is said, or that of the key that makes it."
    )
    queues: Names | None = None
    types: Names | None = None
    expires_in: Annotated[float, Field(gt=0, le=MAX_LIFE, allow_inf_nan=False)] | None = Field(
        None, description="Seconds from now; never where nothing is said."
    )


class Rotation(BaseModel):
    """How a key gets another secret."""

    model_config = ConfigDict(extra="forbid", strict=True)
    grace: Annotated[float, Field(ge=0, le=MAX_GRACE, allow_inf_nan=False)] = Field(
        GRACE, description="Seconds that the former secret stays good."
    )


async def create(
    database: Database, wanted: NewKey, actor: Actor, scopes: frozenset[Scope] = ALL_SCOPES
) -> tuple[ApiKey, Token]:
    """Make a key; the token is shown now and never again. `scopes` are those of the actor.

    Raises:
        Forbidden: the actor has less than it wants to give.
    """
    reach = Reach(wanted.tenant, _frozen(wanted.queues), _frozen(wanted.types))
    if actor.reach is not None and reach.tenant is None:
        reach = Reach(actor.reach.tenant, reach.queues, reach.types)
    _check_gift(reach, frozenset(wanted.scopes), actor, scopes)
    token = Token.new()
    expires_at = None if wanted.expires_in is None else datetime.now(UTC) + timedelta(seconds=wanted.expires_in)
    key = ApiKey(token.prefix, wanted.name, token.digest, frozenset(wanted.scopes), reach, expires_at=expires_at)
    async with database.connection() as connection, connection.transaction():
        made = await keys.add(connection, key)
        if made is None:
            raise Conflict("the prefix drawn for the key is taken, try again")
        details = {"name": made.name, **grants(made)}
        await audit.record(connection, actor, Action.KEY_CREATED, made.prefix, tenant=reach.tenant, details=details)
    return made, token


def grants(key: ApiKey) -> dict[str, Any]:
    """What a key gives, as one may show it."""
    return {
        "scopes": sorted(key.scopes),
        "tenant": key.reach.tenant,
        "queues": None if key.reach.queues is None else sorted(key.reach.queues),
        "types": None if key.reach.types is None else sorted(key.reach.types),
    }


def _check_gift(reach: Reach, wanted: frozenset[Scope], actor: Actor, scopes: frozenset[Scope]) -> None:
    missing = sorted(scope.value for scope in wanted - scopes)
    if missing:
        raise Forbidden("forbidden", {"scopes": missing})
    own = actor.reach
    if own is None:
        return
    if own.tenant is None:
        own = Reach(reach.tenant, own.queues, own.types)
    if not own.includes(reach):
        raise Forbidden("forbidden", {"reach": "a key can do more than its manager: in queues, types or tenants"})


async def find_all(database: Database, actor: Actor) -> list[ApiKey]:
    """The keys that the actor manages."""
    tenant, everywhere = _managed(actor)
    async with database.connection() as connection:
        return await keys.find_all(connection, tenant=tenant, all_tenants=everywhere)


async def revoke(database: Database, prefix: str, actor: Actor, scopes: frozenset[Scope] = ALL_SCOPES) -> ApiKey:
    """Close a key for good. `scopes` are those of the actor.

    Raises:
        NotFound: there is none that the actor manages.
        Forbidden: the actor has less than the key gives.
    """
    async with database.connection() as connection, connection.transaction():
        key = _managed_by(actor, await keys.find(connection, prefix))
        _check_gift(key.reach, key.scopes, actor, scopes)
        key = _managed_by(actor, await keys.revoke(connection, prefix))
        await audit.record(connection, actor, Action.KEY_REVOKED, prefix, tenant=key.reach.tenant)
    return key


async def rotate(
    database: Database, prefix: str, wanted: Rotation, actor: Actor, scopes: frozenset[Scope] = ALL_SCOPES
) -> tuple[ApiKey, Token]:
    """Give a key another secret; the one of now stays good for the grace. The secret of before that ends at once.

    Raises:
        NotFound: there is none that the actor manages.
        Conflict: it was revoked.
        Forbidden: the actor has less than the key gives.
    """
    token = Token.new(prefix)
    async with database.connection() as connection, connection.transaction():
        there = _managed_by(actor, await keys.find(connection, prefix))
        _check_gift(there.reach, there.scopes, actor, scopes)
        key = await keys.rotate(connection, prefix, token.digest, wanted.grace)
        if key is None:
            raise Conflict("a revoked key cannot be rotated")
        details = {"grace": wanted.grace}
        await audit.record(connection, actor, Action.KEY_ROTATED, prefix, tenant=key.reach.tenant, details=details)
    return key, token


async def add_bootstrap(database: Database, token: Token) -> None:
    """Let the key of the settings in, with all scopes, where it is not known yet. What became of it since stays so."""
    key = ApiKey(token.prefix, "bootstrap", token.digest, ALL_SCOPES, Reach())
    async with database.connection() as connection, connection.transaction():
        if await keys.add(connection, key) is not None:
            await audit.record(connection, Actor("bootstrap"), Action.KEY_CREATED, key.prefix)


def _managed(actor: Actor) -> tuple[str | None, bool]:
    """The tenant whose keys the actor manages, and whether those of all."""
    tenant = actor.reach.tenant if actor.reach is not None else None
    return tenant, tenant is None


def _managed_by(actor: Actor, key: ApiKey | None) -> ApiKey:
    tenant, everywhere = _managed(actor)
    if key is None or not (everywhere or key.reach.tenant == tenant):
        raise NotFound("key not found")
    return key


def _frozen(names: set[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
