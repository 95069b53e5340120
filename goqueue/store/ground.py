"""What must be true of a schema before the migrations touch it: it may be written to, and its tables are ours."""

from typing import Any, Final

import psycopg

from goqueue.errors import UnfitDatabase

_OF_THE_GO_PROJECT: Final = {
    "id",
    "queue",
    "payload",
    "status",
    "attempts",
    "max_retries",
    "result",
    "error",
    "created_at",
    "updated_at",
}
"""Columns of `jobs` in every version of the Go project, whose table the first migration adopts."""

MADE_BY: Final[dict[str, tuple[str, set[str]]]] = {
    "jobs": ("0001", _OF_THE_GO_PROJECT),
    "job_attempts": ("0002", set()),
    "job_logs": ("0002", set()),
    "workers": ("0002", set()),
    "queues": ("0002", set()),
    "schedules": ("0002", set()),
    "leaders": ("0002", set()),
    "dispatch_floor": ("0002", set()),
    "api_keys": ("0003", {"prefix", "digest", "former_digest", "former_until", "scopes"}),
    "audit_log": ("0003", {"at", "actor", "tenant", "action", "object", "address", "request_id", "details"}),
    "idempotency_keys": ("0005", set()),
    "installation": ("0006", set()),
    "payment_declines": ("0006", set()),
}
"""The revision that makes a table, and columns by which one is known that may be there before: the Go project's, and
those of a migration that may be repeated. None: no table of that name may be there."""

_PLACE = """
SELECT current_user, current_schema(), current_database(),
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)
"""

_VERSION_THERE = "SELECT to_regclass('goqueue_schema') IS NOT NULL"

_COLUMNS = """
SELECT relname, array_agg(attname::text) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(%s) AND attnum > 0 AND NOT attisdropped
GROUP BY relname ORDER BY relname
"""


def check_ground(connection: psycopg.Connection[Any]) -> None:
    """Look before anything is altered.

    Raises:
        UnfitDatabase: the role may not create tables, or a table by one of our names is somebody else's.
    """
    place = connection.execute(_PLACE).fetchone()
    assert place is not None  # noqa: S101 - a SELECT without FROM
    user, schema, database, may_create = place
    own = _own_schema(user, database)
    if schema is None:
        raise UnfitDatabase(f'no schema of the search_path of role "{user}" exists: {own}')
    current = _current(connection)
    if current is None and not may_create:
        raise UnfitDatabase(
            f'role "{user}" may not create tables in schema "{schema}": GRANT CREATE ON SCHEMA "{schema}" TO "{user}",'
            f" or give it a schema of its own: {own}"
        )
    missing = {name: known for name, (revision, known) in MADE_BY.items() if current is None or revision > current}
    for name, columns in connection.execute(_COLUMNS, (list(missing),)).fetchall():
        if not missing[name] or missing[name] - set(columns):
            raise UnfitDatabase(
                f'table "{name}" in schema "{schema}" is not GoQueue\'s; give GoQueue a schema of its own: {own}'
            )


def _current(connection: psycopg.Connection[Any]) -> str | None:
    there = connection.execute(_VERSION_THERE).fetchone()
    if there is None or not there[0]:
        return None
    row = connection.execute("SELECT version_num FROM goqueue_schema").fetchone()
    return str(row[0]) if row else None


def _own_schema(user: str, database: str) -> str:
    return (
        f'CREATE SCHEMA goqueue AUTHORIZATION "{user}"; ALTER ROLE "{user}" IN DATABASE "{database}"'
        " SET search_path = goqueue"
    )
