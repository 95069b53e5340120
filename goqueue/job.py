"""What a job is: the row as the rest of the code sees it, and the order that asks for one. Pure data.

What is made once a job is not frozen: that would make its making four times as slow.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from goqueue.access import Reach
from goqueue.lifecycle import JobStatus

QUEUE_NAME: Final = re.compile(r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$")
"""A queue's name: fits a Kubernetes label and a Redis key."""

MAX_ID: Final = 2**63 - 1
MAX_RETRIES: Final = 20
DEFAULT_MAX_RETRIES: Final = 5
MIN_PRIORITY: Final = -100
MAX_PRIORITY: Final = 100
MIN_TIMEOUT_SECONDS: Final = 0.001
"""Shorter than any attempt; PostgreSQL's `real` would hold nothing below 1e-45."""

MAX_TIMEOUT_SECONDS: Final = 86_400
MAX_KEY_LENGTH: Final = 255
MAX_RESULT_BYTES: Final = 256 * 1024
"""Largest result, in bytes of JSON, that an attempt may store."""


class Source(StrEnum):
    """Through which door a job came."""

    API = "api"
    LIBRARY = "library"
    SCHEDULE = "schedule"
    KUBERNETES = "kubernetes"


@dataclass(slots=True)
class NewJob:
    """An order for one job, already validated. Built by `goqueue.service`, inserted by `goqueue.store`.

    `available_at` None means now by PostgreSQL's clock. `timeout` is in seconds, None for the type's default.
    `tenant` None is the default tenant. `unique_key`: while a job of the tenant, or of a Kubernetes resource's
    namespace, with this key is not final, no second one is made. `source_key`: at most one job ever carries it (the
    CR's uid, or a schedule's tick). `dispatch` True leaves the push to the dispatcher.
    """

    queue: str
    type: str
    payload: dict[str, Any]
    max_retries: int = DEFAULT_MAX_RETRIES
    priority: int = 0
    available_at: datetime | None = None
    timeout: float | None = None
    unique_key: str | None = None
    source: Source = Source.API
    source_key: str | None = None
    trace_context: str | None = None
    tenant: str | None = None

    @property
    def active_key(self) -> str | None:
        """The unique key as the unique index holds it: after the name of the tenant, and for a job of a Kubernetes
        resource after the resource's namespace and installation, which stand behind the `@` of its `source_key`.

        Keys hold no control characters, so no key of one tenant or namespace is one of another. The same in SQL:
        `goqueue.store.sql`.
        """
        if not self.unique_key:
            return self.unique_key
        place = self.source_key.partition("@")[2] if self.source_key else ""
        tenant = "" if self.tenant is None else f"{self.tenant}\x1f"
        return tenant + (f"\x1f{place}\x1f" if place else "") + self.unique_key

    def for_each(self, payloads: Iterable[dict[str, Any]]) -> "list[NewJob]":
        """The same order with each of these payloads."""
        return [
            NewJob(
                self.queue,
                self.type,
                payload,
                self.max_retries,
                self.priority,
                self.available_at,
                self.timeout,
                self.unique_key,
                self.source,
                self.source_key,
                self.trace_context,
                self.tenant,
            )
            for payload in payloads
        ]


@dataclass(slots=True)
class Enqueued:
    """What became of one order: the job's id, and whether it was made now or stood there already.

    The times, by PostgreSQL's clock, are there for a job made now.
    """

    id: int
    created: bool
    created_at: datetime | None = None
    available_at: datetime | None = None


@dataclass(slots=True)
class Job:
    """A row of `jobs`. Times are aware UTC datetimes; `timeout` in seconds."""

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
    source: str
    worker_id: int | None
    cancel_requested_at: datetime | None
    progress: float | None
    trace_context: str | None
    tenant: str | None


