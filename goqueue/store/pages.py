"""Pages that fit into memory: as many jobs, or attempts, as `MOST` bytes of what they hold allow, and at least one.

How large a value is before it has been read nobody knows: PostgreSQL may store it compressed. So a page is read in
parts, each of so many jobs that they are small as stored; after each it is known how large they are as text.
"""

from collections.abc import Sequence
from typing import Final

from psycopg.sql import SQL, Literal

from goqueue.encryption import Keyring
from goqueue.job import Job, JobFilter, Page
from goqueue.store import listing, sql
from goqueue.store.connect import Connection
from goqueue.store.jobs import job_of, revealed
from goqueue.store.listing import Hit, Hits

MOST: Final = 4 * 1024 * 1024
"""Bytes of payloads, results and errors as JSON text after which a page ends."""

SMALL: Final = 64 * 1024
"""Bytes as stored up to which a page is read at once. They may be ninety times as many when decompressed."""

PART: Final = 256 * 1024
"""Bytes as stored of each later part."""

_HOLDING: Final = [
    at for at, column in enumerate(sql.COLUMNS.split(",")) if column.strip() in ("payload", "result", "error")
]


def is_small(hits: Hits) -> bool:
    """Whether the jobs of a page take next to no memory."""
    return sum(hit.stored for hit in hits.jobs) <= SMALL


async def read(connection: Connection, wanted: JobFilter, hits: Hits, keyring: Keyring | None = None) -> Page:
    """The jobs that a search has found, as many as fit. `keyring` decrypts what they hold.

    One that does not fulfil the conditions any more is left out.
    """
    found: list[Job] = []
    read, at, size = 0, 0, SMALL
    while at < len(hits.jobs) and read < MOST:
        part = _part(hits.jobs, at, size)
        jobs, bytes = await _read(connection, wanted, part, keyring)
        found += jobs
        at += len(part)
        read += bytes
        stored = max(1, sum(hit.stored for hit in part))
        size = min(PART, max(0, MOST - read) * stored // max(bytes, stored))
    following = hits.next if at == len(hits.jobs) else hits.jobs[at - 1].id
    return Page(found, following)


def _part(hits: Sequence[Hit], at: int, size: int) -> Sequence[Hit]:
    """The next hits, of `size` bytes as stored at most; one in any case."""
    end = at + 1
    size -= hits[at].stored
    while end < len(hits) and hits[end].stored <= size:
        size -= hits[end].stored
        end += 1
    return hits[at:end]


async def _read(
    connection: Connection, wanted: JobFilter, part: Sequence[Hit], keyring: Keyring | None
) -> tuple[list[Job], int]:
    """Some jobs, and the bytes of text that they hold."""
    query = SQL("SELECT {columns} FROM jobs WHERE id = ANY({ids}) AND {where} ORDER BY id {order}").format(
        columns=SQL(sql.COLUMNS),
        ids=Literal([hit.id for hit in part]),
        where=listing.conditions(wanted),
        order=listing.order(wanted),
    )
    cursor = await connection.execute(query, prepare=False)
    jobs = [revealed(job_of(row), keyring) for row in await cursor.fetchall()]
    result = cursor.pgresult
    assert result is not None  # noqa: S101 - the statement was executed
    sizes = (len(result.get_value(row, column) or b"") for row in range(len(jobs)) for column in _HOLDING)
    return jobs, sum(sizes)
