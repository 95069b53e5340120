"""Jobs as readers and operators see them: get, list, cancel, retry, delete, and the Go project's setters."""

import dataclasses
from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import sql as compose
from psycopg.rows import class_row

from goqueue import encryption
from goqueue.encryption import Keyring, sealed_text, shown, shown_text
from goqueue.job import Attempt, Job, JobFilter, ReadyJob, ready_score
from goqueue.lifecycle import OPEN, JobStatus, sources
from goqueue.store import sql
from goqueue.store.connect import Connection, fetch_all


def _job(row: Sequence[Any]) -> Job:
    """A row of `sql.COLUMNS`, in the order of `Job`'s fields."""
    job = Job(*row)
    job.status = JobStatus(job.status)
    return job


def _revealed(job: Job, keyring: Keyring | None) -> Job:
    """The job with what is encrypted in it opened; without keys it is shown as it is stored."""
    if keyring is not None:
        job.payload = shown(keyring, encryption.payload_of(job.id), job.payload)
        job.result = shown(keyring, encryption.result_of(job.id), job.result)
        job.error = shown_text(keyring, encryption.error_of(job.id), job.error)
    return job


async def get(connection: Connection, ids: Sequence[int], keyring: Keyring | None = None) -> dict[int, Job]:
    """The jobs with these ids, without those that are not there or were deleted."""
    rows = await fetch_all(connection, sql.GET_JOBS, (list(ids),))
    return {row[0]: _revealed(_job(row), keyring) for row in rows}


async def find(connection: Connection, wanted: JobFilter, keyring: Keyring | None = None) -> list[Job]:
    """One page of jobs, ordered by id. Open ones are found without an index on status, see `goqueue.store.sql`."""
    where: list[compose.Composable] = [compose.SQL("deleted_at IS NULL")]
    values: list[Any] = []

    def add(condition: LiteralString, value: Any) -> None:
        where.append(compose.SQL(condition))
        values.append(value)

    reach = wanted.reach
    if reach is not None and reach.tenant is None:
        where.append(compose.SQL("tenant IS NULL"))
    elif reach is not None:
        add("tenant = %s", reach.tenant)
    if reach is not None and reach.queues is not None:
        add("queue = ANY(%s)", sorted(reach.queues))
    if reach is not None and reach.types is not None:
        add("type = ANY(%s)", sorted(reach.types))
    if wanted.queue is not None:
        add("queue = %s", wanted.queue)
    if wanted.type is not None:
        add("type = %s", wanted.type)
    if wanted.status is not None:
        add("status = %s", wanted.status.value)
        if wanted.status in OPEN:
            where.append(compose.SQL(f"(id >= {sql.FLOOR} OR dispatch_at IS NOT NULL) AND finished_at IS NULL"))
        elif wanted.status is JobStatus.FAILED:
            where.append(compose.SQL("failed_at IS NOT NULL"))
    if wanted.created_after is not None:
        add("created_at >= %s", wanted.created_after)
    if wanted.created_before is not None:
        add("created_at < %s", wanted.created_before)
    if wanted.after is not None:
        add("id < %s" if wanted.newest_first else "id > %s", wanted.after)
    query = compose.SQL("SELECT {columns} FROM jobs WHERE {where} ORDER BY id {order} LIMIT {limit}").format(
        columns=compose.SQL(sql.COLUMNS),
        where=compose.SQL(" AND ").join(where),
        order=compose.SQL("DESC" if wanted.newest_first else "ASC"),
        limit=compose.Literal(wanted.limit),
    )
    cursor = await connection.execute(query, values, prepare=False)
    return [_revealed(_job(row), keyring) for row in await cursor.fetchall()]


async def place_of(connection: Connection, job_id: int) -> tuple[str | None, str, str] | None:
    """The job's tenant, queue and type, which never change; None where there is no such job."""
    rows = await fetch_all(connection, sql.PLACE_OF, (job_id,))
    return (rows[0][0], rows[0][1], rows[0][2]) if rows else None


async def status_of(connection: Connection, job_id: int) -> JobStatus | None:
    """The job's status, or None where there is no such job."""
    rows = await fetch_all(connection, sql.STATUS_OF, (job_id,))
    return JobStatus(rows[0][0]) if rows else None


async def set_status(connection: Connection, job_id: int, status: JobStatus) -> str | None:
    """Move the job by hand where the state machine allows it; returns its queue, or None where it does not."""
    parameters = {
        "id": job_id,
        "status": status.value,
        "final": status.final,
        "sources": [source.value for source in sources(status)],
    }
    rows = await fetch_all(connection, sql.SET_STATUS, parameters)
    return rows[0][0] if rows else None


async def increment_attempts(connection: Connection, job_id: int) -> bool:
    """attempts + 1, atomically; False where there is no such job."""
    return bool(await fetch_all(connection, sql.INCREMENT_ATTEMPTS, (job_id,)))


async def save_result(
    connection: Connection, job_id: int, result: str | None, error: str | None, keyring: Keyring | None = None
) -> bool:
    """Store a result (JSON text) and an error; False where there is no such job."""
    if keyring is not None:
        result = sealed_text(keyring, encryption.result_of(job_id), result)
        error = sealed_text(keyring, encryption.error_of(job_id), error)
    return bool(await fetch_all(connection, sql.SAVE_RESULT, (result, error, job_id)))


async def cancel(connection: Connection, job_id: int) -> tuple[JobStatus, str] | None:
    """Cancel an open job; returns its status now and its queue, or None where nothing was open."""
    rows = await fetch_all(connection, sql.CANCEL, (job_id,))
    return (JobStatus(rows[0][0]), rows[0][1]) if rows else None


async def retry(connection: Connection, job_id: int) -> ReadyJob | None:
    """Give a failed or cancelled job a fresh set of attempts; None where it is in another state."""
    rows = await fetch_all(connection, sql.RETRY, (job_id,))
    if not rows:
        return None
    queue, priority, available_at = rows[0]
    return ReadyJob(job_id, queue, ready_score(priority, int(available_at.timestamp() * 1000)))


async def soft_delete(connection: Connection, job_id: int) -> bool:
    """Hide the job from readers; retention removes it later. False where there is none."""
    return bool(await fetch_all(connection, sql.SOFT_DELETE, (job_id,)))


async def attempts_of(connection: Connection, job_id: int, keyring: Keyring | None = None) -> list[Attempt]:
    """The finished attempts of a job, oldest first; a success is read off the job itself."""
    cursor = connection.cursor(row_factory=class_row(Attempt))
    await cursor.execute(sql.ATTEMPTS_OF, {"id": job_id})
    found = await cursor.fetchall()
    if keyring is None:
        return found
    place = encryption.error_of(job_id)
    return [dataclasses.replace(one, error=shown_text(keyring, place, one.error)) for one in found]


async def logs_of(
    connection: Connection, job_id: int, after: int = 0, limit: int = 1000, keyring: Keyring | None = None
) -> list[dict[str, Any]]:
    """The lines that the job's handler logged, oldest first; `after` is the id of the last one of the page before."""
    rows: Sequence[Any] = await fetch_all(connection, sql.LOGS_OF, (job_id, after, limit))
    lines = [dict(zip(("id", "round", "attempt", "level", "message", "at"), row, strict=True)) for row in rows]
    if keyring is not None:
        for line in lines:
            line["message"] = shown_text(keyring, encryption.log_of(job_id), line["message"])
    return lines
