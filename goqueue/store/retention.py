"""Retention of jobs: which are past their age, and their deletion."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from goqueue.store.bounds import in_index_order
from goqueue.store.connect import Connection, fetch_all

CHUNK = 5000
"""Rows that are looked at together."""

PAST: Final[LiteralString] = """
WITH chunk AS MATERIALIZED (
    SELECT id, created_at, finished_at, status FROM jobs WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
)
SELECT array_agg(id ORDER BY id) FILTER (WHERE finished_at < now() - make_interval(secs =>
        CASE WHEN status = 'completed' THEN %(completed)s ELSE %(failed)s END)),
    max(id), min(created_at)
FROM chunk
"""

DELETE: Final[LiteralString] = """
DELETE FROM jobs WHERE id IN (
    SELECT id FROM jobs WHERE id = ANY(%(ids)s::bigint[]) AND finished_at IS NOT NULL
        AND finished_at < now() - make_interval(secs => CASE WHEN status = 'completed' THEN %(completed)s
            ELSE %(failed)s END)
    FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class Keep:
    """Seconds for which final jobs are kept: completed ones, and those that failed or were cancelled."""

    completed: float
    failed: float


@dataclass(frozen=True, slots=True)
class Past:
    """One chunk of a walk by id: the jobs past their age, the last id looked at (None at the table's end) and the
    oldest creation time."""

    ids: list[int]
    through: int | None
    oldest: datetime | None


async def past(connection: Connection, after: int, keep: Keep, limit: int | None = None) -> Past:
    """Look at the next chunk of jobs."""
    parameters = {"after": after, "limit": limit or CHUNK, "completed": keep.completed, "failed": keep.failed}
    async with in_index_order(connection):
        [[ids, through, oldest]] = await fetch_all(connection, PAST, parameters)
    return Past(ids or [], through, oldest)


async def delete(connection: Connection, ids: Sequence[int], keep: Keep) -> int:
    """Delete those of these jobs that are past their age; how many there were. Locked ones are left for later."""
    parameters = {"ids": list(ids), "completed": keep.completed, "failed": keep.failed}
    return (await connection.execute(DELETE, parameters)).rowcount
