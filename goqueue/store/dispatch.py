"""The dispatcher's statements: what is due, what was left behind, what waits at all.

The floor. An open job is found by `id >= floor` or by its `dispatch_at`, so the floor may pass an id only when every
job below it is final or has a `dispatch_at`. Ids are drawn before their rows become visible; a boundary is therefore
used only once every transaction that was writing to `jobs` when it was read is over (the same wait that PostgreSQL's
own CREATE INDEX CONCURRENTLY makes, and by the same means: locks held by virtual transaction ids). Readers, however
old their snapshots, hold nothing up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg.rows import class_row

from goqueue.job import ReadyJob
from goqueue.rescue import Orphan
from goqueue.store.bounds import in_index_order
from goqueue.store.connect import Connection, fetch_all

CHUNK = 5000
"""Rows that a sweep reads at a time."""

Place = tuple[datetime, int]
"""Where a reader in the order of (`dispatch_at`, id) stands; rows after it come next."""

Span = tuple[int, int]
"""Ids from the first up to, but without, the second."""

SCORE: Final[LiteralString] = """
    -priority * 1e13::float8 + least(greatest(floor(date_part('epoch', available_at) * 1000), 0), 1e13::float8 - 1)
"""
"""`goqueue.job.ready_score`, where PostgreSQL reads the row: a time costs Python more than all else in it."""

# An upper bound by parameter and not by now(): a sweep notes how far it has read.
DUE: Final[LiteralString] = f"""
SELECT id, queue, {SCORE}, dispatch_at FROM jobs
WHERE (dispatch_at, id) > (%s, %s) AND dispatch_at <= %s AND status = 'pending'
ORDER BY dispatch_at, id LIMIT %s
"""

RECENT: Final[LiteralString] = f"""
SELECT job.id, job.queue, job.score, job.listed
FROM unnest(%s::bigint[], %s::bigint[]) AS span (start, stop) CROSS JOIN LATERAL (
    SELECT id, queue, {SCORE} AS score, dispatch_at IS NOT NULL AS listed FROM jobs
    WHERE id >= start AND id < stop AND status = 'pending' AND (dispatch_at IS NULL OR dispatch_at <= now())
) AS job
"""
"""With those whose `dispatch_at` came: in a long transaction it came, and was passed by, before the commit."""

UNSEEN: Final[LiteralString] = """
SELECT gap.start, gap.stop FROM unnest(%s::bigint[], %s::bigint[]) AS span (start, stop) CROSS JOIN LATERAL (
    SELECT seen + 1 AS start, lead(seen) OVER (ORDER BY seen) AS stop FROM (
        SELECT span.start - 1 AS seen
        UNION ALL SELECT id FROM jobs WHERE id >= span.start AND id < span.stop
        UNION ALL SELECT span.stop
    ) AS ids
) AS gap
WHERE gap.start < gap.stop
ORDER BY gap.start
"""
"""The runs of ids for which there is no row: of a transaction that is not over, or rolled back."""

OPEN_ABOVE: Final[LiteralString] = f"""
WITH chunk AS MATERIALIZED (
    SELECT id, queue, priority, available_at, dispatch_at, status, finished_at, worker_id, deaths FROM jobs
    WHERE id > %(after)s AND id >= (SELECT id FROM dispatch_floor) AND id < %(before)s
    ORDER BY id LIMIT %(limit)s
)
SELECT id, queue, {SCORE}, dispatch_at IS NOT NULL, CASE WHEN status = 'processing' THEN worker_id END,
    coalesce(deaths, 0::smallint), NULL::bigint AS read, NULL::bigint AS open
FROM chunk
WHERE (status = 'pending' AND available_at <= now() AND (dispatch_at IS NULL OR dispatch_at <= now()))
    OR (status = 'processing' AND worker_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM workers WHERE workers.id = chunk.worker_id))
