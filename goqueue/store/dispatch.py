"""The leader's statements: what is due, what was left behind, whose worker died, what is too old.

The floor. An open job is found by `id >= floor` or by its `dispatch_at`, so `raise_floor` may pass an id only when
every job below it is final or has a `dispatch_at`. Ids are drawn before their rows become visible; a boundary is
therefore used only once every transaction that was writing to `jobs` when it was read is over (the same wait that
PostgreSQL's own CREATE INDEX CONCURRENTLY makes, and by the same means: locks held by virtual transaction ids).
Readers, however old their snapshots, hold nothing up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from goqueue.job import ReadyJob, ready_score
from goqueue.store import sql
from goqueue.store.connect import Connection, fetch_all

CHUNK = 5000
"""Rows a sweep reads at a time."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """All ids below `next_id` belong to transactions that are over, or to `writers`; `at` is PostgreSQL's clock."""

    next_id: int
    writers: frozenset[str]
    at: datetime


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """One chunk of open jobs: those that wait and are due, those that run, and where to read on."""

    ready: list[ReadyJob]
    running: list[tuple[int, int]]
    """(job id, worker id) of jobs held by a worker."""
    read: int
    last: Any


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A registered worker."""

    id: int
    name: str
    queues: list[str]
    concurrency: int
    busy: int
    beat: int
    draining: bool
    started_at: datetime
    heartbeat_at: datetime
    stats: dict[str, Any]


def _ready(id: int, queue: str, priority: int, available_at: datetime, *, listed: bool = False) -> ReadyJob:
    return ReadyJob(id, queue, ready_score(priority, int(available_at.timestamp() * 1000)), listed)


async def due(connection: Connection, after: tuple[datetime, int]) -> list[tuple[ReadyJob, datetime]]:
    """A chunk of the waiting jobs whose `dispatch_at` came, each with it; those after the place (`dispatch_at`, id)."""
    rows = await fetch_all(connection, sql.DUE, (*after, CHUNK))
    return [(_ready(*row[:4], listed=True), row[4]) for row in rows]


async def boundary(connection: Connection) -> Boundary:
    """The next id to be drawn, and who may still be about to show a lower one. The order of the two reads matters."""
    rows = await fetch_all(connection, sql.NEXT_ID)
    return Boundary(rows[0][0], await _writers(connection), rows[0][1])


async def settled(connection: Connection, limit: Boundary) -> bool:
    """Whether every job below the boundary is visible by now (or was rolled back)."""
    return not limit.writers or not (limit.writers & await _writers(connection))


async def _writers(connection: Connection) -> frozenset[str]:
    return frozenset(row[0] for row in await fetch_all(connection, sql.WRITERS))


async def recent(connection: Connection, start: int, stop: int, limit: int = CHUNK) -> list[ReadyJob]:
    """Jobs with start <= id < stop that wait and are due; most were pushed by their enqueuer or the due sweep."""
    rows = await fetch_all(connection, sql.RECENT, (start, stop, limit))
    return [_ready(*row[:4], listed=row[4]) for row in rows]


async def open_above_floor(connection: Connection, after: int, before: int, now: datetime) -> OpenJobs:
    """A chunk of the open jobs between the floor and `before`, by id."""
    parameters = {"after": after, "before": before, "limit": CHUNK}
    rows = await fetch_all(connection, sql.OPEN_FROM, parameters)
    return _open(rows, now, rows[-1][0] if rows else after)


async def open_listed(connection: Connection, after: tuple[datetime, int], now: datetime) -> OpenJobs:
    """A chunk of the open jobs below the floor, by `dispatch_at`."""
    parameters = {"after_time": after[0], "after": after[1], "limit": CHUNK}
    rows = await fetch_all(connection, sql.OPEN_LISTED, parameters)
    return _open(rows, now, (rows[-1][6], rows[-1][0]) if rows else after)


def _open(rows: Sequence[Any], now: datetime, last: Any) -> OpenJobs:
    """Sort out rows; the seventh column is True where a job has no `dispatch_at`."""
    waiting = [row for row in rows if row[4] == "pending" and row[3] <= now]
    ready = [_ready(*row[:4], listed=row[6] is not True) for row in waiting]
    running = [(row[0], row[5]) for row in rows if row[4] == "processing" and row[5] is not None]
    return OpenJobs(ready, running, len(rows), last)


async def floor(connection: Connection) -> int:
    """The floor's present place."""
    rows = await fetch_all(connection, "SELECT id FROM dispatch_floor")
    return int(rows[0][0])


async def park(connection: Connection, start: int, stop: int) -> int:
    """Give every open job with start <= id < stop a `dispatch_at`, so that the floor may pass; how many there were."""
    cursor = await connection.execute(sql.PARK, (start, stop))
    return cursor.rowcount


async def raise_floor(connection: Connection, to: int) -> None:
    """Raise the floor; the caller has made sure that all open jobs below `to` have a `dispatch_at`."""
    await connection.execute(sql.RAISE_FLOOR, (to, to))


async def workers(connection: Connection) -> list[WorkerRow]:
    """All registered workers."""
    cursor = connection.cursor(row_factory=class_row(WorkerRow))
    await cursor.execute(sql.WORKERS)
    return await cursor.fetchall()


async def bury(connection: Connection, worker: WorkerRow) -> bool:
    """Declare a worker dead, unless it gave a sign of life since it was read."""
    return bool(await fetch_all(connection, sql.BURY_WORKER, (worker.id, worker.beat)))


async def rescue(connection: Connection, ids: Sequence[int], error: str) -> tuple[list[ReadyJob], int]:
    """Take jobs from workers that are no more: those with attempts left wait again, the others end in `failed`.

    Returns what is to be pushed, and how many were rescued in all, those that ended included. Safe to repeat.
    """
    rows = await fetch_all(connection, sql.RESCUE, {"ids": list(ids), "error": error})
    return [_ready(*row[:4], listed=True) for row in rows if row[4] == "pending"], len(rows)


async def prune(
    connection: Connection, after: int, completed: float, failed: float, chunk: int = CHUNK
) -> tuple[int, int | None, datetime | None]:
    """Delete final jobs past their retention (seconds) among the next `chunk` ids.

    Returns how many went, the last id looked at (None at the table's end) and the chunk's oldest creation time.
    """
    rows = await fetch_all(connection, sql.PRUNE_CHUNK, (after, chunk))
    through, oldest = rows[0]
    if through is None:
        return 0, None, None
    cursor = await connection.execute(
        sql.PRUNE, {"after": after, "through": through, "completed": completed, "failed": failed}
    )
    return cursor.rowcount, through, oldest


async def take_lead(connection: Connection, duty: str, holder: str, ttl: float) -> int | None:
    """Become or stay leader; the term, or None while another one's lease of `ttl` seconds runs."""
    rows = await fetch_all(connection, sql.TAKE_LEAD, {"duty": duty, "holder": holder, "ttl": ttl})
    return int(rows[0][0]) if rows else None


async def leave_lead(connection: Connection, duty: str, holder: str) -> None:
    """Step down, so that the next one need not wait."""
    await connection.execute(sql.LEAVE_LEAD, (duty, holder))