@dataclass(slots=True)
class ClaimedJob:
    """What a worker holds while it runs one attempt: `lease`, drawn for the claim, fences every later write.

    `payload` is JSON text, decoded where the attempt begins; `timeout` and `waited`, from the time the job could run to
    its claim by PostgreSQL's clock, are in seconds. `created` is when the job was made, in seconds since the epoch, and
    `deaths` how many workers died while they held it.
    """

    id: int
    lease: int
    attempt: int
    queue: str
    type: str
    payload: str
    max_retries: int
    timeout: float | None
    waited: float
    trace_context: str | None
    created: float = 0.0
    deaths: int = 0


class Outcome(StrEnum):
    """How an attempt ended. Only `completed` leaves no row in `job_attempts`.

    `deferred`: this worker cannot run the job, another may: it knows no such type, its model does not accept the
    payload, or it does not have the encryption key.
    """

    COMPLETED = "completed"
    RETRIED = "retried"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SNOOZED = "snoozed"
    HANDED_BACK = "handed_back"
    DEFERRED = "deferred"
    RESCUED = "rescued"


@dataclass(slots=True)
class AttemptEnd:
    """The end of one attempt, as the worker reports it to the store.

    `delay` (seconds until the next attempt) counts for outcomes that another attempt follows; `result` is JSON text or
    None.
    `progress` is the last that the attempt reported; it is kept where the job is final.
    `trace_context` takes the place of the job's, where it is not None and the job goes on.
    """

    id: int
    lease: int
    outcome: Outcome
    result: str | None = None
    error: str | None = None
    delay: float = 0.0
    trace_context: str | None = None
    progress: float | None = None


class LogLine(NamedTuple):
    """A line that a handler logged. `created` is when its job was made, as in `ClaimedJob`: with the id alone the line
    could get to another job that was given it."""

    job_id: int
    created: float
    attempt: int
    level: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One finished attempt, as kept for the reader. A retry by hand begins a new round, in which they count from 1."""

    round: int
    attempt: int
    outcome: str
    error: str | None
    worker: str | None
    started_at: datetime | None
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class AttemptPage:
    """Some attempts of a job, oldest first."""

    attempts: list[Attempt]
    next: str | None
    """What `after` must be for the next page; None: there is none."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a listing shows; `after` is the id of the last one of the page before (keyset paging)."""

    queue: str | None = None
    type: str | None = None
    status: JobStatus | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    after: int | None = None
    newest_first: bool = False
    limit: int = 100
    reach: Reach | None = None
    """Only jobs within it; None: those of all tenants."""
    settled: bool = False
    """Only jobs below the first id that a transaction under way may still add; pages by `after` then skip none."""
    before: int | None = None
    """Only jobs with a lower id."""


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs that a filter let through, ordered by id."""

    jobs: list[Job]
    next: int | None
    """What `after` must be for the next page; None: there is none. A page that ran out of time, or of memory, may be
    short, or empty, and have a next one."""


@dataclass(slots=True)
class ReadyJob:
    """What Redis needs to know of a job: where it waits and with which precedence."""

    id: int
    queue: str
    score: float = field(default=0.0)
    listed: bool = False
    """Whether it has a `dispatch_at`, by which the dispatcher finds it."""


def ready_score(priority: int, available_at_ms: int) -> float:
    """The score in a ready set: the higher the priority the lower, then by time; lowest is fetched first.

    10**13 ms is the year 2286 and |priority| <= 100, so every score is an integer that a double holds exactly.
    """
    return float(-priority * 10**13 + min(max(available_at_ms, 0), 10**13 - 1))


def ready_time_ms(score: float) -> int:
    """The `available_at` (ms since the epoch) that `ready_score` put into a score; 0 for an infinite one."""
    return int(score) % 10**13 if math.isfinite(score) else 0


def ready_priority(score: float) -> int:
    """The priority that `ready_score` put into a score; 0 for an infinite one."""
    return -(int(score) // 10**13) if math.isfinite(score) else 0
