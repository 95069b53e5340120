"""One attempt: run the handler of a claimed job and decide how the attempt ended."""

import asyncio
import contextlib
import contextvars
import inspect
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog
from pydantic import BaseModel, ValidationError

from goqueue import encryption, tracing
from goqueue.encryption import KeyMissing, Keyring, Unreadable
from goqueue.errors import NeverRetry, RetryIn, Snooze
from goqueue.job import MAX_RESULT_BYTES, AttemptEnd, ClaimedJob, Outcome
from goqueue.jsontext import holds_nul, storable
from goqueue.registry import Handler, JobType, field_errors
from goqueue.retry import DEFAULT_RETRY, RetryPolicy
from goqueue_worker.reports import AttemptLog, Reports

if TYPE_CHECKING:
    from goqueue_worker.threads import Threads

log = structlog.get_logger(__name__)

MAX_ERROR_LENGTH: Final = 4_000
"""Characters of an error that are kept."""

ABANDON_AFTER: Final = 5.0
"""Seconds after its interruption at which an attempt ends without its handler, if that has not stopped."""


class Stop(StrEnum):
    """Why the worker interrupts a running attempt."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    HAND_BACK = "hand_back"


class RunningAttempt:
    """An attempt while it runs; also the `JobContext` that its handler sees.

    `started` and `deadline` are `time.monotonic()` values in seconds. At the deadline the worker acts: it interrupts
    the handler, or ends the attempt without a handler that it has interrupted before. `begun` is False while the
    attempt waits for a thread or a process. `failure` is what the handler raised, where that ended it; `reported` the
    progress that it reported last; `logged` how much it logged, None: nothing. Once `over`, its end is decided and the
    handler is not listened to any more.
    """

    __slots__ = (
        "_reports",
        "begun",
        "context",
        "deadline",
        "failure",
        "job",
        "logged",
        "over",
        "policy",
        "reported",
        "span",
        "started",
        "stop",
        "task",
        "timeout",
    )

    def __init__(self, job: ClaimedJob, timeout: float, reports: Reports, policy: RetryPolicy = DEFAULT_RETRY) -> None:
        self.job = job
        self.timeout = timeout
        self.policy = policy
        self.started = time.monotonic()
        self.deadline = self.started + timeout
        self.begun = True
        self.over = False
        self.stop: Stop | None = None
        self.task: asyncio.Task[None] | None = None
        self.context: contextvars.Context | None = None
        self.span: Any = None
        self.failure: BaseException | None = None
        self.reported: float | None = None
        self.logged: AttemptLog | None = None
        self._reports = reports

    def begin(self) -> None:
        """The handler begins now: so does the time that it has."""
        self.started = time.monotonic()
        self.deadline = self.started + self.timeout
        self.begun = True

    def wait(self, seconds: float) -> None:
        """The handler cannot begin yet. It goes back to its queue after that many seconds."""
        self.deadline = time.monotonic() + seconds
        self.begun = False

    def interrupt(self, reason: Stop) -> None:
        """Ask the handler to stop; the first reason stands. Call it in the event loop's thread.

        A task that has not begun looks for the reason first: to cancel it would end it before it could write an end.
        """
        if self.stop is None and not self.over:
            self.stop = reason
            self.deadline = time.monotonic() + ABANDON_AFTER
            if self.task is not None:
                self.task.cancel()

    @property
    def job_id(self) -> int:
        return self.job.id

    @property
    def created(self) -> float:
        return self.job.created

    @property
    def attempt(self) -> int:
        return self.job.attempt

    @property
    def max_retries(self) -> int:
        return self.job.max_retries

    @property
    def deaths(self) -> int:
        return self.job.deaths

    @property
    def queue(self) -> str:
        return self.job.queue

    @property
    def cancelled(self) -> bool:
        return self.stop is not None

    @property
    def trace_headers(self) -> dict[str, str]:
        return tracing.headers(self.job.trace_context)

    def progress(self, fraction: float) -> None:
        if not 0 <= fraction <= 1:
            raise ValueError("progress must lie between 0 and 1")
        if self.over:
            return
        self.reported = round(float(fraction), 6)  # PostgreSQL refuses what is too small for its `real`
        self._reports.progress[self.job.id] = (self.job.lease, self.reported)

    def log(self, message: str, level: str = "info") -> None:
        if level not in ("debug", "info", "warning", "error"):
            raise ValueError("level must be debug, info, warning or error")
        if self.over:
            return
        if self.logged is None:
            self.logged = AttemptLog()
        self._reports.add_line(self.logged, self.job, level, message)


def encode_result(result: Any) -> str | None:
    """The handler's return value as JSON text for the database.

    Raises:
        NeverRetry: it is no JSON, too large, or holds a NUL; the effect is done, so another attempt would not help.
    """
    if result is None:
        return None
    if isinstance(result, BaseModel):
        result = result.model_dump(mode="json")
    try:
        encoded = orjson.dumps(result)
    except TypeError as error:
        raise NeverRetry(f"the handler's result is not JSON: {error}") from None
    if len(encoded) > MAX_RESULT_BYTES:
        raise NeverRetry(f"the handler's result is larger than {MAX_RESULT_BYTES} bytes")
    text = encoded.decode()
    if holds_nul(text):
        raise NeverRetry("the handler's result contains a NUL character")
    return text


def describe(error: BaseException) -> str:
    """An error as one bounded line: its class and message, if it has one that can be told."""
    message = ""
    with contextlib.suppress(Exception):
        # Pydantic's own words quote the values.
        message = str(field_errors(error) if isinstance(error, ValidationError) else error)
    return storable(f"{type(error).__name__}: {message}" if message else type(error).__name__, MAX_ERROR_LENGTH)


def failed(job: ClaimedJob, error: str, delay: float | None, policy: RetryPolicy) -> AttemptEnd:
    """The end of an attempt that went wrong: again after `delay` seconds (or the policy's backoff), or for good."""
    if job.attempt > job.max_retries:
        return AttemptEnd(job.id, job.lease, Outcome.FAILED, error=error)
    wait = policy.delay(job.attempt) if delay is None else delay
    return AttemptEnd(job.id, job.lease, Outcome.RETRIED, error=error, delay=wait)


class Deferred(Exception):
    """This worker cannot run the job, and another may. `endless`: the job waits for it as long as it takes."""

    def __init__(self, error: str, *, endless: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.endless = endless


async def run(
    running: RunningAttempt,
    kind: JobType | None,
    policy: RetryPolicy,
    threads: "Threads",
    keyring: Keyring | None = None,
) -> AttemptEnd:
    """Run the handler to its end, whatever that is.

    Raises:
        Deferred: the handler was not called, since another worker is needed for it.
        Exception: what the handler raised breaks the rules of its class, as a `Snooze` without `seconds` does.
    """
    job = running.job
    try:
        if kind is None or kind.handler is None:
            raise Deferred(f"this worker knows no job type {job.type!r}")
        content = orjson.loads(job.payload)
        if isinstance(content, dict) and encryption.MARK in content:
            content = encryption.payload(keyring, encryption.payload_of(job.id), content)
        try:
            payload = kind.parse(content)
        except ValidationError as error:
            # Whoever made the job accepted the payload, mostly: by a newer or an older model than this one.
            text = f"payload validation failed: {field_errors(error)}"[:MAX_ERROR_LENGTH]
            raise Deferred(text) from None
        if kind.is_async:
            result = await kind.handler(payload, running)
        else:
            result = await _in_thread(threads, running, kind.handler, payload)
        return AttemptEnd(job.id, job.lease, Outcome.COMPLETED, encode_result(result))
    except Deferred:
        raise
    except KeyMissing as error:
        raise Deferred(error.message, endless=True) from None
    except Unreadable as error:
        return AttemptEnd(job.id, job.lease, Outcome.FAILED, error=error.message)
    except Snooze as signal:
        return AttemptEnd(job.id, job.lease, Outcome.SNOOZED, error=describe(signal), delay=signal.seconds)
    except RetryIn as signal:
        running.failure = signal
        return failed(job, describe(signal), signal.seconds, policy)
    except NeverRetry as signal:
        running.failure = signal
        return AttemptEnd(job.id, job.lease, Outcome.FAILED, error=describe(signal))
    except asyncio.CancelledError:
        return interrupted(running, policy)
    except BaseException as error:  # a handler that calls sys.exit() must not take the worker with it
        if running.stop is not None:
            return interrupted(running, policy)
        running.failure = error
        return failed(job, describe(error), None, policy)


def cancelled(job: ClaimedJob) -> AttemptEnd:
    """The end of an attempt that somebody asked to cancel."""
    return AttemptEnd(job.id, job.lease, Outcome.CANCELLED, error="cancelled on request")


def handed_back(job: ClaimedJob) -> AttemptEnd:
    """The end of an attempt that costs the job nothing: another worker takes it at once."""
    return AttemptEnd(job.id, job.lease, Outcome.HANDED_BACK, error="handed back by its worker")


def interrupted(running: RunningAttempt, policy: RetryPolicy) -> AttemptEnd:
    """The end of an attempt that the worker broke off, or whose handler cancelled itself."""
    job = running.job
    match running.stop:
        case Stop.CANCEL:
            return cancelled(job)
        case Stop.HAND_BACK:
            return handed_back(job)
        case Stop.TIMEOUT:
            return failed(job, f"timed out after {running.timeout:g} s", None, policy)
        case None:
            return failed(job, "CancelledError: the handler cancelled itself", None, policy)


def tell(running: RunningAttempt, end: AttemptEnd, worker: str) -> None:
    """One log line about an attempt that did not complete its job.

    Of what the handler raised it names the class: the words, which may quote the payload, stand with the job.
    """
    job = running.job
    log.info(
        "attempt ended",
        job_id=job.id,
        type=job.type,
        queue=job.queue,
        attempt=job.attempt,
        outcome=end.outcome.value,
        error=end.error if running.failure is None else type(running.failure).__name__,
        retry_in=round(end.delay, 3),
        worker=worker,
    )


async def _in_thread(threads: "Threads", running: RunningAttempt, handler: Handler, payload: BaseModel) -> Any:
    """What the handler returns; awaited here where it is awaitable, as that of a decorated async function is."""
    result, error = await threads.call(running, handler, payload, running)
    try:
        if isinstance(error, StopIteration):
            raise RuntimeError("the handler raised StopIteration") from error
        if error is not None:
            raise error
    finally:
        del error  # its traceback leads to this frame
    return await result if inspect.isawaitable(result) else result
