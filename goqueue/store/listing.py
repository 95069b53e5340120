"""Pages of jobs by id, from a table of any size in bounded time.

No index serves every filter, since each would be paid for by every job (docs/decisions/0001-indexes.md). So a listing
walks an index in the order of ids, in chunks, and compares what it meets. What it may skip:

- Open jobs lie above the floor or have a `dispatch_at` (`goqueue.store.sql`).
- Failed jobs have an index of their own.
- `created_after`: ids are drawn in the order of time, and no job is created after it ended. Below a job that ended
  before that time there is none that was created after it.

It stops when the page is full, or when its time is over; then the page says where to go on.

What jobs hold has any size. So a search finds ids, and how much is stored with each; `goqueue.store.pages` then reads
as many of these jobs as fit into memory.
"""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from psycopg.sql import SQL, Composable, Literal

from goqueue.job import JobFilter
from goqueue.lifecycle import OPEN, JobStatus
from goqueue.store.connect import Connection

FIRST_CHUNK: Final = 1_000
LAST_CHUNK: Final = 20_000
"""Rows that one statement looks at: few at first, since most pages are filled by them."""

LISTED: Final = 20_000
"""Up to so many jobs with a `dispatch_at` are read at once and sorted; more are met by walking."""

STORED: Final[LiteralString] = (
    "pg_column_size(payload) + coalesce(pg_column_size(result), 0) + coalesce(pg_column_size(error), 0)"
)
"""Bytes as they are stored, perhaps compressed: PostgreSQL need not read them to know that."""

ORDERED: Final[LiteralString] = """
SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_seqscan', 'off', true)
"""
"""For the transaction alone. Without statistics the planner takes a queue of millions for some thousand rows, reads it
whole and sorts it; so it gets no choice but an index that has the order."""

SLACK: Final = timedelta(minutes=1)
"""By how much clocks may differ, e.g. after a failover."""


@dataclass(frozen=True, slots=True)
class _Conditions:
    """What jobs must fulfil: `index` is what an index serves, `all` is that and the rest."""

    index: Sequence[Composable]
    all: Sequence[Composable]


@dataclass(frozen=True, slots=True)
class Hit:
    """A job that a filter lets through; `stored` bytes are its payload, result and error in the table."""

    id: int
    stored: int


@dataclass(frozen=True, slots=True)
class Hits:
    """Those of one page, ordered by id; `next` as in `goqueue.job.Page`."""

    jobs: list[Hit]
    next: int | None


async def search(connection: Connection, wanted: JobFilter, *, seconds: float | None = None) -> Hits:
    """The jobs of one page, ordered by id.

    Args:
        connection: Where to ask.
        wanted: Which jobs.
        seconds: The walk ends after about that time; None: when the page is full or no job is left.
    """
    if wanted.limit == 0:
        return Hits([], wanted.after)
    until = None if seconds is None else time.monotonic() + seconds
    found: list[Hit] = []
    after = wanted.after
    async with connection.transaction():
        await connection.execute(ORDERED, prepare=False)
        async for jobs, through in _chunks(connection, wanted):
            found += jobs[: wanted.limit - len(found)]
            if len(found) == wanted.limit:
                after = found[-1].id
                break
            after = through
            if through is None or (until is not None and time.monotonic() > until):
                break
    return Hits(found, after)


def conditions(wanted: JobFilter) -> Composable:
    """What the row of a job must fulfil."""
    return _all(_conditions(wanted).all)


def order(wanted: JobFilter) -> Composable:
    """`ASC` or `DESC`."""
    return _order(wanted.newest_first)


