"""Attempts begin and end: claim, finish, heartbeat. The worker's half of the hot path; every write is fenced."""

import secrets
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import orjson

from goqueue import encryption
from goqueue.encryption import Keyring, sealed_text
from goqueue.job import AttemptEnd, ClaimedJob, LogLine, Outcome, ReadyJob, ready_score
from goqueue.store import attempt_sql, sql
from goqueue.store.connect import Connection, fetch_all

_STATUS: Final = {
    Outcome.RETRIED: "pending",
    Outcome.SNOOZED: "pending",
    Outcome.HANDED_BACK: "pending",
    Outcome.DEFERRED: "pending",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "cancelled",
}
_REFUND: Final = {Outcome.SNOOZED: 1, Outcome.HANDED_BACK: 1, Outcome.DEFERRED: 1}
"""Outcomes that give the attempt back, since it was not the job's fault."""


def array_text(items: Iterable[int | str]) -> str:
    """PostgreSQL's text form of an array; psycopg's own way looks at every item and takes a dozen times as long."""
    return "{" + ",".join(map(str, items)) + "}"


def new_lease() -> int:
    """A lease for one claim: a random number that fits PostgreSQL's `integer`.

    It names the claim among all claims of a job and is only compared for equality. A counter would repeat: where a
    failover loses the last transactions, ids of jobs are drawn again, and their leases would begin at 1 again. From the
    system's generator, since a handler may seed the one of `random`.
    """
    return 1 + secrets.randbits(30)


async def claim(
    connection: Connection,
    worker_id: int,
    ids: Sequence[int],
    *,
    queue: str,
    lease: int,
    skip_locked: bool = False,
) -> list[ClaimedJob]:
    """Take the jobs among `ids` that wait in the queue and are due, in one statement; they get this lease.

    PostgreSQL is the arbiter: an id that was taken, cancelled, pushed twice or that belongs to another queue yields
    nothing, and neither does a paused queue or a worker that was buried. `skip_locked` leaves out rows that another
    transaction has locked.
    """
    cursor = connection.cursor(binary=True)
    await cursor.execute(
        attempt_sql.CLAIM_UNLOCKED if skip_locked else attempt_sql.CLAIM,
        {"worker": worker_id, "ids": array_text(ids), "queue": queue, "lease": lease},
    )
    return [ClaimedJob(*row) for row in await cursor.fetchall()]


async def held(connection: Connection, worker_id: int, ids: Iterable[int], leases: Iterable[int]) -> list[ClaimedJob]:
    """Those of the jobs that this worker holds under one of the leases, as their claim would have returned them."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(attempt_sql.HELD, {"worker": worker_id, "ids": array_text(ids), "leases": array_text(leases)})
    return [ClaimedJob(*row) for row in await cursor.fetchall()]


async def still_processing(connection: Connection, attempts: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of the attempts, given as job and lease, that have not ended."""
    wanted = {"ids": array_text(id for id, _ in attempts), "leases": array_text(lease for _, lease in attempts)}
    return [(row[0], row[1]) for row in await fetch_all(connection, attempt_sql.STILL_PROCESSING, wanted)]


async def passed_over(connection: Connection, ids: Sequence[int]) -> tuple[list[ReadyJob], set[str]]:
    """What became of jobs that a claim asked for and did not get: those that are still ready, and which of their queues
    are paused. Those of them that somebody asked to cancel are cancelled."""
    wanted = {"ids": array_text(ids)}
    await connection.execute(attempt_sql.END_CANCELLED, wanted)
    rows = await fetch_all(connection, attempt_sql.WAITING, wanted)
    ready = [
        ReadyJob(id, queue, ready_score(priority, int(at.timestamp() * 1000))) for id, queue, priority, at, _ in rows
    ]
    return ready, {row[1] for row in rows if row[4]}


_BY_JOB: Final = attrgetter("id")


def _results(ends: Sequence[AttemptEnd], keyring: Keyring | None) -> list[str | None]:
    if keyring is None:
        return [end.result for end in ends]
    return [sealed_text(keyring, encryption.result_of(end.id), end.result) for end in ends]


async def complete(connection: Connection, ends: Sequence[AttemptEnd], keyring: Keyring | None = None) -> set[int]:
    """Write completions; returns the ids that were ours, now or in an earlier write of the same ends. The rest had lost
    their lease and changed nothing."""
    each = {end.id: end for end in sorted(ends, key=_BY_JOB)}
    if len(each) == len(ends):
        return await _complete(connection, each, keyring)
    # Two claims of one job ended. Leases have no order; each end is written, and the one that holds the lease counts.
    ours = await _complete(connection, each, keyring)
    return ours | await complete(connection, [end for end in ends if each[end.id] is not end], keyring)


