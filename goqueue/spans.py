"""What spans there are, by OpenTelemetry's conventions for messaging and HTTP. Imported only where spans are made.

    POST /jobs/create ── send email ──┬── wait email      from the time the job could run to the start of its attempt
                                      ├── process email   the first attempt; below it what its handler calls
                                      └── process email   a retry, with a link to the first attempt

All attempts are children of the span that made the job, whose context stands with it (`goqueue.tracecontext`). No span
holds a payload, a result or the address of a webhook: any of them may be secret.
"""

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final, Protocol

from opentelemetry import context as otel
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from goqueue import tracecontext
from goqueue.errors import GoQueueError
from goqueue.job import AttemptEnd, ClaimedJob, Enqueued, NewJob, Outcome
from goqueue.tracecontext import TraceContext

SYSTEM: Final = "goqueue"
"""`messaging.system` of all our spans."""

_WRONG: Final = frozenset({Outcome.RETRIED, Outcome.FAILED})
"""Outcomes that are errors."""

AGAIN: Final = frozenset({Outcome.RETRIED, Outcome.SNOOZED, Outcome.HANDED_BACK, Outcome.DEFERRED})
"""Outcomes that another attempt follows."""


class Provider(Protocol):
    """Who has tracers: a tracer provider, or the module `opentelemetry.trace` for whatever is set up there."""

    def get_tracer(self, instrumenting_module_name: str, instrumenting_library_version: str) -> Tracer:
        """A tracer of that name."""


class Spans:
    """Makes the spans of this process."""

    def __init__(self, provider: Provider) -> None:
        self._tracer = provider.get_tracer("goqueue", version("goqueue"))

    # --- a job is made -----------------------------------------------------------------------------------------------

    @contextmanager
    def sending(self, orders: Sequence[NewJob]) -> Iterator[Span]:
        """Around an enqueue: the orders get the span's context, which is below the current one, else below their own.

        One span for all orders of a batch, as the conventions have it.
        """
        queues, types = {order.queue for order in orders}, {order.type for order in orders}
        attributes: dict[str, Any] = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "goqueue.job.source": orders[0].source.value,
        }
        if len(queues) == 1:
            attributes["messaging.destination.name"] = orders[0].queue
        if len(types) == 1:
            attributes["goqueue.job.type"] = orders[0].type
        if len(orders) > 1:
            attributes["messaging.batch.message_count"] = len(orders)
        name = f"send {orders[0].queue}" if len(queues) == 1 else "send"
        within = get_current_span().get_span_context().is_valid
        parent = None if within else below(orders[0].trace_context)
        with self._span(name, SpanKind.PRODUCER, attributes, parent) as span:
            if span.get_span_context().is_valid:
                stored = context_of(span.get_span_context()).stored()
                for order in orders:
                    order.trace_context = stored
            yield span

    def sent(self, span: Span, made: Enqueued) -> None:
        """What became of the one order that a span is about."""
        span.set_attribute("messaging.message.id", str(made.id))
        span.set_attribute("goqueue.job.created", made.created)

    # --- a job runs --------------------------------------------------------------------------------------------------

    def begin_worker(self) -> None:
        """Prepare the context of which the tasks of all attempts get a copy."""

    def begin_attempt(self, job: ClaimedJob, worker: str) -> Span | None:
        """A span for an attempt, current from now on in the task that calls this. None: nobody records it."""
        came = tracecontext.parse(job.trace_context)
        now = time.time_ns()
        span = self.start_attempt(job, worker, came, now)
        parent = _below(came) if came is not None else otel.Context()
        if came is not None and span.is_recording():
            self.add_wait(job, parent, now)
        otel.attach(set_span_in_context(span, parent))
        return span

    def add_wait(self, job: ClaimedJob, parent: otel.Context | None, now: int) -> None:
        """A span for the wait of a job that ends `now`, in nanoseconds since the epoch."""
        self._tracer.start_span(f"wait {job.queue}", parent, start_time=wait_began(job, now)).end(now)

    def start_attempt(self, job: ClaimedJob, worker: str, came: TraceContext | None, now: int) -> Span:
        """A span for an attempt that begins `now`, in nanoseconds since the epoch; not the current one."""
        attributes: dict[str, Any] = {
            "messaging.system": SYSTEM,
            "messaging.destination.name": job.queue,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": str(job.id),
            "messaging.client.id": worker,
            "goqueue.job.type": job.type,
            "goqueue.job.attempt": job.attempt,
            "goqueue.queue.wait": max(0.0, job.waited),
        }
        links = [Link(_remote(came.trace_id, came.first, came.flags))] if came is not None and came.first else None
        parent = _below(came) if came is not None else otel.Context()
        return self._tracer.start_span(
            f"process {job.queue}", parent, SpanKind.CONSUMER, attributes, links, start_time=now
        )

    def end_attempt(self, span: Span | None, job: ClaimedJob, end: AttemptEnd, error: BaseException | None) -> None:
        """The attempt is over; its end keeps what the job's next attempt has to know.

        `error`: what the handler raised. None: the end has words of our own.
        """
        if span is None:
            span = get_current_span()
        if span.is_recording():
            span.set_attribute("goqueue.attempt.outcome", end.outcome.value)
            if end.outcome in _WRONG:
                record(span, error, end.error if error is None else None)
            if end.outcome in (Outcome.RETRIED, Outcome.SNOOZED, Outcome.DEFERRED):
                span.set_attribute("goqueue.attempt.retry_delay", end.delay)
        if end.outcome in AGAIN:
            end.trace_context = self.for_the_next(job, span.get_span_context())
        span.end()

    def trace_id_of(self, span: Span | None) -> str | None:
        """Id of the trace that has the span, if it is recorded."""
        if span is None:
            return None
        context = span.get_span_context()
        return f"{context.trace_id:032x}" if context.trace_flags.sampled else None

    def for_the_next(self, job: ClaimedJob, own: SpanContext) -> str | None:
        """What shall stand with the job; None: what stands there already."""
        came = tracecontext.parse(job.trace_context)
        if came is None:
            came = context_of(own)  # the trace began with this attempt, and goes on below it
        elif came.first or not own.trace_flags.sampled:
            return None
        first = f"{own.span_id:016x}" if own.trace_flags.sampled else None
        return TraceContext(came.trace_id, came.span_id, came.flags, came.state, first).stored()

    # --- everything else ---------------------------------------------------------------------------------------------

    @contextmanager
    def doing(self, name: str, attributes: dict[str, Any] | None = None, parent: str | None = None) -> Iterator[Span]:
        """A span around some work of ours, below the current one, or below a stored context."""
        with self._span(name, SpanKind.INTERNAL, attributes, below(parent)) as span:
            yield span

    @contextmanager
    def calling(
        self, name: str, host: str, port: int | None, attributes: dict[str, Any] | None = None
    ) -> Iterator[Span]:
        """A span around a call of another server."""
        place: dict[str, Any] = {"server.address": host} | ({"server.port": port} if port else {})
        with self._span(name, SpanKind.CLIENT, place | (attributes or {}), None) as span:
            yield span

    @contextmanager
    def serving(self, method: str, parent: TraceContext | None, attributes: dict[str, Any]) -> Iterator[Span]:
        """A span around a request that somebody makes of us."""
        with self._span(method, SpanKind.SERVER, attributes, _below(parent) if parent else otel.Context()) as span:
            yield span

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, attributes: dict[str, Any] | None, parent: otel.Context | None
    ) -> Iterator[Span]:
        """A current span; an exception that leaves the block marks it."""
        span = self._tracer.start_span(name, parent, kind, attributes)
        token = otel.attach(set_span_in_context(span, parent))
        try:
            yield span
        except Exception as error:
            record(span, error, error.message if isinstance(error, GoQueueError) else None)
            raise
        finally:
            otel.detach(token)
            span.end()

    # --- for logs and metrics ----------------------------------------------------------------------------------------

    @staticmethod
    def ids() -> dict[str, str]:
        """Trace and span that are current, for a line of the log; empty where there are none."""
        current = get_current_span().get_span_context()
        if not current.is_valid:
            return {}
        return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"}

    @staticmethod
    def recorded() -> str | None:
        """Id of the current trace, if it is recorded: what an exemplar names."""
        current = get_current_span().get_span_context()
        return f"{current.trace_id:032x}" if current.trace_flags.sampled else None


