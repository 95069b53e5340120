"""Spans of attempts at a price that lets them stay on (docs/decisions/0014-traces-that-stay-on.md).

The SDK does not know of an attempt that nobody records: a span that all of these share passes their traces on. A
recorded one becomes a span of the SDK when its handler adds to it, or when it does not complete its job; else its end
writes it straight into OTLP's encoding. Imported only where spans are made.
"""

import hashlib
import os
import threading
from random import getrandbits
from time import time_ns
from typing import Any, Final

from opentelemetry import context as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, TraceIdRatioBased
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from goqueue import logs, tracecontext
from goqueue.job import AttemptEnd, ClaimedJob, Outcome
from goqueue.settings import TracingSettings
from goqueue.spanencoding import Envelope, Form
from goqueue.spanqueue import SpanQueue
from goqueue.spans import Spans, below, wait_began

MOST_FORMS: Final = 1000
"""Kinds of spans whose form is kept; they are made of queues, types and numbers of attempts."""

_ATTRIBUTES: Final = 32
"""Attributes that our spans have at most: a lower limit of the SDK's, or one on their length, is its own business."""

_RANDOM: Final[int] = getattr(TraceFlags, "RANDOM_TRACE_ID", 0)
_LOW: Final = (1 << 64) - 1
(_CURRENT,) = set_span_in_context(INVALID_SPAN, otel.Context())
"""Key of the current span in a context."""


class Sampling:
    """The decision of the SDK's sampler for a new trace or a job's, without the objects that it takes and makes."""

    def __init__(self, chosen: TracingSettings) -> None:
        name = chosen.traces_sampler
        self.by_parent = name.startswith("parentbased_")
        if name.endswith("traceidratio"):
            self._bound = TraceIdRatioBased(chosen.traces_sampler_arg).bound
        else:
            self._bound = _LOW + 1 if name.endswith("always_on") else 0

    def of(self, trace_id: int) -> bool:
        """Whether a trace is recorded by its own id."""
        return trace_id & _LOW < self._bound


class Ids(RandomIdGenerator):
    """Random ids; in a thread that has chosen some for the next span, these."""

    def __init__(self) -> None:
        self.chosen = threading.local()

    def generate_span_id(self) -> int:
        """An id for a span."""
        return getattr(self.chosen, "span_id", 0) or super().generate_span_id()

    def generate_trace_id(self) -> int:
        """An id for a trace."""
        return getattr(self.chosen, "trace_id", 0) or super().generate_trace_id()