async def _chunks(connection: Connection, wanted: JobFilter) -> AsyncIterator[tuple[list[Hit], int | None]]:
    """What was found in one part of the table after the other, and the id through which it was looked at; None: it was
    the last part."""
    conditions = _conditions(wanted)
    low = await _first_created(connection, conditions, wanted)
    floor = await _floor(connection) if wanted.status in OPEN else None
    if floor is None:
        async for chunk in _walk(connection, conditions, wanted, low):
            yield chunk
        return
    # Below the floor there are few enough to be read all at once.
    above = max(low, floor - 1)
    if wanted.newest_first:
        if wanted.after is None or wanted.after > floor:
            async for jobs, through in _walk(connection, conditions, wanted, above):
                yield jobs, floor if through is None else through
        yield await _listed(connection, conditions, wanted, low, floor), None
    else:
        if wanted.after is None or wanted.after < floor - 1:
            yield await _listed(connection, conditions, wanted, low, floor), max(floor - 1, 0)
        async for chunk in _walk(connection, conditions, wanted, above):
            yield chunk


async def _walk(
    connection: Connection, conditions: _Conditions, wanted: JobFilter, low: int
) -> AsyncIterator[tuple[list[Hit], int | None]]:
    """Walk from `wanted.after` on over ids above `low`."""
    after = wanted.after
    if not wanted.newest_first:
        after = low if after is None else max(after, low)
    stop = low if wanted.newest_first else None
    size = FIRST_CHUNK
    while True:
        where = [*conditions.index, *_between(wanted.newest_first, after, stop)]
        through, ids = await _look(connection, where, conditions.all, wanted, size)
        hits = SQL("SELECT * FROM jobs WHERE id = ANY({})").format(Literal(ids))
        yield await _select(connection, hits, conditions.all, wanted) if ids else [], through
        if through is None:
            return
        after = through
        size = min(size * 4, LAST_CHUNK)


async def _look(
    connection: Connection, where: Sequence[Composable], all: Sequence[Composable], wanted: JobFilter, size: int
) -> tuple[int | None, list[int]]:
    """Look at the next `size` rows that an index gives: the id of the last one (None where there are fewer), and those
    that fulfil all conditions. The inner query names only what the index serves, or the planner might choose another
    one for the rest, and the narrow columns that conditions are about."""
    query = SQL(
        "WITH seen AS MATERIALIZED (SELECT id, queue, type, tenant, status, created_at, finished_at, failed_at,"
        " deleted_at FROM jobs WHERE {where} ORDER BY id {order} LIMIT {size})"
        " SELECT count(*), {last}(id), ARRAY(SELECT id FROM seen WHERE {all} LIMIT {limit}) FROM seen"
    ).format(
        where=_all(where),
        order=_order(wanted.newest_first),
        size=Literal(size),
        last=SQL("min" if wanted.newest_first else "max"),
        all=_all(all),
        limit=Literal(wanted.limit),
    )
    row = await (await connection.execute(query, prepare=False)).fetchone()
    assert row is not None  # noqa: S101 - an aggregate
    count, last, ids = row
    return (last if count == size else None), ids


async def _select(
    connection: Connection, rows: Composable, where: Sequence[Composable], wanted: JobFilter
) -> list[Hit]:
    """Those of some rows that fulfil the conditions."""
    query = SQL("SELECT id, {stored} FROM ({rows}) AS rows WHERE {where} ORDER BY id {order} LIMIT {limit}").format(
        stored=SQL(STORED),
        rows=rows,
        where=_all(where),
        order=_order(wanted.newest_first),
        limit=Literal(wanted.limit),
    )
    cursor = await connection.execute(query, prepare=False)
    return [Hit(*row) for row in await cursor.fetchall()]


async def _floor(connection: Connection) -> int | None:
    """The floor, or None where so many open jobs lie below it that walking is better."""
    count = SQL(
        "SELECT count(*) FROM (SELECT FROM jobs WHERE dispatch_at IS NOT NULL ORDER BY dispatch_at LIMIT {}) AS l"
    )
    query = SQL("SELECT id, ({}) FROM dispatch_floor").format(count.format(Literal(LISTED + 1)))
    row = await (await connection.execute(query, prepare=False)).fetchone()
    assert row is not None  # noqa: S101 - the migrations make it
    return int(row[0]) if row[1] <= LISTED else None


