"""Rows of `jobs` as the operator asks for them: by primary key in batches, and by the key that names a resource.

A job made for a resource has `source_key` = `kubernetes:<uid>@<namespace>`: one row for each uid, and the namespace
tells an operator of one namespace which rows are none of its business (docs/decisions/0003-cr-deletion.md).
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import orjson

from goqueue import encryption
from goqueue.encryption import Keyring
from goqueue.job import Source
from goqueue.lifecycle import JobStatus
from goqueue.store import sql
from goqueue.store.connect import Connection, fetch_all
from goqueue_operator.crds.job import MAX_ERROR, MAX_RESULT

CHUNK: Final = 1000
"""Ids in one statement."""

HELD_UNTIL: Final = datetime(2199, 12, 31, 23, 59, 59, tzinfo=UTC)
"""`available_at` of a job that is suspended."""

CHANGED: Final[LiteralString] = """
SELECT jobs.id, jobs.source_key, jobs.status, jobs.attempts, jobs.max_retries, jobs.updated_at,
    jobs.started_at, jobs.finished_at,
    CASE WHEN starts_with(jobs.error, %(sealed)s) THEN jobs.error ELSE left(jobs.error, %(max_error)s) END AS error,
    CASE WHEN octet_length(jobs.result::text) <= %(max_result)s THEN jobs.result END AS result,
    coalesce(octet_length(jobs.result::text) > %(max_result)s, false) AS large,
    jobs.available_at = %(held)s AS held, jobs.cancel_requested_at IS NOT NULL AS cancelling, jobs.trace_context,
    jobs.priority
FROM unnest(%(ids)s::bigint[], %(seen)s::timestamptz[]) AS known (id, seen) JOIN jobs ON jobs.id = known.id
WHERE jobs.updated_at IS DISTINCT FROM known.seen
"""
"""Different, not newer: `now()` is when a transaction began, so the later of two writes may have the earlier time."""

EXISTING: Final[LiteralString] = "SELECT id FROM jobs WHERE id = ANY(%s)"

BY_KEY: Final[LiteralString] = "SELECT id, source_key, status FROM jobs WHERE source_key = ANY(%s)"

OPEN_OURS: Final[LiteralString] = f"""
SELECT id, source_key FROM jobs WHERE source = %(source)s AND finished_at IS NULL AND id >= {sql.FLOOR}
UNION ALL
SELECT id, source_key FROM jobs
WHERE source = %(source)s AND finished_at IS NULL AND dispatch_at IS NOT NULL AND id < {sql.FLOOR}
"""  # noqa: S608 - the floor is a constant

RUNNING: Final[LiteralString] = f"""
SELECT worker_id, count(*) AS jobs FROM (
    SELECT worker_id FROM jobs WHERE id >= {sql.FLOOR} AND finished_at IS NULL AND status = 'processing'
    UNION ALL
    SELECT worker_id FROM jobs WHERE dispatch_at IS NOT NULL AND id < {sql.FLOOR} AND finished_at IS NULL
        AND status = 'processing'
) AS held WHERE worker_id IS NOT NULL GROUP BY worker_id
"""  # noqa: S608 - the floor is a constant

STATUSES: Final[LiteralString] = "SELECT id, status FROM jobs WHERE id = ANY(%s)"

ENDS: Final[LiteralString] = "SELECT id, status, finished_at FROM jobs WHERE id = ANY(%s)"

HOLD: Final[LiteralString] = """
UPDATE jobs SET available_at = %(held)s, dispatch_at = %(held)s, updated_at = now()
WHERE id = ANY(%(ids)s) AND status = 'pending' AND available_at < %(held)s
RETURNING id, queue
"""

RELEASE: Final[LiteralString] = """
UPDATE jobs SET available_at = greatest(coalesce(wish.due, now()), now()),
    dispatch_at = greatest(coalesce(wish.due, now()), now()), updated_at = now()
FROM unnest(%(ids)s::bigint[], %(dues)s::timestamptz[]) AS wish (id, due)
WHERE jobs.id = wish.id AND jobs.status = 'pending' AND jobs.available_at = %(held)s
RETURNING jobs.id
"""

PRIORITIZE: Final[LiteralString] = """
UPDATE jobs SET priority = wish.priority, updated_at = now(),
    dispatch_at = CASE WHEN jobs.status = 'pending' THEN greatest(available_at, now()) ELSE dispatch_at END
FROM unnest(%(ids)s::bigint[], %(priorities)s::int[]) AS wish (id, priority)
WHERE jobs.id = wish.id AND jobs.finished_at IS NULL
"""
"""The dispatcher pushes one that waits again, and its place in the ready set is the new one. One that runs has the new
priority where it waits for another attempt."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the operator needs to know of a job."""

    id: int
    source_key: str | None
    status: JobStatus
    attempts: int
    max_retries: int
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    result: Any
    large: bool
    """The result is larger than a status repeats."""
    held: bool
    """Suspended."""
    cancelling: bool
    """Its worker was asked to stop."""
    trace_context: str | None = None
    priority: int = 0


def key_of(uid: str, namespace: str) -> str:
    """The `source_key` of the job of a resource."""
    return f"kubernetes:{uid}@{namespace}"