class Provider(TracerProvider):
    """The SDK's provider, with the ids that attempts have chosen. It knows whether somebody else wants to see spans."""

    def __init__(self, resource: Resource) -> None:
        self.id_maker = Ids()
        super().__init__(resource=resource, shutdown_on_exit=False, id_generator=self.id_maker)
        self.processors = 0

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Let one more see all spans."""
        self.processors += 1
        super().add_span_processor(span_processor)


class Unrecorded(NonRecordingSpan):
    """The current span of every attempt that nobody records: it makes its place in the trace when somebody asks for it,
    out of the attempt that is current then. It is the same each time, and never asks for a record."""

    def __init__(self) -> None:
        self._key = os.urandom(16)

    def get_span_context(self) -> SpanContext:
        """The place of the current attempt in its trace."""
        job = getattr(logs.JOB.get(), "job", None)
        own = b"%d %d" % (job.id, job.lease) if job is not None else b""
        made = hashlib.blake2b(own, digest_size=24, key=self._key).digest()
        came = tracecontext.parse(job.trace_context) if job is not None else None
        trace_id = int(came.trace_id, 16) if came is not None else int.from_bytes(made[8:])
        flags = came.flags & _RANDOM if came is not None else _RANDOM
        state = TraceState.from_header([came.state]) if came is not None and came.state else None
        return SpanContext(trace_id, int.from_bytes(made[:8]), False, TraceFlags(flags), state)

    def __repr__(self) -> str:
        return f"Unrecorded({self.get_span_context()!r})"


class Attempt(Span):
    """A recorded attempt: some values, until somebody wants a span of the SDK."""

    def __init__(
        self, spans: "AttemptSpans", job: ClaimedJob, worker: str, came: tuple[str, str, str] | None, trace_id: str
    ) -> None:
        self.job = job
        self.worker = worker
        self.trace_id = trace_id
        self.trace_bytes = bytes.fromhex(trace_id)
        self.parent_bytes = bytes.fromhex(came[1]) if came is not None else b""
        self.came = came
        self.span_id = getrandbits(64) or 1
        self.start = time_ns()
        self.over = False
        self.made: Span | None = None
        self.context: SpanContext | None = None
        self.state, self.retried = "", False
        if came is not None and " " in job.trace_context:  # type: ignore[operator]
            whole = tracecontext.parse(job.trace_context)
            self.state, self.retried = (whole.state, whole.first is not None) if whole is not None else ("", False)
        self._spans = spans

    def sdk(self) -> Span:
        """The attempt as a span of the SDK; after its end, one that takes nothing any more."""
        with self._spans.making:
            if self.made is None:
                self.made = NonRecordingSpan(self.get_span_context()) if self.over else self._spans.make(self)
            return self.made

    def get_span_context(self) -> SpanContext:
        """Its place in the trace."""
        if self.context is None:
            state = self.state
            members = TraceState.from_header([state]) if state else None
            flags = TraceFlags(1 | (int(self.came[2], 16) & _RANDOM if self.came is not None else _RANDOM))
            self.context = SpanContext(int(self.trace_id, 16), self.span_id, False, flags, members)
        return self.context

    def is_recording(self) -> bool:
        """Whether it goes on."""
        return not self.over if self.made is None else self.made.is_recording()

    def end(self, end_time: int | None = None) -> None:
        """End it."""
        self.sdk().end(end_time)

    def set_attributes(self, attributes: Any) -> None:
        """Say more about it."""
        self.sdk().set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        """Say more about it."""
        self.sdk().set_attribute(key, value)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Note what happened."""
        self.sdk().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """Name another span."""
        self.sdk().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        """Call it otherwise."""
        self.sdk().update_name(name)

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Say how it went."""
        self.sdk().set_status(status, description)

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        """Note an exception."""
        self.sdk().record_exception(exception, attributes, timestamp, escaped)

    def __getattr__(self, name: str) -> Any:
        # What a `ReadableSpan` has: name, attributes, parent, …
        return getattr(self.sdk(), name)


class AttemptSpans(Spans):
    """Makes the spans of this process; those of attempts in its own way."""

    def __init__(self, provider: Provider, queue: SpanQueue, chosen: TracingSettings, examples: "Examples") -> None:
        super().__init__(provider)
        self.id_maker = provider.id_maker
        self.making = threading.Lock()
        self._provider = provider
        self._queue = queue
        self._sampling = Sampling(chosen)
        self._by_parent = self._sampling.by_parent
        self._examples = examples
        self._waits: dict[str, Form] = {}
        self._attempts: dict[tuple[Any, ...], Form] = {}

    def begin_worker(self) -> None:
        """Let attempts that nobody records pass their traces on."""
        otel.attach(otel.Context({_CURRENT: Unrecorded()}))

    def begin_attempt(self, job: ClaimedJob, worker: str) -> Span | None:
        """A span for an attempt, current from now on in the task that calls this. None: nobody records it."""
        if self._provider.processors != 1:
            return super().begin_attempt(job, worker)
        stored = job.trace_context
        if stored is not None and self._by_parent and tracecontext.unrecorded(stored):
            return None
        came = tracecontext.parent(stored) if stored is not None else None
        if came is None:
            low = getrandbits(64)
            if not self._sampling.of(low):
                return None
            return self._begin(job, worker, None, f"{getrandbits(64) or 1:016x}{low:016x}")
        recorded = tracecontext.sampled(came[2]) if self._by_parent else self._sampling.of(int(came[0], 16))
        return self._begin(job, worker, came, came[0]) if recorded else None

    def _begin(self, job: ClaimedJob, worker: str, came: tuple[str, str, str] | None, trace_id: str) -> Span:
        attempt = Attempt(self, job, worker, came, trace_id)
        if came is not None:
            self._put_wait(attempt)
        otel.attach(otel.Context({_CURRENT: attempt}))
        return attempt

    def end_attempt(self, span: Span | None, job: ClaimedJob, end: AttemptEnd, error: BaseException | None) -> None:
        """The attempt is over; its end keeps what the job's next attempt has to know."""
        if type(span) is Attempt:
            if end.outcome is Outcome.COMPLETED and self._put(span):
                return
            span = span.sdk()
        super().end_attempt(span, job, end, error)

    def trace_id_of(self, span: Span | None) -> str | None:
        """Id of the trace that has the span, if it is recorded."""
        return span.trace_id if type(span) is Attempt else super().trace_id_of(span)

    def make(self, attempt: Attempt) -> Span:
        """A running attempt as a span of the SDK, with the ids that it has."""
        chosen = self.id_maker.chosen
        chosen.trace_id, chosen.span_id = int(attempt.trace_id, 16), attempt.span_id
        try:
            came = tracecontext.parse(attempt.job.trace_context)
            return self.start_attempt(attempt.job, attempt.worker, came, attempt.start)
        finally:
            chosen.trace_id = chosen.span_id = 0

    def _put(self, attempt: Attempt) -> bool:
        """Write a completed attempt; False where it has become a span of the SDK, or shall be one."""
        job, end = attempt.job, time_ns()
        with self.making:
            if attempt.made is not None or attempt.retried:  # a retry has a link
                return False
            attempt.over = True
        key = (job.queue, job.type, job.attempt, attempt.worker, attempt.came is None)
        form = self._attempts.get(key)
        if form is None:
            if len(self._attempts) >= MOST_FORMS:
                self._attempts.clear()
            form = self._attempts[key] = self._examples.attempt(job, attempt.worker)
        self._queue.put(
            form.encode(
                attempt.trace_bytes,
                attempt.span_id.to_bytes(8),
                attempt.parent_bytes,
                attempt.state,
                attempt.start,
                end,
                b"%d" % job.id,
                max(0.0, job.waited),
            )
        )
        return True

    def _put_wait(self, attempt: Attempt) -> None:
        job, now = attempt.job, attempt.start
        form = self._waits.get(job.queue)
        if form is None:
            form = self._waits[job.queue] = self._examples.wait(job)
        span_id, begun = (getrandbits(64) or 1).to_bytes(8), wait_began(job, now)
        self._queue.put(form.encode(attempt.trace_bytes, span_id, attempt.parent_bytes, attempt.state, begun, now))


