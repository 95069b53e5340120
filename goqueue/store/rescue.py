"""Rescue: whose worker is no more, and what becomes of the jobs that it held."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

from goqueue.rescue import UNCHARGED, Orphan
from goqueue.store.bounds import in_index_order
from goqueue.store.connect import Connection, fetch_all
from goqueue.store.dispatch import Place, WorkerRow
from goqueue.store.sql import NEW_LEASE

CHUNK = 20_000
"""Rows that one statement looks at."""

BURY: Final[LiteralString] = "DELETE FROM workers WHERE id = %s AND beat = %s RETURNING name"

ORPHANS_ABOVE: Final[LiteralString] = """
WITH chunk AS MATERIALIZED (
    SELECT id, worker_id, status, deaths FROM jobs
    WHERE id > %(after)s AND id >= (SELECT id FROM dispatch_floor) AND id < %(before)s
    ORDER BY id LIMIT %(limit)s
)
SELECT id, worker_id, coalesce(deaths, 0::smallint), NULL AS read FROM chunk
WHERE status = 'processing' AND worker_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM workers WHERE workers.id = chunk.worker_id)
UNION ALL
SELECT max(id), NULL, NULL, count(*) FROM chunk
"""
"""No index leads from a worker to its jobs: each claim would pay for it. The rows are looked at by PostgreSQL, from the
floor on, and only orphans are transferred."""

ORPHANS_OF_QUEUE: Final[LiteralString] = """
WITH chunk AS MATERIALIZED (
    SELECT id, worker_id, status, deaths FROM jobs
    WHERE (queue, id) > (%(queue)s, greatest(%(after)s, (SELECT id - 1 FROM dispatch_floor))) AND queue <= %(queue)s
    ORDER BY queue, id LIMIT %(limit)s
)
SELECT id, worker_id, coalesce(deaths, 0::smallint), NULL AS read FROM chunk
WHERE status = 'processing' AND worker_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM workers WHERE workers.id = chunk.worker_id)
UNION ALL
SELECT max(id), NULL, NULL, count(*) FROM chunk
"""
"""In one queue only, by the index on (queue, id): a backlog in another queue is not read. With `queue = …` PostgreSQL
might read all queues by the primary key instead."""

ORPHANS_LISTED: Final[LiteralString] = """
WITH chunk AS MATERIALIZED (
    SELECT id, worker_id, status, deaths, dispatch_at FROM jobs
    WHERE (dispatch_at, id) > (%(after_time)s, %(after)s) AND dispatch_at <= %(until)s
    ORDER BY dispatch_at, id LIMIT %(limit)s
), last AS (
    SELECT dispatch_at, id FROM chunk ORDER BY dispatch_at DESC, id DESC LIMIT 1
)
SELECT id, worker_id, coalesce(deaths, 0::smallint), NULL AS read, NULL::timestamptz AS through FROM chunk
WHERE status = 'processing' AND worker_id IS NOT NULL AND id < (SELECT id FROM dispatch_floor)
    AND NOT EXISTS (SELECT FROM workers WHERE workers.id = chunk.worker_id)