async def _complete(connection: Connection, ends: dict[int, AttemptEnd], keyring: Keyring | None) -> set[int]:
    """Write one end of each of these jobs, whose ids ascend."""
    results = None
    if any(end.result for end in ends.values()):
        texts = zip(ends, _results(list(ends.values()), keyring), strict=True)
        results = "{" + ",".join(f'"{id}":{text}' for id, text in texts if text is not None) + "}"
    held = {"ids": array_text(ends), "leases": array_text([end.lease for end in ends.values()])}
    statement, values = attempt_sql.COMPLETE, held | {"results": results}
    if any(end.progress is not None for end in ends.values()):
        reported = ",".join(f'"{end.id}":{end.progress!r}' for end in ends.values() if end.progress is not None)
        statement, values = attempt_sql.COMPLETE_WITH_PROGRESS, values | {"progress": f"{{{reported}}}"}
    cursor = await connection.execute(statement, values)
    if cursor.rowcount == len(ends):
        return set(ends)
    return {row[0] for row in await fetch_all(connection, attempt_sql.COMPLETED, held)}


async def end_otherwise(connection: Connection, ends: Sequence[AttemptEnd], keyring: Keyring | None = None) -> set[int]:
    """Write all other ends of attempts, each with its row in `job_attempts`; returns the ids that were ours."""
    ends = sorted(ends, key=_BY_JOB)  # all that write to several jobs lock them in this order
    errors = [end.error for end in ends]
    if keyring is not None:
        errors = [sealed_text(keyring, encryption.error_of(end.id), end.error) for end in ends]
    rows = await fetch_all(
        connection,
        attempt_sql.END_OTHERWISE,
        (
            [end.id for end in ends],
            [end.lease for end in ends],
            [_STATUS[end.outcome] for end in ends],
            errors,
            [_REFUND.get(end.outcome, 0) for end in ends],
            [end.delay for end in ends],
            _results(ends, keyring),
            [end.outcome.value for end in ends],
            [end.trace_context for end in ends],
            [end.progress for end in ends],
        ),
    )
    return {row[0] for row in rows}


async def deferred_for(connection: Connection, job_id: int) -> float | None:
    """Seconds since the job was deferred for the first time after its last attempt that ran; None: it was not."""
    rows = await fetch_all(connection, attempt_sql.DEFERRED_FOR, {"job": job_id})
    waited: float | None = rows[0][0]
    return waited


async def locked(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of the jobs whose rows somebody else has locked. The others are locked for this transaction from now on."""
    return {row[0] for row in await fetch_all(connection, attempt_sql.LOCKED, {"ids": array_text(ids)})}


async def register(connection: Connection, name: str, queues: Sequence[str], concurrency: int) -> int:
    """A new worker id; one process takes a new one whenever it was declared dead."""
    rows = await fetch_all(connection, sql.REGISTER_WORKER, (name, list(queues), concurrency))
    return int(rows[0][0])


async def heartbeat(connection: Connection, worker_id: int, busy: int, draining: bool, stats: dict[str, Any]) -> bool:
    """Say that the worker lives; False where it was declared dead in the meantime."""
    parameters = {
        "worker": worker_id,
        "name": None,
        "busy": busy,
        "draining": draining,
        "stats": orjson.dumps(stats).decode(),
    }
    return bool(await fetch_all(connection, sql.HEARTBEAT, parameters))


async def cancel_requests(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Which of these running jobs somebody asked to cancel."""
    return [row[0] for row in await fetch_all(connection, sql.CANCEL_REQUESTS, (list(ids),))]


async def deregister(connection: Connection, worker_id: int) -> None:
    """Take leave; the jobs must have been finished or handed back before."""
    await connection.execute(sql.DEREGISTER_WORKER, (worker_id,))


async def save_progress(connection: Connection, reports: Sequence[tuple[int, int, float]]) -> None:
    """Store `(job id, lease, fraction)` triples."""
    await connection.execute(sql.SAVE_PROGRESS, [list(column) for column in zip(*reports, strict=True)])


async def save_logs(connection: Connection, lines: Sequence[LogLine], keyring: Keyring | None = None) -> None:
    """Store lines that handlers logged; those of jobs that are no more are left out."""
    if keyring is not None:
        lines = [
            line._replace(message=keyring.seal(encryption.log_of(line.job_id), line.message.encode()).decode())
            for line in lines
        ]
    await connection.execute(sql.SAVE_LOGS, [list(column) for column in zip(*lines, strict=True)])
