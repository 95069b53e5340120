"""The audit log: who did what, written in the transaction of the deed itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, LiteralString

import orjson
from psycopg.rows import class_row

from goqueue.access import Actor
from goqueue.store.connect import Connection, fetch_all

RECORD: Final[LiteralString] = """
INSERT INTO audit_log (actor, tenant, action, object, address, request_id, details)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""

LIST: Final[LiteralString] = """
SELECT id, at, actor, tenant, action, object, address, request_id, details FROM audit_log
WHERE id < %(before)s AND (%(all)s OR tenant IS NOT DISTINCT FROM %(tenant)s)
ORDER BY id DESC LIMIT %(limit)s
"""

PAST: Final[LiteralString] = """
SELECT id, at FROM audit_log WHERE at < now() - make_interval(secs => %s) AND (at, id) > (%s, %s)
ORDER BY at, id LIMIT %s
"""


class Action(StrEnum):
    """What is written down."""

    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    KEY_ROTATED = "key.rotated"
    QUEUE_PAUSED = "queue.paused"
    QUEUE_RESUMED = "queue.resumed"
    SCHEDULE_PUT = "schedule.put"
    SCHEDULE_PAUSED = "schedule.paused"
    SCHEDULE_RESUMED = "schedule.resumed"
    SCHEDULE_RUN = "schedule.run"
    SCHEDULE_DELETED = "schedule.deleted"
    JOB_CANCELLED = "job.cancelled"
    JOB_RETRIED = "job.retried"
    JOB_DELETED = "job.deleted"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of `audit_log`. `tenant` is that of the object."""

    id: int
    at: datetime
    actor: str
    tenant: str | None
    action: str
    object: str
    address: str | None
    request_id: str | None
    details: dict[str, Any] | None


async def record(
    connection: Connection,
    actor: Actor,
    action: Action,
    object: str | int,
    *,
    tenant: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down an act; in the caller's transaction, so that neither is there without the other."""
    values = (actor.id, tenant, action.value, str(object), actor.address, actor.request_id)
    await connection.execute(RECORD, (*values, None if details is None else orjson.dumps(details).decode()))


async def find(
    connection: Connection, *, tenant: str | None, all_tenants: bool, before: int, limit: int
) -> list[Entry]:
    """One page, the newest first; `before` is the id of the last one of the page before."""
    cursor = connection.cursor(row_factory=class_row(Entry))
    await cursor.execute(LIST, {"tenant": tenant, "all": all_tenants, "before": before, "limit": limit})
    return await cursor.fetchall()


async def past(
    connection: Connection, keep: float, after: tuple[datetime, int], limit: int
) -> list[tuple[int, datetime]]:
    """Entries older than `keep` seconds, from the oldest on, after the one of this time and id: their ids and times."""
    return [(row[0], row[1]) for row in await fetch_all(connection, PAST, (keep, *after, limit))]


async def delete(connection: Connection, ids: Sequence[int]) -> int:
    """Delete these entries; how many there were."""
    return (await connection.execute("DELETE FROM audit_log WHERE id = ANY(%s)", (list(ids),))).rowcount