def wait_began(job: ClaimedJob, now: int) -> int:
    """When the wait of a job began that ends now: by the length that PostgreSQL's clock says, before a time that ours
    says, since clocks may differ. Nanoseconds since the epoch."""
    return now - int(max(0.0, job.waited) * 1e9)


def record(span: Span, error: BaseException | None, words: str | None) -> None:
    """What went wrong, into a span. `words` are our own: those of others, exceptions too, may quote what is secret."""
    kind = type(error).__name__ if error is not None else "_OTHER"
    event = {"exception.type": kind}
    if words:
        event["exception.message"] = words
    if error is not None and error.__traceback__ is not None:
        event["exception.stacktrace"] = "".join(traceback.format_tb(error.__traceback__))
    span.add_event("exception", event)
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, words or kind)


def answered(span: Span, status: int, least: int) -> None:
    """An HTTP status, which is an error from `least` on: from 400 for whoever asked, from 500 for whoever answered."""
    span.set_attribute("http.response.status_code", status)
    if status >= least:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def context_of(span: SpanContext) -> TraceContext:
    """A span's context as we store and send it."""
    return TraceContext(
        f"{span.trace_id:032x}", f"{span.span_id:016x}", int(span.trace_flags), span.trace_state.to_header()
    )


def below(stored: str | None) -> otel.Context | None:
    """A context whose children are below a stored one; None where nothing is stored."""
    found = tracecontext.parse(stored)
    return _below(found) if found is not None else None


def _below(parent: TraceContext) -> otel.Context:
    span = _remote(parent.trace_id, parent.span_id, parent.flags, parent.state)
    return set_span_in_context(NonRecordingSpan(span), otel.Context())


def _remote(trace_id: str, span_id: str, flags: int, state: str = "") -> SpanContext:
    members = TraceState.from_header([state]) if state else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(flags), members)
