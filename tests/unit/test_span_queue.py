"""Every span is counted: exported, failed, dropped or left; and what is lost is told."""

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from goqueue import instruments, metrics, spanqueue
from goqueue.settings import TracingSettings
from goqueue.spanqueue import SpanQueue


class Collector(SpanExporter):
    """Takes batches while its gate is open."""

    def __init__(self, *, is_open: bool = True, takes: bool = True) -> None:
        self.gate = threading.Event()
        self.asked = threading.Event()
        self.batches: list[int] = []
        self.takes = takes
        if is_open:
            self.gate.set()

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.asked.set()
        assert self.gate.wait(30)
        self.batches.append(len(spans))
        return SpanExportResult.SUCCESS if self.takes else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """As the OTLP exporters, which end their waits."""


def queue_of(collector: Collector, close_seconds: float = 10.0, **chosen: Any) -> SpanQueue:
    values = {"bsp_max_queue_size": 10, "bsp_max_export_batch_size": 4, "bsp_schedule_delay": 60_000} | chosen
    return SpanQueue(collector, TracingSettings.model_validate(values), close_seconds)


def put(queue: SpanQueue, spans: int) -> None:
    for _ in range(spans):
        queue.put(b"span")


def test_a_full_queue_drops_new_spans_and_counts_each() -> None:
    collector = Collector(is_open=False)
    queue = queue_of(collector)
    put(queue, 4)
    assert collector.asked.wait(10)  # these four are on their way
    with capture_logs() as lines:
        put(queue, 25)
    assert queue.counts() == {"exported": 0, "failed": 0, "dropped": 15, "left": 14}
    assert [line["event"] for line in lines] == ["spans lost"], "once a minute"
    collector.gate.set()
    with capture_logs() as lines:
        queue.shutdown()
    assert queue.counts() == {"exported": 14, "failed": 0, "dropped": 15, "left": 0}
    (line,) = lines
    assert (line["event"], line["spans"], line["dropped"]) == ("spans lost until the end", 15, 15)
    assert max(collector.batches) == 4


def test_losses_are_told_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector(takes=False)
    queue = queue_of(collector)
    with capture_logs() as lines:
        put(queue, 3)
        queue.force_flush()
        put(queue, 2)
        queue.force_flush()
        monkeypatch.setattr(spanqueue, "TOLD_EVERY", 0.0)
        put(queue, 1)
        queue.force_flush()
    assert [(line["spans"], line["failed"]) for line in lines] == [(3, 3), (3, 6)]
    queue.shutdown()


def test_the_end_waits_for_a_mute_collector_no_longer_than_it_is_told_and_counts_the_rest() -> None:
    collector = Collector(is_open=False)
    queue = queue_of(collector, close_seconds=0.2)
    put(queue, 9)
    assert collector.asked.wait(10)
    began = time.monotonic()
    with capture_logs() as lines:
        queue.shutdown()
    assert time.monotonic() - began < 10  # 0.2 s, were the machine idle; the collector would take 30
    (line,) = lines
    assert (line["spans"], line["left"], line["exported"]) == (9, 9, 0)
    collector.gate.set()


def test_an_end_at_which_all_was_exported_says_nothing() -> None:
    collector = Collector()
    queue = queue_of(collector)
    put(queue, 9)
    with capture_logs() as lines:
        queue.shutdown()
    assert lines == []
    assert sum(collector.batches) == 9


def test_less_than_a_batch_is_exported_after_the_delay() -> None:
    collector = Collector()
    queue = queue_of(collector, bsp_schedule_delay=10)
    put(queue, 1)
    assert collector.asked.wait(10)
    queue.shutdown()
    assert collector.batches == [1]


def test_metrics_count_what_became_of_spans() -> None:
    registry = CollectorRegistry()
    metrics.begin("worker", ["default"], ["nothing"], registry)
    try:
        collector = Collector()
        queue = queue_of(collector)
        put(queue, 8)
        queue.force_flush()
        collector.takes = False
        put(queue, 3)
        queue.force_flush()
        queue.shutdown()
        put(queue, 2)

        def value(outcome: str) -> float | None:
            return registry.get_sample_value("goqueue_trace_spans_total", {"outcome": outcome})

        assert (value("exported"), value("failed"), value("dropped")) == (8, 3, 2)
    finally:
        instruments.end()


def test_a_forked_process_begins_with_an_empty_queue_and_exports_its_own() -> None:
    collector = Collector(is_open=False)
    queue = queue_of(collector)
    put(queue, 3)
    child = os.fork()
    if child == 0:
        collector.gate.set()
        put(queue, 1)
        queue.shutdown()
        os._exit(0 if collector.batches == [1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert queue.counts()["left"] == 3
    collector.gate.set()
    queue.shutdown()