def parse_key(key: str | None) -> tuple[str, str] | None:
    """(uid, namespace) from a `source_key` of a GoQueueJob; None for any other key."""
    kind, _, rest = (key or "").partition(":")
    uid, at, namespace = rest.partition("@")
    return (uid, namespace) if kind == "kubernetes" and at and uid and namespace and ":" not in uid else None


def tick_key(uid: str, namespace: str, tick: datetime) -> str:
    """The `source_key` of the job that a schedule makes for one of its times."""
    return f"kubernetes-schedule:{uid}:{tick.isoformat()}@{namespace}"


def run_key(uid: str, namespace: str, token: str) -> str:
    """The `source_key` of the job that a schedule makes because a person asked for it by this token."""
    return f"kubernetes-schedule:{uid}:run-{hashlib.sha256(token.encode()).hexdigest()[:32]}@{namespace}"


def _revealed(row: Row, keyring: Keyring) -> Row:
    """The row with what is encrypted in it opened and cut to what a status repeats."""
    result = encryption.shown(keyring, encryption.result_of(row.id), row.result)
    large = row.large or (result is not None and len(orjson.dumps(result)) > MAX_RESULT)
    error = encryption.shown_text(keyring, encryption.error_of(row.id), row.error)
    error = error[:MAX_ERROR] if error else error
    return dataclasses.replace(row, error=error, result=None if large else result, large=large)


async def changed(
    connection: Connection, known: Sequence[tuple[int, datetime | None]], keyring: Keyring | None = None
) -> list[Row]:
    """Those rows that changed since they were last seen (`updated_at`, None: never)."""
    found: list[Row] = []
    for start in range(0, len(known), CHUNK):
        part = known[start : start + CHUNK]
        parameters = {
            "ids": [id for id, _ in part],
            "seen": [seen for _, seen in part],
            "held": HELD_UNTIL,
            "max_error": MAX_ERROR,
            # Encrypted, it is longer: by a third in base64, and by its keys.
            "max_result": MAX_RESULT if keyring is None else MAX_RESULT * 4 // 3 + 512,
            "sealed": encryption.TEXT_START,
        }
        rows = await fetch_all(connection, CHANGED, parameters)
        for id, key, status, *more in rows:
            row = Row(id, key, JobStatus(status), *more)
            found.append(row if keyring is None else _revealed(row, keyring))
    return found


async def existing(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of the ids that have a row."""
    found: set[int] = set()
    for start in range(0, len(ids), CHUNK):
        found |= {row[0] for row in await fetch_all(connection, EXISTING, (list(ids[start : start + CHUNK]),))}
    return found


async def by_key(connection: Connection, keys: Iterable[str]) -> dict[str, tuple[int, JobStatus]]:
    """`source_key` → (id, status), of rows there are."""
    rows = await fetch_all(connection, BY_KEY, (list(keys),))
    return {key: (id, JobStatus(status)) for id, key, status in rows}


async def open_ours(connection: Connection) -> list[tuple[int, str]]:
    """(id, `source_key`) of the open jobs that some operator made; costs as much as there are open jobs."""
    parameters = {"source": Source.KUBERNETES.value}
    return [(row[0], row[1] or "") for row in await fetch_all(connection, OPEN_OURS, parameters)]


async def running(connection: Connection) -> dict[int, int]:
    """Id of a worker → jobs that it holds now; costs as much as there are open jobs."""
    return dict(await fetch_all(connection, RUNNING))


async def statuses(connection: Connection, ids: Sequence[int]) -> dict[int, JobStatus]:
    """Status by id, of rows there are."""
    return {id: JobStatus(status) for id, status in await fetch_all(connection, STATUSES, (list(ids),))}


async def ends(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[str, datetime | None]]:
    """Status and end by id, of rows there are."""
    found: dict[int, tuple[str, datetime | None]] = {}
    for start in range(0, len(ids), CHUNK):
        rows = await fetch_all(connection, ENDS, (list(ids[start : start + CHUNK]),))
        found |= {id: (status, finished) for id, status, finished in rows}
    return found


async def hold(connection: Connection, ids: Sequence[int]) -> list[tuple[int, str]]:
    """Suspend those of the jobs that wait; (id, queue) of those that were changed."""
    return [(row[0], row[1]) for row in await fetch_all(connection, HOLD, {"ids": list(ids), "held": HELD_UNTIL})]


async def release(connection: Connection, wishes: Sequence[tuple[int, datetime | None]]) -> list[int]:
    """Let suspended jobs go, each not before its time; the dispatcher pushes them. Ids that were changed."""
    parameters = {"ids": [id for id, _ in wishes], "dues": [due for _, due in wishes], "held": HELD_UNTIL}
    return [row[0] for row in await fetch_all(connection, RELEASE, parameters)]


async def prioritize(connection: Connection, wishes: Sequence[tuple[int, int]]) -> None:
    """Give open jobs (ids) other priorities."""
    parameters = {"ids": [id for id, _ in wishes], "priorities": [priority for _, priority in wishes]}
    await connection.execute(PRIORITIZE, parameters)
