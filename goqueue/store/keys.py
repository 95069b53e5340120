"""API keys as they are stored. `goqueue.key_management` says who may make which."""

from collections.abc import Collection
from typing import Any, Final, LiteralString

from goqueue.access import Reach, Scope
from goqueue.keys import ApiKey
from goqueue.store.connect import Connection, fetch_all

COLUMNS: Final[LiteralString] = """prefix, name, digest, scopes, tenant, queues, types, former_digest, former_until,
    created_at, expires_at, revoked_at, last_used_at"""

FIND: Final[LiteralString] = "SELECT " + COLUMNS + " FROM api_keys WHERE prefix = %s"

LIST: Final[LiteralString] = (
    "SELECT " + COLUMNS + " FROM api_keys WHERE %(all)s OR tenant IS NOT DISTINCT FROM %(tenant)s"
    " ORDER BY created_at, prefix"
)

EXIST: Final[LiteralString] = "SELECT EXISTS (SELECT FROM api_keys)"

ADD: Final[LiteralString] = (
    "INSERT INTO api_keys (prefix, name, digest, scopes, tenant, queues, types, expires_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (prefix) DO NOTHING RETURNING " + COLUMNS
)

REVOKE: Final[LiteralString] = (
    "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()), former_digest = NULL, former_until = NULL"
    " WHERE prefix = %s RETURNING " + COLUMNS
)

ROTATE: Final[LiteralString] = (
    "UPDATE api_keys SET digest = %(digest)s, former_digest = digest,"
    " former_until = now() + make_interval(secs => %(grace)s)"
    " WHERE prefix = %(prefix)s AND revoked_at IS NULL RETURNING " + COLUMNS
)

USED: Final[LiteralString] = """
UPDATE api_keys SET last_used_at = now()
WHERE prefix = ANY(%s) AND (last_used_at IS NULL OR last_used_at < now() - make_interval(secs => %s))
"""


def _key(row: Any) -> ApiKey:
    prefix, name, digest, scopes, tenant, queues, types, *rest = row
    reach = Reach(tenant, _set(queues), _set(types))
    return ApiKey(prefix, name, digest, frozenset(map(Scope, scopes)), reach, *rest)


def _set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _list(names: Collection[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


async def _one(connection: Connection, statement: LiteralString, parameters: Any) -> ApiKey | None:
    rows = await fetch_all(connection, statement, parameters)
    return _key(rows[0]) if rows else None


async def find(connection: Connection, prefix: str) -> ApiKey | None:
    """The key with this prefix, whether it is good or not."""
    return await _one(connection, FIND, (prefix,))


async def find_all(connection: Connection, *, tenant: str | None, all_tenants: bool) -> list[ApiKey]:
    """The keys of a tenant, or all, the oldest first."""
    return [_key(row) for row in await fetch_all(connection, LIST, {"tenant": tenant, "all": all_tenants})]


async def exist(connection: Connection) -> bool:
    """Whether any key was ever made."""
    return bool((await fetch_all(connection, EXIST))[0][0])


async def add(connection: Connection, key: ApiKey) -> ApiKey | None:
    """Store a new key; None where its prefix is taken."""
    scopes = sorted(scope.value for scope in key.scopes)
    reach = key.reach
    restrictions = (reach.tenant, _list(reach.queues), _list(reach.types))
    return await _one(connection, ADD, (key.prefix, key.name, key.digest, scopes, *restrictions, key.expires_at))


async def revoke(connection: Connection, prefix: str) -> ApiKey | None:
    """Close a key for good, its former secret, too; None where there is none."""
    return await _one(connection, REVOKE, (prefix,))


async def rotate(connection: Connection, prefix: str, digest: bytes, grace: float) -> ApiKey | None:
    """Give a key another secret; the one of now stays good for `grace` seconds. None where there is no open key."""
    return await _one(connection, ROTATE, {"prefix": prefix, "digest": digest, "grace": grace})


async def note_use(connection: Connection, prefixes: Collection[str], resolution: float) -> None:
    """Note that these keys were used just now; not again where that was noted within `resolution` seconds."""
    await connection.execute(USED, (sorted(prefixes), resolution))
