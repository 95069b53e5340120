"""Attempts in traces: what reaches the collector is what the SDK alone would have sent, and handlers notice nothing."""

import contextvars
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Encoded
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from goqueue import logs, tracecontext
from goqueue.attemptspans import AttemptSpans, Examples, Provider, Sampling, fits
from goqueue.job import AttemptEnd, ClaimedJob, Outcome
from goqueue.settings import TracingSettings
from goqueue.spanencoding import Batch, teach
from goqueue.spanqueue import SpanQueue
from goqueue.spans import Spans

TRACE, PARENT = "7" * 32, "8" * 16
RECORDED, NOT_RECORDED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
RESOURCE = Resource({"service.name": "goqueue-worker"})


class Kept(SpanExporter):
    """Encodes spans as the OTLP exporters do, and keeps them."""

    def __init__(self) -> None:
        self.spans: list[tuple[Any, Any, Encoded]] = []

    def export(self, spans: Any) -> SpanExportResult:
        for resource in trace_exporter.encode_spans(spans).resource_spans:  # type: ignore[attr-defined]
            for scope in resource.scope_spans:
                self.spans += [(resource.resource, scope.scope, span) for span in scope.spans]
        return SpanExportResult.SUCCESS


@dataclass
class Traced:
    """What makes the spans of a worker, and what its collector has."""

    spans: Spans
    provider: TracerProvider
    kept: Kept

    def run(self, job: ClaimedJob, handler: Callable[[], None] = lambda: None, *, failing: bool = False) -> AttemptEnd:
        """One attempt, as `Worker._run` does it."""
        end = AttemptEnd(job.id, job.lease, Outcome.RETRIED if failing else Outcome.COMPLETED)

        def attempt() -> None:
            self.spans.begin_worker()
            logs.JOB.set(SimpleNamespace(job=job))
            span = self.spans.begin_attempt(job, "worker-1")
            handler()
            if span is not None or end.outcome is not Outcome.COMPLETED:
                self.spans.end_attempt(span, job, end, ValueError() if failing else None)

        contextvars.Context().run(attempt)
        return end

    def named(self, name: str) -> Encoded:
        """The one span of that name."""
        self.provider.force_flush()
        (found,) = (span for _, _, span in self.kept.spans if span.name == name)
        return found


@pytest.fixture
def providers() -> Iterator[list[TracerProvider]]:
    """Providers that end with the test."""
    made: list[TracerProvider] = []
    yield made
    for provider in made:
        provider.shutdown()


def ours(providers: list[TracerProvider], **chosen: Any) -> Traced:
    """As a worker has it."""
    settings, kept, provider = TracingSettings(**chosen), Kept(), Provider(RESOURCE)
    teach(trace_exporter)
    examples = Examples(RESOURCE, encode_spans)
    envelope = examples.envelope()
    queue = SpanQueue(kept, settings, 1, lambda batch: Batch(batch, envelope, as_message=True))
    provider.add_span_processor(queue)
    providers.append(provider)
    return Traced(AttemptSpans(provider, queue, settings, examples), provider, kept)


def theirs(providers: list[TracerProvider]) -> Traced:
    """By the SDK alone."""
    kept, provider = Kept(), TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(SpanQueue(kept, TracingSettings(), 1))
    providers.append(provider)
    return Traced(Spans(provider), provider, kept)


def job(
    context: str | None,
    *,
    id: int = 7,
    lease: int = 1,
    attempt: int = 1,
    queue: str = "default",
    waited: float = 1.25,
) -> ClaimedJob:
    """A claimed job."""
    return ClaimedJob(id, lease, attempt, queue, "greet", "{}", 5, None, waited, context)


def shape(span: Encoded) -> dict[str, Any]:
    """A span without what differs each time: its own id, its times, the order of its attributes."""
    same = Encoded()
    same.CopyFrom(span)
    attributes = {attribute.key: attribute.value.SerializeToString() for attribute in same.attributes}
    for field in ("span_id", "start_time_unix_nano", "end_time_unix_nano", "attributes"):
        same.ClearField(field)
    return {"attributes": attributes, "rest": same.SerializeToString(deterministic=True)}


