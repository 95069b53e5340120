"""Jobs as readers and operators see them: get, cancel, retry, delete, and the Go project's setters."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from goqueue import encryption
from goqueue.encryption import Keyring, sealed_text, shown, shown_text
from goqueue.errors import Conflict
from goqueue.job import Job, ReadyJob, ready_score
from goqueue.lifecycle import JobStatus, sources
from goqueue.store import sql
from goqueue.store.connect import Connection, fetch_all


def job_of(row: Sequence[Any]) -> Job:
    """A row of `sql.COLUMNS`, in the order of `Job`'s fields."""
    job = Job(*row)
    job.status = JobStatus(job.status)
    return job


def revealed(job: Job, keyring: Keyring | None) -> Job:
    """The job with what is encrypted in it opened; without keys it is shown as it is stored."""
    if keyring is not None:
        job.payload = shown(keyring, encryption.payload_of(job.id), job.payload)
        job.result = shown(keyring, encryption.result_of(job.id), job.result)
        job.error = shown_text(keyring, encryption.error_of(job.id), job.error)
    return job


async def get(connection: Connection, ids: Sequence[int], keyring: Keyring | None = None) -> dict[int, Job]:
    """The jobs with these ids, without those that are not there or were deleted."""
    rows = await fetch_all(connection, sql.GET_JOBS, (list(ids),))
    return {row[0]: revealed(job_of(row), keyring) for row in rows}


async def place_of(connection: Connection, job_id: int) -> tuple[str | None, str, str] | None:
    """The job's tenant, queue and type, which never change; None where there is no such job."""
    rows = await fetch_all(connection, sql.PLACE_OF, (job_id,))
    return (rows[0][0], rows[0][1], rows[0][2]) if rows else None


async def status_of(connection: Connection, job_id: int) -> JobStatus | None:
    """The job's status, or None where there is no such job."""
    rows = await fetch_all(connection, sql.STATUS_OF, (job_id,))
    return JobStatus(rows[0][0]) if rows else None


async def set_status(connection: Connection, job_id: int, status: JobStatus) -> str | None:
    """Move the job by hand where the state machine allows it; returns its queue, or None where it does not.

    Raises:
        Conflict: it would be open again, and another open job holds its unique key.
    """
    parameters = {
        "id": job_id,
        "status": status.value,
        "final": status.final,
        "sources": [source.value for source in sources(status)],
    }
    with _key_is_free():
        rows = await fetch_all(connection, sql.SET_STATUS, parameters)
    return rows[0][0] if rows else None


@contextlib.contextmanager
def _key_is_free() -> Iterator[None]:
    """Around a statement that opens a job again: says in our words that its unique key is taken, or may soon be."""
    try:
        yield
    except psycopg.errors.UniqueViolation:
        raise Conflict("another open job has this job's unique key", {"unique_key": "taken"}) from None
    except psycopg.errors.LockNotAvailable:
        raise Conflict("another transaction holds this job or its unique key, try again") from None


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
    """Give a failed or cancelled job a fresh set of attempts; None where it is in another state.

    Raises:
        Conflict: another open job holds its unique key.
    """
    with _key_is_free():
        rows = await fetch_all(connection, sql.RETRY, (job_id,))
    if not rows:
        return None
    queue, priority, available_at = rows[0]
    return ReadyJob(job_id, queue, ready_score(priority, int(available_at.timestamp() * 1000)), listed=True)


async def soft_delete(connection: Connection, job_id: int) -> bool:
    """Hide the job from readers; retention removes it later. False where there is none."""
    return bool(await fetch_all(connection, sql.SOFT_DELETE, (job_id,)))


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
