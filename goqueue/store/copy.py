"""Many jobs enter by COPY, at a fifth of an INSERT's cost (docs/decisions/0004-bulk-copy.md has the figures).

COPY returns nothing, so the ids are drawn before it. The lock on `jobs` comes before the ids, as an INSERT takes it:
the dispatcher counts on it (see `goqueue.store.dispatch`). All ids are in the rows: with a default that has to be drawn
PostgreSQL would write row by row.

The rows are in COPY's binary format: nothing has to be escaped, and PostgreSQL parses no numbers. Most of a row is the
same for most jobs of a batch, and is put into bytes once.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from struct import Struct, pack
from typing import Any, Final

import orjson
import psycopg

from goqueue.encryption import Keyring, payload_of
from goqueue.job import Enqueued, NewJob, ReadyJob, ready_score
from goqueue.store import sql
from goqueue.store.connect import Connection

WORTH: Final = 100
"""Jobs from which COPY is worth its five round trips."""

BLOCK: Final = 128 * 1024
"""Bytes that are sent together; PostgreSQL works on them while the next are made."""

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = pack(">h", -1)
_NULL: Final = pack(">i", -1)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_start_row = Struct(">hiq").pack
"""Number of columns, length of the id, id."""
_start_json = Struct(">iB").pack
"""Length of what follows, version of jsonb's format."""
_shape_of = attrgetter(
    "queue", "type", "max_retries", "priority", "available_at", "timeout", "source", "trace_context", "tenant"
)
"""All that a job says about itself beside its payload (jobs with keys are not copied)."""


async def insert(
    connection: Connection, jobs: Sequence[NewJob], keyring: Keyring | None = None
) -> tuple[list[Enqueued], list[ReadyJob]]:
    """Insert jobs without keys, all or none, in a transaction of their own or the caller's."""
    async with connection.transaction():
        ids, now = await draw(connection, len(jobs))
        enqueued: list[Enqueued] = []
        ready: list[ReadyJob] = []
        async with connection.cursor().copy(sql.COPY_JOBS) as copy:
            for block in _blocks(ids, jobs, now, enqueued, ready, keyring):
                await copy.write(block)
    return enqueued, ready


async def draw(connection: Connection, count: int) -> tuple[list[int], datetime]:
    """Ids for so many jobs, ascending, and PostgreSQL's time; call it in the transaction that inserts them."""
    async with connection.pipeline():
        await connection.execute(sql.LOCK_JOBS)
        cursor = connection.cursor(binary=True)
        await cursor.execute(sql.DRAW_IDS, (count,))
    ((ids, now),) = await cursor.fetchall()
    return ids, now


def _blocks(
    ids: Sequence[int],
    jobs: Sequence[NewJob],
    now: datetime,
    enqueued: list[Enqueued],
    ready: list[ReadyJob],
    keyring: Keyring | None,
) -> Iterator[bytes]:
    """The rows for COPY; on the way notes what was made and what Redis is owed."""
    shapes: dict[Any, tuple[bytes, datetime, float | None]] = {}
    block = bytearray(_HEADER)
    for id, job in zip(ids, jobs, strict=True):
        shape = _shape_of(job)
        known = shapes.get(shape)
        if known is None:
            known = shapes[shape] = _encode(*shape, now=now)
        fields, available_at, score = known
        payload = orjson.dumps(job.payload)
        if keyring is not None:
            payload = keyring.seal(payload_of(id), payload)
        block += _start_row(12, 8, id) + fields + _start_json(len(payload) + 1, 1) + payload
        enqueued.append(Enqueued(id, True, now, available_at))
        if score is not None:
            ready.append(ReadyJob(id, job.queue, score))
        if len(block) > BLOCK:
            yield bytes(block)
            block.clear()
    yield bytes(block) + _END


def _encode(
    queue: str,
    type: str,
    max_retries: int,
    priority: int,
    available_at: datetime | None,
    timeout: float | None,
    source: str,
    trace_context: str | None,
    tenant: str | None,
    *,
    now: datetime,
) -> tuple[bytes, datetime, float | None]:
    """The fields between id and payload; when the job may run; its score, if that is now."""
    due = available_at.astimezone(UTC) if available_at else now
    later = due > now
    fields = (
        queue.encode(),
        type.encode(),
        pack(">i", max_retries),
        pack(">h", priority),
        _time(due),
        _time(due) if later else None,
        None if timeout is None else _real(timeout),
        source.encode(),
        None if trace_context is None else trace_context.encode(),
        None if tenant is None else tenant.encode(),
    )
    encoded = b"".join(_NULL if field is None else pack(">i", len(field)) + field for field in fields)
    return encoded, due, None if later else ready_score(priority, int(due.timestamp() * 1000))


def _real(value: float) -> bytes:
    field = pack(">f", value)
    if value and field == bytes(4):
        raise psycopg.errors.NumericValueOutOfRange("underflow")  # as PostgreSQL says to an INSERT
    return field


def _time(moment: datetime) -> bytes:
    return pack(">q", (moment - _EPOCH) // _MICROSECOND)
