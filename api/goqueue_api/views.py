"""What the API shows: response models for OpenAPI, and the functions that fill them on the fast path."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from goqueue import key_management
from goqueue.job import Enqueued, Job, NewJob
from goqueue.keys import ApiKey, Token
from goqueue.lifecycle import JobStatus
from goqueue.tracecontext import trace_id


class JobView(BaseModel):
    """A job. `timeout` in seconds, `progress` from 0 to 1 as its handler reports it.

    `trace_id`: of the trace that shows its way, where one is recorded.
    """

    id: int
    queue: str
    type: str
    payload: dict[str, Any]
    status: JobStatus
    attempts: int
    max_retries: int
    result: Any
    error: str | None
    created_at: datetime
    updated_at: datetime
    priority: int
    available_at: datetime
    timeout: float | None
    started_at: datetime | None
    finished_at: datetime | None
    unique_key: str | None
    tenant: str | None
    source: str
    progress: float | None
    cancel_requested: bool
    trace_id: str | None


class AttemptView(BaseModel):
    """One finished attempt. A retry by hand begins a new `round`, in which attempts are counted from 1 again."""

    round: int
    attempt: int
    outcome: str
    error: str | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime


class LogLine(BaseModel):
    """A line that the job's handler reported."""

    id: int
    round: int
    attempt: int
    level: str
    message: str
    at: datetime


class AttemptsView(BaseModel):
    """One page of the finished attempts of a job, oldest first, and with the first page the first 1,000 lines that its
    handler logged."""

    attempts: list[AttemptView]
    logs: list[LogLine]


class CancelView(BaseModel):
    """`cancelled` where the job waited; `processing` where its worker was asked to stop."""

    status: JobStatus


class BulkView(BaseModel):
    """The ids in the order of the request, and how many jobs are new."""

    ids: list[int]
    created: int


class QueueView(BaseModel):
    """A queue now. Ages in seconds, rates in jobs a second (None until measured).

    `workers` fetch from it; with 0 its jobs wait.
    """

    name: str
    paused: bool
    depth: int
    oldest_seconds: float | None
    in_flight: int
    workers: int
    arrived_per_second: float | None
    finished_per_second: float | None


class QueuesView(BaseModel):
    """All queues. `degraded`: Redis is away, depths are PostgreSQL's counts."""

    queues: list[QueueView]
    degraded: bool


class ScheduleView(BaseModel):
    """A cron schedule with its next five fire times (UTC). `cannot_fire`: why an enabled one has none."""

    name: str
    cron: str
    time_zone: str
    job: dict[str, Any]
    enabled: bool
    tenant: str | None
    last_tick: datetime | None
    last_job_id: int | None
    next_ticks: list[datetime]
    cannot_fire: str | None
    created_at: datetime
    updated_at: datetime


class TypeView(BaseModel):
    """A job type; `payload` is its JSON Schema, `timeout` in seconds."""

    name: str
    description: str
    queue: str
    timeout: float
    payload: dict[str, Any]


class Health(BaseModel):
    """`ok`; other keys name what is degraded."""

    status: str
    redis: str | None = None


def job_view(job: Job) -> dict[str, Any]:
    """A `JobView` as a dictionary."""
    return {
        "id": job.id,
        "queue": job.queue,
        "type": job.type,
        "payload": job.payload,
        "status": job.status.value,
        "attempts": job.attempts,
        "max_retries": job.max_retries,
        "result": job.result,
        "error": job.error,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "priority": job.priority,
        "available_at": job.available_at,
        "timeout": job.timeout,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "unique_key": job.unique_key,
        "tenant": job.tenant,
        "source": job.source,
        "progress": job.progress,
        "cancel_requested": job.cancel_requested_at is not None,
        "trace_id": trace_id(job.trace_context),
    }


def created_view(order: NewJob, made: Enqueued) -> dict[str, Any]:
    """The `JobView` of a job made just now, without reading it back."""
    return {
        "id": made.id,
        "queue": order.queue,
        "type": order.type,
        "payload": order.payload,
        "status": JobStatus.PENDING.value,
        "attempts": 0,
        "max_retries": order.max_retries,
        "result": None,
        "error": None,
        "created_at": made.created_at,
        "updated_at": made.created_at,
        "priority": order.priority,
        "available_at": made.available_at,
        "timeout": order.timeout,
        "started_at": None,
        "finished_at": None,
        "unique_key": order.unique_key,
        "tenant": order.tenant,
        "source": order.source.value,
        "progress": None,
        "cancel_requested": False,
        "trace_id": trace_id(order.trace_context),
    }


def key_view(key: ApiKey, token: Token | None = None) -> dict[str, Any]:
    """A `goqueue_api.admin.KeyView` as a dictionary; with the token a `NewKeyView`."""
    view = {
        "prefix": key.prefix,
        "name": key.name,
        **key_management.grants(key),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "former_until": key.former_until,
    }
    return view if token is None else {**view, "key": token.text}