UNION ALL
SELECT max(id), NULL, NULL, NULL, NULL, NULL, count(*), count(*) FILTER (WHERE finished_at IS NULL) FROM chunk
"""
"""Ready jobs, and those of workers that are no more, among the next rows from the floor on. A last row says how many
were read and how far. The limit is of rows read and not of rows found, so that no statement is long where most jobs are
final."""

OPEN_LISTED: Final[LiteralString] = f"""
WITH chunk AS MATERIALIZED (
    SELECT id, queue, priority, available_at, dispatch_at, status, worker_id, deaths FROM jobs
    WHERE (dispatch_at, id) > (%(after_time)s, %(after)s) AND dispatch_at <= %(until)s
    ORDER BY dispatch_at, id LIMIT %(limit)s
), last AS (
    SELECT dispatch_at, id FROM chunk ORDER BY dispatch_at DESC, id DESC LIMIT 1
)
SELECT id, queue, {SCORE}, true, CASE WHEN status = 'processing' THEN worker_id END,
    coalesce(deaths, 0::smallint), NULL::bigint AS read, NULL::timestamptz AS through
FROM chunk
WHERE id < (SELECT id FROM dispatch_floor) AND (status = 'pending' OR (status = 'processing' AND worker_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM workers WHERE workers.id = chunk.worker_id)))
UNION ALL
SELECT max(last.id), NULL, NULL, NULL, NULL, NULL, (SELECT count(*) FROM chunk), max(last.dispatch_at) FROM last
"""
"""The same among the jobs below the floor, in the order of `dispatch_at`."""

NEXT_ID: Final[LiteralString] = """
SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END, now() FROM jobs_id_seq
"""

WRITERS: Final[LiteralString] = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'jobs'::regclass AND mode = 'RowExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Transactions that write to `jobs`. An INSERT holds this lock before it draws its first id."""

PARK: Final[LiteralString] = """
UPDATE jobs SET dispatch_at = available_at
WHERE id IN (
    SELECT id FROM jobs WHERE id >= %s AND id < %s AND finished_at IS NULL AND dispatch_at IS NULL
    ORDER BY id FOR UPDATE SKIP LOCKED)
"""

UNPARKED: Final[LiteralString] = """
SELECT id FROM jobs WHERE id >= %s AND id < %s AND finished_at IS NULL AND dispatch_at IS NULL ORDER BY id LIMIT 1
"""

RAISE_FLOOR: Final[LiteralString] = """
UPDATE dispatch_floor SET id = least(%(to)s,
    (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM jobs_id_seq))
WHERE id < least(%(to)s, (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM jobs_id_seq))
"""
"""Never above the next id: a standby that lost the newest jobs may have been promoted since the caller read it."""

WORKERS: Final[LiteralString] = """
SELECT id, name, queues, concurrency, busy, beat, draining, started_at, heartbeat_at, stats,
    coalesce(date_part('epoch', drain_until - now()), 0.0) AS drain_seconds
FROM workers ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Boundary:
    """All ids below `next_id` belong to transactions that are over, or to `writers`; `at` is PostgreSQL's clock."""

    next_id: int
    writers: frozenset[str]
    at: datetime


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """One chunk of a walk through the open jobs: those that wait and are due, and those whose worker is no more."""

    ready: list[ReadyJob]
    orphans: list[Orphan]
    read: int
    """Rows looked at; fewer than asked for at the end."""
    open: int
    """Those of them that are not final; counted above the floor only."""
    last: Any
    """Where to read on."""


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
    drain_seconds: float = 0.0
    """For how many more seconds it is asked to fetch no jobs; 0 or less: it may fetch."""


async def due(
    connection: Connection, after: Place, until: datetime, limit: int | None = None
) -> list[tuple[ReadyJob, datetime]]:
    """A chunk of the waiting jobs whose `dispatch_at` lies after the place and not after `until`, each with it."""
    async with in_index_order(connection):
        rows = await fetch_all(connection, DUE, (*after, until, limit or CHUNK))
    return [(ReadyJob(id, queue, score, True), at) for id, queue, score, at in rows]


