"""Idempotency keys as they are stored, written in the transaction that makes their jobs."""

import contextlib
from collections.abc import Collection, Sequence
from typing import Final, LiteralString

import psycopg

from goqueue import idempotency
from goqueue.encryption import Keyring
from goqueue.errors import Conflict, GoQueueError, KeyReused, KeysHeld
from goqueue.idempotency import RequestKey
from goqueue.job import Enqueued, NewJob, ReadyJob
from goqueue.store import enqueue, sql
from goqueue.store.connect import Connection, fetch_all

FIND: Final[LiteralString] = "SELECT digest, fingerprint, job_id FROM idempotency_keys WHERE digest = ANY(%s)"

TAKE: Final[LiteralString] = """
INSERT INTO idempotency_keys (digest, fingerprint, job_id, look_at)
SELECT digest, fingerprint, nextval('jobs_id_seq'), now() + make_interval(secs => %s)
FROM unnest(%s::bytea[], %s::text[]) AS wanted (digest, fingerprint) ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, job_id
"""
"""In the order of the digests, so that no two processes wait for each other."""

TAKE_FOR: Final[LiteralString] = """
INSERT INTO idempotency_keys (digest, fingerprint, job_id, look_at)
VALUES (%s, %s, %s, now() + make_interval(secs => %s)) ON CONFLICT DO NOTHING
"""

PRUNE: Final[LiteralString] = """
WITH due AS (
    SELECT digest, job_id, job_gone FROM idempotency_keys
    WHERE look_at <= now() ORDER BY look_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), judged AS (
    SELECT due.digest, jobs.id IS NULL AS gone,
        coalesce(jobs.finished_at, now()) + make_interval(secs => %(keep)s) AS look_at,
        CASE WHEN jobs.id IS NULL THEN due.job_gone
            ELSE coalesce(jobs.finished_at <= now() - make_interval(secs => %(keep)s), false) END AS past
    FROM due LEFT JOIN jobs ON jobs.id = due.job_id
), forgotten AS (
    DELETE FROM idempotency_keys USING judged WHERE idempotency_keys.digest = judged.digest AND judged.past
), kept AS (
    UPDATE idempotency_keys SET look_at = judged.look_at, job_gone = judged.gone
    FROM judged WHERE idempotency_keys.digest = judged.digest AND NOT judged.past
)
SELECT count(*), count(*) FILTER (WHERE past) FROM judged
"""
"""The key of an open job is looked at again in `keep` seconds: it cannot be forgotten earlier, even if the job ends at
once. Retention may delete a job before its key is forgotten; nobody knows then when it ended, so its key is kept for
another `keep` seconds."""

POSTPONE: Final[LiteralString] = """
UPDATE idempotency_keys SET look_at = now() + make_interval(secs => %s)
WHERE digest = (SELECT digest FROM idempotency_keys WHERE look_at <= now() ORDER BY look_at LIMIT 1
    FOR UPDATE SKIP LOCKED)
"""

HELD: Final = "idempotency key is contended, try again"

TURNS: Final = 5
"""How often a transaction is repeated that PostgreSQL ended because of another one."""


async def find(
    connection: Connection, keys: Collection[RequestKey], keyring: Keyring | None = None
) -> dict[RequestKey, Enqueued | KeyReused]:
    """The jobs of the keys that are known; an error for a key that came with another request before."""
    rows = await fetch_all(connection, FIND, ([key.digest for key in keys],))
    known = {bytes(digest): (fingerprint, job_id) for digest, fingerprint, job_id in rows}
    found: dict[RequestKey, Enqueued | KeyReused] = {}
    for key in keys:
        if key.digest in known:
            fingerprint, job_id = known[key.digest]
            same = idempotency.is_same(key, fingerprint, keyring)
            found[key] = Enqueued(job_id, False) if same else KeyReused()
    return found


