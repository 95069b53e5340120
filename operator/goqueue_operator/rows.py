"""Rows of `jobs` as the operator reads them: by primary key in batches, and by the key that names a resource.

A job made for a resource has `source_key` = `kubernetes:<uid>@<namespace>/<installation>`: one row for each uid. An id
alone names no row for good, since a restored database gives ids again (docs/decisions/0019-identity.md).
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, LiteralString, NamedTuple

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
    jobs.unique_key, jobs.priority
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

STATUSES: Final[LiteralString] = "SELECT id, source_key, status FROM jobs WHERE id = ANY(%s)"

ENDS: Final[LiteralString] = "SELECT id, status, finished_at, source_key, unique_key FROM jobs WHERE id = ANY(%s)"

LAST_ID: Final[LiteralString] = "SELECT coalesce(pg_sequence_last_value('jobs_id_seq'::regclass), 0)"

ADOPT: Final[LiteralString] = """
UPDATE jobs SET source_key = wish.new FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS wish (id, old, new)
WHERE jobs.id = wish.id AND jobs.source_key = wish.old
    AND NOT EXISTS (SELECT FROM jobs AS other WHERE other.source_key = wish.new)
"""

RESCOPE: Final[LiteralString] = f"""
UPDATE jobs SET active_key = wish.scoped
FROM (SELECT id AS it, {sql.ACTIVE_KEY} AS scoped FROM jobs WHERE id = ANY(%s)) AS wish
WHERE jobs.id = wish.it AND jobs.active_key IS NOT NULL AND jobs.active_key <> wish.scoped
    AND NOT EXISTS (SELECT FROM jobs AS other WHERE other.active_key = wish.scoped)
"""  # noqa: S608 - the expression is a constant

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
    unique_key: str | None = None
    priority: int = 0


class Owner(NamedTuple):
    """The resource for which a row was made. `installation` is empty in keys of versions before it was in them."""

    uid: str
    namespace: str
    installation: str


class Relation(Enum):
    """What a row is to a GoQueueJob."""

    OWN = "own"
    """It was made for this resource."""
    SHARED = "shared"
    """It was made for another GoQueueJob of the namespace, and has the same unique key."""
    SCHEDULED = "scheduled"
    """It was made by a GoQueueSchedule of the namespace, and has the same unique key."""
    STRANGE = "strange"
    """It belongs to somebody else; the id is all that they have in common."""


def key_of(uid: str, namespace: str, installation: str = "") -> str:
    """The `source_key` of the job of a resource; without an installation as versions before it wrote it."""
    return f"kubernetes:{uid}@{_place(namespace, installation)}"


def parse_key(key: str | None) -> Owner | None:
    """The resource that a `source_key` of a GoQueueJob names; None for any other key."""
    kind, uid, _, place = _parts(key)
    return Owner(uid, *place) if kind == "kubernetes" and uid and place[0] and ":" not in uid else None


def tick_key(uid: str, namespace: str, tick: datetime, installation: str = "") -> str:
    """The `source_key` of the job that a schedule makes for one of its times."""
    return f"kubernetes-schedule:{uid}:{tick.isoformat()}@{_place(namespace, installation)}"


def run_key(uid: str, namespace: str, token: str, installation: str = "") -> str:
    """The `source_key` of the job that a schedule makes because a person asked for it by this token."""
    digest = hashlib.sha256(token.encode()).hexdigest()[:32]
    return f"kubernetes-schedule:{uid}:run-{digest}@{_place(namespace, installation)}"


def parse_tick(key: str | None) -> Owner | None:
    """The resource that a `source_key` of a GoQueueSchedule's job names; None for any other key."""
    kind, uid, tick, place = _parts(key)
    return Owner(uid, *place) if kind == "kubernetes-schedule" and uid and tick and place[0] else None


def made_by(key: str | None, uid: str) -> bool:
    """Whether a `source_key` names the GoQueueSchedule with this uid."""
    owner = parse_tick(key)
    return owner is not None and owner.uid == uid


def _place(namespace: str, installation: str) -> str:
    return f"{namespace}/{installation}" if installation else namespace


def _parts(key: str | None) -> tuple[str, str, str, tuple[str, str]]:
    front, _, back = (key or "").partition("@")
    kind, _, rest = front.partition(":")
    uid, _, tick = rest.partition(":") if kind == "kubernetes-schedule" else (rest, "", "")
    namespace, _, installation = back.partition("/")
    return kind, uid, tick, (namespace, installation)


def relation(source_key: str | None, unique_key: str | None, owner: Owner, wanted_key: str | None) -> Relation:
    """What the row with these keys is to a GoQueueJob whose `uniqueKey` is `wanted_key`.

    A uid is unique in all clusters, so the row's installation does not matter for `OWN`. Another resource's row must be
    of the same installation, or of a version that did not write it.
    """
    made_for = parse_key(source_key)
    if made_for is not None and made_for.uid == owner.uid:
        return Relation.OWN
    scheduled = parse_tick(source_key)
    other = made_for or scheduled
    if other is None or wanted_key is None or wanted_key != unique_key:
        return Relation.STRANGE
    if other.namespace != owner.namespace or other.installation not in ("", owner.installation):
        return Relation.STRANGE
    return Relation.SHARED if made_for is not None else Relation.SCHEDULED


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


async def open_ticks(connection: Connection, ids: Sequence[int], uid: str) -> list[int]:
    """Those of the ids whose jobs a schedule made and that have not ended, in the order of `ids`."""
    found = {}
    for id, key, status in await fetch_all(connection, STATUSES, (list(ids),)):
        found[id] = made_by(key, uid) and not JobStatus(status).final
    return [id for id in ids if found.get(id)]


class End(NamedTuple):
    """How the job of a row ended, and whose it is."""

    status: str
    finished_at: datetime | None
    source_key: str | None
    unique_key: str | None


async def ends(connection: Connection, ids: Sequence[int]) -> dict[int, End]:
    """Ends by id, of rows there are."""
    found: dict[int, End] = {}
    for start in range(0, len(ids), CHUNK):
        rows = await fetch_all(connection, ENDS, (list(ids[start : start + CHUNK]),))
        found |= {id: End(*more) for id, *more in rows}
    return found


async def last_id(connection: Connection) -> int:
    """The highest id that was ever given to a job of this database; 0 before the first."""
    ((last,),) = await fetch_all(connection, LAST_ID)
    return int(last)


async def holders(
    connection: Connection, source_keys: Iterable[str], active_keys: Iterable[str]
) -> list[tuple[int, str | None, str | None]]:
    """(id, `active_key`, `source_key`) of the rows that have one of these keys."""
    rows = await fetch_all(connection, sql.FIND_KEYED, (list(active_keys), list(source_keys)))
    return [(id, active, source) for id, active, source in rows]


async def adopt(connection: Connection, wishes: Sequence[tuple[int, str, str]]) -> None:
    """Give open rows (id, old key, new key) the key of this installation, and their unique keys its scope."""
    await connection.execute(ADOPT, tuple([wish[at] for wish in wishes] for at in range(3)))
    await connection.execute(RESCOPE, ([wish[0] for wish in wishes],))


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