@pytest.mark.parametrize(
    "given",
    [
        job(RECORDED),
        job(f"00-{TRACE}-{PARENT}-03"),
        job(f"{RECORDED} shop=1,other=x"),
        job(RECORDED, id=1),
        job(RECORDED, id=2**63 - 1, waited=0.0, attempt=200),
        job(RECORDED, waited=-0.5),
        job(RECORDED, waited=3e7),
        job(RECORDED, queue="q" * 63),
    ],
)
def test_a_completed_attempt_and_its_wait_reach_the_collector_as_the_sdk_would_have_sent_them(
    providers: list[TracerProvider], given: ClaimedJob
) -> None:
    mine, sdk = ours(providers), theirs(providers)
    mine.run(given)
    sdk.run(given)
    for name in (f"process {given.queue}", f"wait {given.queue}"):
        span = mine.named(name)
        assert shape(span) == shape(sdk.named(name))
        assert len(span.span_id) == 8
        assert span.end_time_unix_nano >= span.start_time_unix_nano > 0
    wait, process = mine.named(f"wait {given.queue}"), mine.named(f"process {given.queue}")
    assert wait.end_time_unix_nano == process.start_time_unix_nano
    assert wait.end_time_unix_nano - wait.start_time_unix_nano == int(max(0.0, given.waited) * 1e9)
    assert mine.kept.spans[0][:2] == sdk.kept.spans[0][:2], "resource and scope"


def test_a_trace_that_begins_with_an_attempt_is_like_the_sdks(providers: list[TracerProvider]) -> None:
    mine, sdk = ours(providers), theirs(providers)
    for each in (mine, sdk):
        each.run(job(None))
    one, other = mine.named("process default"), sdk.named("process default")
    assert len(one.trace_id) == 16
    for span in (one, other):
        assert span.parent_span_id == b""
        span.trace_id = b""
    assert shape(one) == shape(other)


def test_what_a_handler_adds_to_its_attempt_and_the_spans_below_it_arrive(providers: list[TracerProvider]) -> None:
    mine = ours(providers)
    seen: list[str] = []

    def handler() -> None:
        current = trace.get_current_span()
        seen.append(f"{current.get_span_context().span_id:016x}")
        with mine.provider.get_tracer("shop").start_as_current_span("own work"):
            pass
        assert current.is_recording()
        current.set_attribute("shop.order", 12)
        current.add_event("paid")
        current.set_attributes({"shop.customer": "north"})
        seen.append(f"{current.get_span_context().span_id:016x}")
        assert current.attributes["goqueue.job.type"] == "greet"  # type: ignore[attr-defined]

    mine.run(job(f"{RECORDED} shop=1"), handler)
    attempt, below = mine.named("process default"), mine.named("own work")
    assert {attempt.span_id.hex(), below.parent_span_id.hex()} == set(seen)
    assert (attempt.trace_id.hex(), below.trace_id.hex(), attempt.parent_span_id.hex()) == (TRACE, TRACE, PARENT)
    assert below.trace_state == attempt.trace_state == "shop=1"
    values = {attribute.key: attribute.value for attribute in attempt.attributes}
    assert values["shop.order"].int_value == 12
    assert values["shop.customer"].string_value == "north"
    assert values["goqueue.attempt.outcome"].string_value == "completed"
    assert [event.name for event in attempt.events] == ["paid"]


def test_a_span_kept_by_a_handler_takes_nothing_after_the_end_of_its_attempt(providers: list[TracerProvider]) -> None:
    mine = ours(providers)
    held: list[trace.Span] = []
    mine.run(job(RECORDED), lambda: held.append(trace.get_current_span()))
    held[0].set_attribute("late", 1)
    held[0].end()
    assert not held[0].is_recording()
    assert "late" not in {attribute.key for attribute in mine.named("process default").attributes}