async def insert(
    connection: Connection,
    orders: Sequence[tuple[RequestKey, NewJob]],
    keyring: Keyring | None = None,
    *,
    wait: float = enqueue.WAIT,
) -> tuple[list[Enqueued | GoQueueError], list[ReadyJob]]:
    """Insert the orders whose keys are new, all or none, and find the jobs of the others. No order has a unique key.

    Returns an answer for each order, and what the caller now owes Redis. It waits for another transaction with one of
    the keys for `wait` seconds.

    Raises:
        KeysHeld: another transaction holds one of the keys, or ended this one again and again; nothing was written.
    """
    first: dict[bytes, tuple[RequestKey, NewJob]] = {}
    for key, job in orders:
        first.setdefault(key.digest, (key, job))
    for _ in range(TURNS):
        with contextlib.suppress(psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
            try:
                async with connection.transaction():
                    made, ready = await _insert_new(connection, list(first.values()), keyring, wait)
            except psycopg.errors.LockNotAvailable:
                raise KeysHeld(HELD) from None
            break
    else:
        raise KeysHeld(HELD)
    answers: list[Enqueued | GoQueueError | None] = []
    for key, job in orders:
        mine = first[key.digest][1] is job
        answers.append(made.get(key.digest) if mine else None)
    rest = [key for (key, _), answer in zip(orders, answers, strict=True) if answer is None]
    found = await find(connection, rest, keyring) if rest else {}
    gone = Conflict(HELD)
    complete: list[Enqueued | GoQueueError] = []
    for (key, _), answer in zip(orders, answers, strict=True):
        complete.append(found.get(key, gone) if answer is None else answer)
    return complete, ready


async def _insert_new(
    connection: Connection, orders: Sequence[tuple[RequestKey, NewJob]], keyring: Keyring | None, wait: float
) -> tuple[dict[bytes, Enqueued], list[ReadyJob]]:
    """The jobs of those keys that are new, by the keys' digests."""
    texts = [idempotency.stored(key, keyring) for key, _ in orders]
    async with connection.pipeline():
        await connection.execute(sql.LOCK_JOBS)
        await connection.execute(enqueue.BOUND, (enqueue.milliseconds(wait),))
        cursor = await connection.execute(TAKE, (idempotency.KEEP, [key.digest for key, _ in orders], texts))
    ids = {bytes(digest): id for digest, id in await cursor.fetchall()}
    new = sorted((ids[key.digest], at) for at, (key, _) in enumerate(orders) if key.digest in ids)
    if not new:
        return {}, []
    enqueued, ready = await enqueue.insert_drawn(
        connection, [id for id, _ in new], [orders[at][1] for _, at in new], keyring
    )
    return {orders[at][0].digest: one for (_, at), one in zip(new, enqueued, strict=True)}, ready


async def insert_keyed(
    connection: Connection,
    key: RequestKey,
    job: NewJob,
    keyring: Keyring | None = None,
    *,
    wait: float = enqueue.WAIT,
) -> tuple[Enqueued | GoQueueError, list[ReadyJob]]:
    """The same for one order that has a unique key, too, whose job is then remembered for the idempotency key.

    The job comes first: while it waits for a transaction that holds the unique key nobody waits for its idempotency
    key.

    Raises:
        KeysHeld: another transaction holds one of the keys; nothing was written.
    """
    for _ in range(TURNS):
        if (found := await find(connection, [key], keyring)).get(key) is not None:
            return found[key], []
        try:
            async with connection.transaction() as transaction:
                (made,), ready = await enqueue.insert(connection, [job], keyring, wait=wait)
                text = idempotency.stored(key, keyring)
                cursor = await connection.execute(TAKE_FOR, (key.digest, text, made.id, idempotency.KEEP))
                if not cursor.rowcount:
                    raise psycopg.Rollback(transaction)  # another request with the key was faster
        except psycopg.errors.LockNotAvailable:
            raise KeysHeld(HELD) from None
        if cursor.rowcount:
            return made, ready
    raise KeysHeld(HELD)


async def postpone(connection: Connection, seconds: float) -> None:
    """Look at the key whose turn is next in that many seconds: PostgreSQL refuses to delete it."""
    await connection.execute(POSTPONE, (seconds,))


async def prune(connection: Connection, limit: int, keep: float = idempotency.KEEP) -> tuple[int, int]:
    """Forget keys whose jobs ended `keep` seconds ago or more; how many were looked at, and how many forgotten.

    At most `limit` are looked at. Each is then forgotten or due again later, so a loop until fewer are found ends.
    """
    ((looked, forgotten),) = await fetch_all(connection, PRUNE, {"limit": limit, "keep": keep})
    return looked, forgotten