UNION ALL
SELECT max(last.id), NULL, NULL, (SELECT count(*) FROM chunk), max(last.dispatch_at) FROM last
"""

ORPHANS_AMONG: Final[LiteralString] = """
SELECT id, worker_id, coalesce(deaths, 0::smallint) FROM jobs
WHERE id = ANY(%s::bigint[]) AND status = 'processing' AND worker_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM workers WHERE workers.id = jobs.worker_id)
ORDER BY id
"""

RESCUE: Final[LiteralString] = f"""
WITH orphan AS MATERIALIZED (
    SELECT jobs.id, lease, attempts, max_retries, worker_id, started_at, round, given.delay,
        cancel_requested_at IS NOT NULL AS cancelled, least(coalesce(deaths, 0::smallint) + 1, 32767) AS deaths
    FROM unnest(%(ids)s::bigint[], %(delays)s::real[]) AS given (id, delay) JOIN jobs ON jobs.id = given.id
    WHERE status = 'processing' AND worker_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM workers WHERE workers.id = jobs.worker_id)
    ORDER BY jobs.id FOR UPDATE OF jobs SKIP LOCKED
), decided AS (
    SELECT *, deaths <= %(uncharged)s AS spared, now() + make_interval(secs => delay) AS due,
        CASE WHEN cancelled THEN 'cancelled' WHEN deaths > %(uncharged)s AND attempts > max_retries THEN 'failed'
            ELSE 'pending' END AS fate
    FROM orphan
), rescued AS (
    UPDATE jobs
    SET status = fate, error = %(error)s, updated_at = now(), deaths = decided.deaths,
        lease = {NEW_LEASE},
        attempts = CASE WHEN fate = 'pending' AND spared THEN greatest(jobs.attempts - 1, 0) ELSE jobs.attempts END,
        available_at = CASE WHEN fate = 'pending' AND NOT (spared AND decided.deaths = 1) THEN due
            ELSE jobs.available_at END,
        dispatch_at = CASE WHEN fate = 'pending' THEN due END,
        finished_at = CASE WHEN fate <> 'pending' THEN now() END,
        failed_at = CASE WHEN fate = 'failed' THEN now() END,
        active_key = CASE WHEN fate = 'pending' THEN jobs.active_key END,
        progress = CASE WHEN fate <> 'pending' THEN jobs.progress END
    FROM decided WHERE jobs.id = decided.id
    RETURNING decided.id, decided.lease, decided.attempts, decided.worker_id, decided.started_at, decided.round, fate,
        decided.deaths
), kept AS (
    INSERT INTO job_attempts (job_id, lease, attempt, outcome, error, worker, started_at, round)
    SELECT id, lease, attempts, 'rescued', %(error)s, worker_id::text, started_at, round FROM rescued
    ON CONFLICT DO NOTHING
)
SELECT id, fate, deaths FROM rescued
"""
"""After its first death a job keeps its `available_at`, and with it its place in the queue: only its return to Redis is
delayed. A row that is locked is left to
the next call."""


@dataclass(frozen=True, slots=True)
class Orphans:
    """One chunk of a scan: those found, how many rows were looked at, and where to read on."""

    found: list[Orphan]
    read: int
    last: Any


@dataclass(frozen=True, slots=True)
class Rescued:
    """What became of an orphan: `pending`, `failed` or `cancelled`; `deaths` with this one."""

    id: int
    fate: str
    deaths: int


async def bury(connection: Connection, worker: WorkerRow) -> bool:
    """Declare a worker dead, unless it gave a sign of life since it was read."""
    return bool(await fetch_all(connection, BURY, (worker.id, worker.beat)))


async def orphans_above_floor(connection: Connection, after: int, before: int, limit: int | None = None) -> Orphans:
    """Orphans among the next rows between the floor and `before`, by id."""
    parameters = {"after": after, "before": before, "limit": limit or CHUNK}
    async with in_index_order(connection):
        *rows, (last, _, _, read) = await fetch_all(connection, ORPHANS_ABOVE, parameters)
    return Orphans([Orphan(*row[:3]) for row in rows], read, last)


async def orphans_of_queue(connection: Connection, queue: str, after: int, limit: int | None = None) -> Orphans:
    """Orphans among the next rows of a queue at or above the floor, by id."""
    parameters = {"queue": queue, "after": after, "limit": limit or CHUNK}
    async with in_index_order(connection):
        *rows, (last, _, _, read) = await fetch_all(connection, ORPHANS_OF_QUEUE, parameters)
    return Orphans([Orphan(*row[:3]) for row in rows], read, last)


async def orphans_listed(connection: Connection, after: Place, until: datetime, limit: int | None = None) -> Orphans:
    """Orphans among the next rows below the floor, by `dispatch_at`."""
    parameters = {"after_time": after[0], "after": after[1], "until": until, "limit": limit or CHUNK}
    async with in_index_order(connection):
        *rows, (last, _, _, read, through) = await fetch_all(connection, ORPHANS_LISTED, parameters)
    return Orphans([Orphan(*row[:3]) for row in rows], read, (through, last))


async def orphans_among(connection: Connection, ids: Sequence[int]) -> list[Orphan]:
    """Those of these jobs that are orphans."""
    return [Orphan(*row) for row in await fetch_all(connection, ORPHANS_AMONG, (list(ids),))]


async def rescue(connection: Connection, delays: dict[int, float], error: str) -> list[Rescued]:
    """Take jobs from workers that are no more, each to wait again for so many seconds.

    The first deaths give the attempt back; after that a job without attempts left ends in `failed`. A job that was to
    be cancelled is. Safe to repeat: jobs that are no orphans, or locked by another transaction, stay as they are.
    """
    parameters = {"ids": list(delays), "delays": list(delays.values()), "error": error, "uncharged": UNCHARGED}
    return [Rescued(*row) for row in await fetch_all(connection, RESCUE, parameters)]