def test_a_failed_attempt_is_recorded_with_its_error_and_its_retry_links_to_it(providers: list[TracerProvider]) -> None:
    mine = ours(providers)
    end = mine.run(job(RECORDED), failing=True)
    first = mine.named("process default")
    assert first.status.code == first.status.STATUS_CODE_ERROR
    assert end.trace_context == f"{RECORDED} goqueue={first.span_id.hex()}"
    mine.kept.spans.clear()
    mine.run(job(end.trace_context, attempt=2, lease=2))
    retry = mine.named("process default")
    assert [link.span_id for link in retry.links] == [first.span_id]
    assert retry.trace_state == ""


@pytest.mark.parametrize("context", [NOT_RECORDED, f"{NOT_RECORDED} shop=1", None])
def test_an_attempt_that_nobody_records_passes_its_trace_on_unrecorded(
    providers: list[TracerProvider], context: str | None
) -> None:
    mine = ours(providers, traces_sampler="parentbased_always_off")
    seen: list[trace.SpanContext] = []

    def handler() -> None:
        current = trace.get_current_span()
        assert not current.is_recording()
        seen.extend((current.get_span_context(), current.get_span_context()))
        with mine.provider.get_tracer("shop").start_as_current_span("own work") as below:
            seen.append(below.get_span_context())

    mine.run(job(context), handler)
    first, again, below = seen
    assert first == again
    assert first.is_valid
    assert below.trace_id == first.trace_id
    assert not first.trace_flags.sampled
    if context is not None:
        assert f"{first.trace_id:032x}" == TRACE
        assert f"{first.span_id:016x}" != PARENT
        assert first.trace_state.to_header() == ("shop=1" if " " in context else "")
    mine.provider.force_flush()
    assert mine.kept.spans == []


def test_retries_of_a_job_that_nobody_records_stay_in_one_trace(providers: list[TracerProvider]) -> None:
    mine = ours(providers, traces_sampler="parentbased_always_off")
    end = mine.run(job(None), failing=True)
    stored = tracecontext.parse(end.trace_context)
    assert stored is not None
    assert not stored.sampled
    assert mine.run(job(end.trace_context, lease=2, attempt=2), failing=True).trace_context is None


@pytest.mark.parametrize(
    "name",
    [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ],
)
@pytest.mark.parametrize(
    "context", [RECORDED, NOT_RECORDED, f"{RECORDED} a=b", f"{NOT_RECORDED} a=b", "nonsense", None]
)
def test_each_sampler_decides_as_the_sdks_own(
    providers: list[TracerProvider], monkeypatch: pytest.MonkeyPatch, name: str, context: str | None
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    mine, sdk = ours(providers, traces_sampler=name, traces_sampler_arg=0.5), theirs(providers)
    if context is None or context == "nonsense":
        root = getattr(mine.provider.sampler, "_root", mine.provider.sampler)
        same = Sampling(TracingSettings(traces_sampler=name, traces_sampler_arg=0.5))
        for trace_id in (1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) + 1, 1 << 127):
            decided = root.should_sample(None, trace_id, "process default")
            assert same.of(trace_id) is (decided.decision is sampling.Decision.RECORD_AND_SAMPLE), f"{trace_id:x}"
        return
    for each in (mine, sdk):
        each.run(job(context))
        each.provider.force_flush()
    assert sorted(span.name for _, _, span in mine.kept.spans) == sorted(span.name for _, _, span in sdk.kept.spans)


def test_a_processor_that_somebody_adds_sees_attempts(providers: list[TracerProvider]) -> None:
    mine = ours(providers)
    ended: list[str] = []

    class Sees(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span.name)

    mine.provider.add_span_processor(Sees())
    mine.run(job(RECORDED))
    assert ended == ["wait default", "process default"]


@pytest.mark.parametrize(
    ("limits", "fit"),
    [
        (SpanLimits(), True),
        (SpanLimits(max_span_attributes=5), False),
        (SpanLimits(max_attribute_length=10), False),
        (SpanLimits(max_span_attributes=SpanLimits.UNSET), True),
    ],
)
def test_limits_that_would_cut_our_spans_are_left_to_the_sdk(limits: SpanLimits, fit: bool) -> None:
    assert fits(limits) is fit