async def _listed(
    connection: Connection, conditions: _Conditions, wanted: JobFilter, low: int, floor: int
) -> list[Hit]:
    """Jobs with a `dispatch_at` below the floor. The inner LIMIT keeps the planner on their index."""
    listed = SQL("SELECT * FROM jobs WHERE dispatch_at IS NOT NULL ORDER BY dispatch_at LIMIT {}").format(
        Literal(2 * LISTED)
    )
    after = wanted.after if wanted.newest_first else max(wanted.after or 0, low)
    bounds = _between(wanted.newest_first, after, low if wanted.newest_first else floor)
    if wanted.newest_first:
        bounds.append(SQL("id < {}").format(Literal(floor)))
    return await _select(connection, listed, [*conditions.all, *bounds], wanted)


async def _first_created(connection: Connection, conditions: _Conditions, wanted: JobFilter) -> int:
    """An id through which no job was created at `created_after` or later; 0 where none is known."""
    moment: datetime | None = wanted.created_after
    if moment is None:
        return 0
    ends = SQL("SELECT min(id), max(id) FROM jobs WHERE {}").format(_all(conditions.index))
    row = await (await connection.execute(ends, prepare=False)).fetchone()
    if row is None or row[0] is None:
        return 0
    low, high = row[0] - 1, row[1]
    while high - low > FIRST_CHUNK:
        middle = (low + high) // 2
        query = SQL(
            "SELECT id, least(started_at, finished_at) FROM jobs WHERE {where} AND id >= {middle} ORDER BY id LIMIT 1"
        ).format(where=_all(conditions.index), middle=Literal(middle))
        met = await (await connection.execute(query, prepare=False)).fetchone()
        if met is not None and met[0] <= high and met[1] is not None and met[1] < moment - SLACK:
            low = met[0]
        else:
            high = middle - 1
    return int(low)


def _conditions(wanted: JobFilter) -> _Conditions:
    index: list[Composable] = []
    rest: list[Composable] = [SQL("deleted_at IS NULL")]

    def condition(text: LiteralString, value: Any) -> Composable:
        return SQL(text).format(Literal(value))

    reach = wanted.reach
    if wanted.status is JobStatus.FAILED:
        index.append(SQL("failed_at IS NOT NULL"))
    queue_is_served = wanted.status is not JobStatus.FAILED
    if wanted.queue is not None:
        (index if queue_is_served else rest).append(condition("queue = {}", wanted.queue))
    if wanted.before is not None:
        index.append(condition("id < {}", wanted.before))
    if reach is not None and reach.tenant is None:
        rest.append(SQL("tenant IS NULL"))
    elif reach is not None:
        served = wanted.queue is not None and queue_is_served  # by the index (tenant, queue, id)
        (index if served else rest).append(condition("tenant = {}", reach.tenant))
    if reach is not None and reach.queues is not None:
        rest.append(condition("queue = ANY({})", sorted(reach.queues)))
    if reach is not None and reach.types is not None:
        rest.append(condition("type = ANY({})", sorted(reach.types)))
    if wanted.type is not None:
        rest.append(condition("type = {}", wanted.type))
    if wanted.status is not None:
        rest.append(condition("status = {}", wanted.status.value))
    if wanted.status in OPEN:
        rest.append(SQL("finished_at IS NULL"))
    if wanted.created_after is not None:
        rest.append(condition("created_at >= {}", wanted.created_after))
    if wanted.created_before is not None:
        rest.append(condition("created_at < {}", wanted.created_before))
    return _Conditions(index, [*index, *rest])


def _between(newest_first: bool, after: int | None, stop: int | None) -> list[Composable]:
    """Bounds of ids in the direction of the walk: beyond `after`, before `stop`."""
    beyond, before = ("<", ">") if newest_first else (">", "<")
    bounds = ((beyond, after), (before, stop))
    return [SQL(f"id {sign} {{}}").format(Literal(value)) for sign, value in bounds if value is not None]


def _order(newest_first: bool) -> Composable:
    return SQL("DESC" if newest_first else "ASC")


def _all(conditions: Sequence[Composable]) -> Composable:
    return SQL(" AND ").join(conditions) if conditions else SQL("true")
