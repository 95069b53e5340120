"""Jobs enter: many orders share one INSERT, very many a COPY."""

import contextlib
from collections.abc import Sequence
from typing import Any, Final, LiteralString

import orjson
import psycopg

from goqueue.encryption import Keyring, payload_of
from goqueue.errors import Conflict, KeysHeld
from goqueue.job import Enqueued, NewJob, ReadyJob, ready_score
from goqueue.store import copy, sql
from goqueue.store.connect import Connection, fetch_all

WAIT: Final = 1.0
"""Seconds that an INSERT waits for another transaction with one of its keys, where nobody says."""

BOUND: Final[LiteralString] = "SELECT set_config('lock_timeout', %s, true)"
"""For the rest of the transaction."""

HELD: Final = "unique key is contended, try again"

HANDS: Final = 10
"""How often a key may change hands between our two statements."""

DEADLOCKS: Final = 5
"""How often an INSERT is repeated that PostgreSQL ended: two that insert the same keys in another order wait for each
other, and one has to begin again."""


def columns(jobs: Sequence[NewJob], owed: bool, payloads: list[str] | None = None) -> list[list[Any]]:
    """The orders turned by 90 degrees, as the INSERT's arrays; `payloads`: how they are stored, if encrypted."""
    return [
        [job.queue for job in jobs],
        [job.type for job in jobs],
        payloads or [orjson.dumps(job.payload).decode() for job in jobs],
        [job.max_retries for job in jobs],
        [job.priority for job in jobs],
        [job.available_at for job in jobs],
        [job.timeout for job in jobs],
        [job.unique_key for job in jobs],
        [job.source.value for job in jobs],
        [job.source_key for job in jobs],
        [job.trace_context for job in jobs],
        [job.tenant for job in jobs],
        [owed] * len(jobs),
    ]


def _row(job: NewJob) -> dict[str, Any]:
    return {
        "queue": job.queue,
        "type": job.type,
        "payload": orjson.dumps(job.payload).decode(),
        "max_retries": job.max_retries,
        "priority": job.priority,
        "due": job.available_at,
        "timeout": job.timeout,
        "source": job.source.value,
        "trace": job.trace_context,
        "tenant": job.tenant,
    }


async def _drawn(connection: Connection, jobs: Sequence[NewJob], keyring: Keyring) -> list[list[Any]]:
    """The arrays of the INSERT of encrypted jobs, which are bound to their ids; call it in a transaction."""
    ids, _ = await copy.draw(connection, len(jobs))
    return [ids, *columns(jobs, False, _sealed(ids, jobs, keyring))]


def _sealed(ids: Sequence[int], jobs: Sequence[NewJob], keyring: Keyring) -> list[str]:
    """The payloads as they are stored."""
    return [keyring.seal(payload_of(id), orjson.dumps(job.payload)).decode() for id, job in zip(ids, jobs, strict=True)]


def milliseconds(wait: float) -> str:
    """Seconds as the value of `lock_timeout`, for which 0 would mean no bound."""
    return f"{max(1, round(wait * 1000))}ms"


async def insert(
    connection: Connection, jobs: Sequence[NewJob], keyring: Keyring | None = None, *, wait: float = WAIT
) -> tuple[list[Enqueued], list[ReadyJob]]:
    """Insert all orders or none; the second list is what the caller now owes Redis. A keyring encrypts the payloads.

    Args:
        connection: Where to insert.
        jobs: The orders.
        keyring: Encrypts the payloads.
        wait: Seconds that the statement waits for another transaction with one of the keys.

    Raises:
        KeysHeld: it was not over by then; nothing was written.
        Conflict: a unique key changed hands again and again while we looked.
        StoreUnavailable: see `Database.connection`.
    """
    keyed = [index for index, job in enumerate(jobs) if job.unique_key or job.source_key]
    if not keyed:
        return await _insert_plain(connection, jobs, keyring)
    for _ in range(DEADLOCKS):
        try:
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                async with connection.transaction():
                    return await _insert_mixed(connection, jobs, keyed, keyring, wait)
        except psycopg.errors.LockNotAvailable:
            raise KeysHeld(HELD) from None
    raise KeysHeld(HELD)


async def _insert_mixed(
    connection: Connection, jobs: Sequence[NewJob], keyed: Sequence[int], keyring: Keyring | None, wait: float
) -> tuple[list[Enqueued], list[ReadyJob]]:
    plain = [index for index, job in enumerate(jobs) if not (job.unique_key or job.source_key)]
    made: dict[int, Enqueued] = {}
    async with connection.pipeline():
        await connection.execute(BOUND, (milliseconds(wait),))
        enqueued, ready = await _insert_keyed(connection, [jobs[index] for index in keyed], keyring)
    made.update(zip(keyed, enqueued, strict=True))
    if plain:
        enqueued, more = await _insert_plain(connection, [jobs[index] for index in plain], keyring)
        made.update(zip(plain, enqueued, strict=True))
        ready += more
    return [made[index] for index in range(len(jobs))], ready


