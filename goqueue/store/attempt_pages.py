"""The finished attempts of a job in pages: a job that is snoozed for weeks has hundreds of thousands."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, LiteralString

from goqueue import encryption
from goqueue.encryption import Keyring, shown_text
from goqueue.errors import InvalidInput
from goqueue.job import Attempt, AttemptPage
from goqueue.store.connect import Connection, fetch_all

MOST: Final = 1024 * 1024
"""Bytes of error texts after which a page ends."""

ATTEMPTS_OF: Final[LiteralString] = """
SELECT round, attempt, outcome, error, worker, started_at, finished_at, lease, more FROM (
    SELECT *, sum(coalesce(octet_length(error), 0)) OVER before AS bytes, lead(lease) OVER page IS NOT NULL AS more
    FROM (
        SELECT coalesce(round, 1) AS round, attempt, outcome, error, worker, started_at, finished_at, lease
        FROM job_attempts WHERE job_id = %(id)s AND (finished_at, lease) > (%(after)s, %(lease)s)
        UNION ALL
        SELECT coalesce(jobs.round, 1), attempts, 'completed', NULL, workers.name, jobs.started_at, finished_at, lease
        FROM jobs LEFT JOIN workers ON workers.id = jobs.worker_id
        WHERE jobs.id = %(id)s AND status = 'completed' AND (finished_at, lease) > (%(after)s, %(lease)s)
        ORDER BY finished_at, lease LIMIT %(limit)s + 1
    ) AS ended
    WINDOW page AS (ORDER BY finished_at, lease),
        before AS (page ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
) AS counted
WHERE coalesce(bytes, 0) < %(bytes)s ORDER BY finished_at, lease LIMIT %(limit)s
"""
"""A success is read off the job itself. `more`: another one follows."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PLACE: Final = re.compile(r"([0-9]{1,17})-([0-9]{1,10})")


async def attempts_of(
    connection: Connection, job_id: int, keyring: Keyring | None = None, *, after: str | None = None, limit: int
) -> AttemptPage:
    """The finished attempts of a job, oldest first; `after` is the `next` of the page before.

    Raises:
        InvalidInput: it is not.
    """
    moment, lease = _read(after)
    values = {"id": job_id, "after": moment, "lease": lease, "limit": limit, "bytes": MOST}
    rows = await fetch_all(connection, ATTEMPTS_OF, values)
    place = encryption.error_of(job_id)
    found = []
    for round, attempt, outcome, error, worker, started_at, finished_at, *_ in rows:
        text = error if keyring is None else shown_text(keyring, place, error)
        found.append(Attempt(round, attempt, outcome, text, worker, started_at, finished_at))
    return AttemptPage(found, _written(rows[-1][6], rows[-1][7]) if rows and rows[-1][8] else None)


def _written(finished_at: datetime, lease: int) -> str:
    return f"{(finished_at - _EPOCH) // _MICROSECOND}-{lease}"


def _read(after: str | None) -> tuple[datetime, int]:
    if after is None:
        return _EPOCH, 0
    place = _PLACE.fullmatch(after)
    if place is None or int(place[2]) >= 2**31:
        raise InvalidInput("validation failed", {"after": "must be taken from the Link of the page before"})
    return _EPOCH + int(place[1]) * _MICROSECOND, int(place[2])