class Examples:
    """Makes one span of each form by the SDK, and has it encoded by the exporter's own encoder."""

    def __init__(self, resource: Resource, encode: Any) -> None:
        self._encode = encode
        self._made: list[ReadableSpan] = []
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        provider.add_span_processor(_Taken(self._made))
        self._spans = Spans(provider)

    def attempt(self, job: ClaimedJob, worker: str) -> Form:
        """The form of a completed attempt like this."""
        span = self._spans.start_attempt(job, worker, tracecontext.parse(job.trace_context), time_ns())
        self._spans.end_attempt(span, job, AttemptEnd(job.id, job.lease, Outcome.COMPLETED), None)
        return Form(self._taken().scope_spans[0].spans[0], "messaging.message.id", "goqueue.queue.wait")

    def wait(self, job: ClaimedJob) -> Form:
        """The form of a wait like this."""
        self._spans.add_wait(job, below(job.trace_context), time_ns())
        return Form(self._taken().scope_spans[0].spans[0])

    def envelope(self) -> Envelope:
        """What stands around them."""
        with self._spans.doing("example"):
            pass
        return Envelope(self._taken())

    def _taken(self) -> Any:
        (resource_spans,) = self._encode([self._made.pop()]).resource_spans
        return resource_spans


class _Taken(SpanProcessor):
    def __init__(self, made: list[ReadableSpan]) -> None:
        self._made = made

    def on_end(self, span: ReadableSpan) -> None:
        self._made.append(span)


def fits(limits: SpanLimits) -> bool:
    """Whether our spans look the same with and without these limits."""
    most = limits.max_span_attributes
    return limits.max_span_attribute_length is None and (most is None or most >= _ATTRIBUTES)