async def _insert_plain(
    connection: Connection, jobs: Sequence[NewJob], keyring: Keyring | None
) -> tuple[list[Enqueued], list[ReadyJob]]:
    if len(jobs) >= copy.WORTH and connection.info.encoding == "utf-8":
        return await copy.insert(connection, jobs, keyring)
    cursor = connection.cursor(binary=True)
    if keyring is not None:
        async with connection.transaction():
            await cursor.execute(sql.INSERT_PLAIN_DRAWN, await _drawn(connection, jobs, keyring))
    elif len(jobs) == 1:
        await cursor.execute(sql.INSERT_ONE, _row(jobs[0]))
    else:
        await cursor.execute(sql.INSERT_PLAIN, columns(jobs, owed=False))
    return _made(await cursor.fetchall(), jobs)


async def insert_drawn(
    connection: Connection, ids: list[int], jobs: Sequence[NewJob], keyring: Keyring | None = None
) -> tuple[list[Enqueued], list[ReadyJob]]:
    """Insert jobs without keys under these ids, which ascend and were drawn under `LOCK_JOBS` in this transaction."""
    texts = None if keyring is None else _sealed(ids, jobs, keyring)
    cursor = connection.cursor(binary=True)
    await cursor.execute(sql.INSERT_PLAIN_DRAWN, [ids, *columns(jobs, False, texts)])
    return _made(await cursor.fetchall(), jobs)


def _made(rows: Sequence[Any], jobs: Sequence[NewJob]) -> tuple[list[Enqueued], list[ReadyJob]]:
    """Jobs from what their INSERT returned, and those that are ready; ids ascend in the order of the jobs."""
    rows = sorted(rows)
    enqueued = [Enqueued(id, True, created_at, available_at) for id, created_at, available_at, _ in rows]
    return enqueued, [_ready(row, job) for row, job in zip(rows, jobs, strict=True) if row[3]]


def _ready(row: Sequence[Any], job: NewJob) -> ReadyJob:
    return ReadyJob(row[0], job.queue, ready_score(job.priority, int(row[2].timestamp() * 1000)))


async def _insert_keyed(
    connection: Connection, jobs: Sequence[NewJob], keyring: Keyring | None
) -> tuple[list[Enqueued], list[ReadyJob]]:
    """Insert what no key forbids, find what stood there; a holder that ends in between frees the key for us."""
    result: dict[int, Enqueued] = {}
    ready: list[ReadyJob] = []
    for _ in range(HANDS):
        left = [index for index in range(len(jobs)) if index not in result]
        rows = await _insert_new(connection, [jobs[index] for index in left], keyring)
        made = {(active or source): row for *row, active, source in rows}
        for index in left:
            job = jobs[index]
            row = made.pop(job.active_key or job.source_key, None)
            if row is not None:
                result[index] = Enqueued(row[0], True, row[1], row[2])
                if row[3]:
                    ready.append(_ready(row, job))
        left = [index for index in left if index not in result]
        if left:
            found = await find_keyed(connection, [jobs[index] for index in left])
            result.update({index: found[at] for at, index in enumerate(left) if at in found})
        if len(result) == len(jobs):
            return [result[index] for index in range(len(jobs))], ready
    raise Conflict(HELD)


async def _insert_new(connection: Connection, jobs: Sequence[NewJob], keyring: Keyring | None) -> Sequence[Any]:
    """Insert what no key forbids. The rows go in by their keys, so that no two that insert the same keys wait for each
    other; the ids are in the order of the jobs."""
    if len(jobs) == 1 and keyring is None:
        return await fetch_all(connection, sql.INSERT_KEYED, columns(jobs, owed=False))
    ids, _ = await copy.draw(connection, len(jobs))
    by_key = sorted(zip(ids, jobs, strict=True), key=lambda drawn: drawn[1].active_key or drawn[1].source_key or "")
    drawn, wanted = [id for id, _ in by_key], [job for _, job in by_key]
    texts = None if keyring is None else _sealed(drawn, wanted, keyring)
    return await fetch_all(connection, sql.INSERT_KEYED_DRAWN, [drawn, *columns(wanted, False, texts)])


async def find_keyed(connection: Connection, jobs: Sequence[NewJob]) -> dict[int, Enqueued]:
    """The jobs that hold the keys of these orders, by the orders' places; an order without a key has none."""
    rows = await fetch_all(
        connection,
        sql.FIND_KEYED,
        [
            [job.active_key for job in jobs if job.unique_key],
            [job.source_key for job in jobs if job.source_key],
        ],
    )
    by_active = {active: id for id, active, _ in rows if active}
    by_source = {source: id for id, _, source in rows if source}
    found = {}
    for at, job in enumerate(jobs):
        id = by_source.get(job.source_key) or by_active.get(job.active_key)
        if id is not None:
            found[at] = Enqueued(id, False)
    return found
