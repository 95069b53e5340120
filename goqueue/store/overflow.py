"""What waits beyond the window of a queue, as the leader reads it to refill the ready set."""

from dataclasses import dataclass
from typing import Any, Final, LiteralString

from goqueue.job import ReadyJob, ready_score
from goqueue.store.connect import Connection, fetch_all
from goqueue.store.sql import FLOOR
from goqueue.window import Level, Place

CHUNK: Final = 5000
"""Rows that one statement walks over."""

WALK: Final[LiteralString] = """
SELECT count(*), max(id), array_agg(id) FILTER (WHERE fits), array_agg(at) FILTER (WHERE fits)
FROM (
    SELECT id, date_part('epoch', available_at) AS at,
        status = 'pending' AND priority = %(priority)s AND available_at <= now() AS fits
    FROM jobs WHERE queue = %(queue)s AND id >= %(start)s ORDER BY id LIMIT %(limit)s
) AS walk
"""
"""By the index (queue, id). Arrays, since rows would cost the reader several times as much."""

WALK_LISTED: Final[LiteralString] = """
SELECT id, dispatch_at, date_part('epoch', available_at),
    queue = %(queue)s AND priority = %(priority)s AND status = 'pending' AND available_at <= now()
FROM jobs WHERE (dispatch_at, id) > (%(time)s, %(id)s) AND dispatch_at <= now() ORDER BY dispatch_at, id LIMIT %(limit)s
"""

READY_COUNT: Final[LiteralString] = f"""
SELECT count(*) FROM (
    SELECT FROM jobs WHERE queue = %(queue)s AND id >= {FLOOR} AND status = 'pending' AND available_at <= now()
    UNION ALL
    SELECT FROM jobs WHERE queue = %(queue)s AND dispatch_at <= now() AND id < {FLOOR} AND status = 'pending'
    LIMIT %(most)s
) AS ready
"""

STILL_READY: Final[LiteralString] = """
SELECT id, dispatch_at IS NOT NULL FROM jobs WHERE id = ANY(%s::bigint[]) AND queue = %s AND status = 'pending'
"""


@dataclass(frozen=True, slots=True)
class Walked:
    """The jobs of a level in one chunk of its queue, and where to go on; `next` is None at the end."""

    jobs: list[ReadyJob]
    next: Any


def _ready(level: Level, id: int, at: float, *, listed: bool = False) -> ReadyJob:
    return ReadyJob(id, level.queue, ready_score(level.priority, int(at * 1000)), listed)


async def walk(connection: Connection, level: Level, start: int) -> Walked:
    """Ready jobs of a level from the id `start` on, among the next `CHUNK` rows of the queue."""
    parameters = {"queue": level.queue, "priority": level.priority, "start": start, "limit": CHUNK}
    cursor = connection.cursor(binary=True)
    await cursor.execute(WALK, parameters)
    rows = await cursor.fetchall()
    count, through, ids, times = rows[0]
    jobs = [_ready(level, id, at) for id, at in zip(ids or (), times or (), strict=True)]
    return Walked(jobs, through + 1 if count == CHUNK else None)


async def walk_listed(connection: Connection, level: Level, place: Place) -> Walked:
    """The same of those that have a `dispatch_at`, after a place in its order; `next` is such a place."""
    time, after = place
    parameters = {"queue": level.queue, "priority": level.priority, "time": time, "id": after, "limit": CHUNK}
    rows = await fetch_all(connection, WALK_LISTED, parameters)
    jobs = [_ready(level, id, at, listed=True) for id, _, at, fits in rows if fits]
    return Walked(jobs, (rows[-1][1], rows[-1][0]) if len(rows) == CHUNK else None)


async def ready_count(connection: Connection, queue: str, most: int) -> int:
    """Jobs of the queue that wait and could run, counted up to `most`; costs as much as there are."""
    return int((await fetch_all(connection, READY_COUNT, {"queue": queue, "most": most}))[0][0])


async def still_ready(connection: Connection, queue: str, ids: list[int]) -> dict[int, bool]:
    """Which of these jobs still wait, and whether each has a `dispatch_at`."""
    return dict(await fetch_all(connection, STILL_READY, (ids, queue)))