async def boundary(connection: Connection) -> Boundary:
    """The next id to be drawn, and who may still be about to show a lower one. The order of the two reads matters."""
    rows = await fetch_all(connection, NEXT_ID)
    return Boundary(rows[0][0], await writers(connection), rows[0][1])


async def settled(connection: Connection, limit: Boundary) -> bool:
    """Whether every job below the boundary is visible by now (or was rolled back)."""
    return not limit.writers or not (limit.writers & await writers(connection))


async def writers(connection: Connection) -> frozenset[str]:
    """The transactions that write to `jobs` at the moment."""
    return frozenset(row[0] for row in await fetch_all(connection, WRITERS))


async def recent(connection: Connection, spans: Sequence[Span]) -> list[ReadyJob]:
    """Jobs with ids in the spans that wait and are due; most were pushed by their enqueuer or the due sweep."""
    rows = await fetch_all(connection, RECENT, _arrays(spans))
    return [ReadyJob(*row) for row in rows]


async def unseen(connection: Connection, spans: Sequence[Span]) -> list[Span]:
    """The ids of the spans for which no row is visible, as ascending spans."""
    return [(row[0], row[1]) for row in await fetch_all(connection, UNSEEN, _arrays(spans))]


def _arrays(spans: Sequence[Span]) -> tuple[list[int], list[int]]:
    return [start for start, _ in spans], [stop for _, stop in spans]


async def open_above_floor(connection: Connection, after: int, before: int, limit: int | None = None) -> OpenJobs:
    """The next chunk of the jobs between the floor and `before`, by id."""
    parameters = {"after": after, "before": before, "limit": limit or CHUNK}
    async with in_index_order(connection):
        *rows, (last, *_, read, open) = await fetch_all(connection, OPEN_ABOVE, parameters)
    return OpenJobs(*_sorted(rows), read, open, last)


async def open_listed(connection: Connection, after: Place, until: datetime, limit: int | None = None) -> OpenJobs:
    """The next chunk of the jobs below the floor whose `dispatch_at` is not after `until`, in its order."""
    parameters = {"after_time": after[0], "after": after[1], "until": until, "limit": limit or CHUNK}
    async with in_index_order(connection):
        *rows, (last, *_, read, through) = await fetch_all(connection, OPEN_LISTED, parameters)
    return OpenJobs(*_sorted(rows), read, 0, (through, last))


def _sorted(rows: Sequence[Any]) -> tuple[list[ReadyJob], list[Orphan]]:
    ready = [ReadyJob(*row[:4]) for row in rows if row[4] is None]
    return ready, [Orphan(row[0], row[4], row[5]) for row in rows if row[4] is not None]


async def floor(connection: Connection) -> int:
    """The floor's present place."""
    rows = await fetch_all(connection, "SELECT id FROM dispatch_floor")
    return int(rows[0][0])


async def park(connection: Connection, start: int, stop: int) -> tuple[int, int]:
    """Give open jobs with start <= id < stop a `dispatch_at`, so that the floor may pass them.

    Rows that another transaction has locked are passed over.

    Returns:
        How many got one, and up to which id the floor may rise: the first that has none, else `stop`.
    """
    cursor = await connection.execute(PARK, (start, stop))
    left = await fetch_all(connection, UNPARKED, (start, stop))
    return cursor.rowcount, int(left[0][0]) if left else stop


async def raise_floor(connection: Connection, to: int) -> None:
    """Raise the floor; the caller has made sure that all open jobs below `to` have a `dispatch_at`."""
    await connection.execute(RAISE_FLOOR, {"to": to})


async def workers(connection: Connection) -> list[WorkerRow]:
    """All registered workers."""
    cursor = connection.cursor(row_factory=class_row(WorkerRow))
    await cursor.execute(WORKERS)
    return await cursor.fetchall()
