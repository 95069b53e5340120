"""Spans on their way to an exporter: a bounded queue, a thread that exports, and a count of what became of them.

OpenTelemetry's `BatchSpanProcessor` does not tell how many spans its full queue turned away, nor how many were left at
the end. Imported only where spans are made.
"""

import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from goqueue import metrics
from goqueue.settings import TracingSettings

TOLD_EVERY: Final = 60.0
"""Seconds between two lines about lost spans."""

OUTCOMES: Final = ("exported", "failed", "dropped")
"""What may become of a span while the process lives."""

Item = ReadableSpan | bytes
"""A span of the SDK, or one that is encoded already (`goqueue.spanencoding`)."""

log = structlog.get_logger(__name__)


class SpanQueue(SpanProcessor):
    """Takes ended spans; its thread exports them. `pack`: makes what the exporter takes of a batch."""

    def __init__(
        self,
        exporter: SpanExporter,
        chosen: TracingSettings,
        close_seconds: float,
        pack: Callable[[Sequence[Item]], Any] = lambda batch: batch,
    ) -> None:
        self._exporter = exporter
        self._pack = pack
        self._most = chosen.bsp_max_queue_size
        self._size = min(chosen.bsp_max_export_batch_size, self._most)
        self._delay = chosen.bsp_schedule_delay / 1000
        self._close_seconds = close_seconds
        self._closing = False
        self._begin()
        ours = weakref.WeakMethod(self._begin)

        def begin_in_child() -> None:
            if begin := ours():
                begin()

        os.register_at_fork(after_in_child=begin_in_child)

    def _begin(self) -> None:
        """Start with nothing; also in a forked process, whose parent exports what is in its own queue."""
        self._queue: deque[Item] = deque()
        self._in_flight = 0
        self._counts: Counter[str] = Counter()
        self._told = 0
        self._told_at = -TOLD_EVERY
        self._counting = threading.Lock()
        self._exporting = threading.Lock()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    # --- from the threads that make spans ----------------------------------------------------------------------------

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span of the SDK."""
        if span.context is not None and span.context.trace_flags.sampled:
            self.put(span)

    def put(self, span: Item) -> None:
        """Take an ended span, or drop it if the queue is full: what makes spans never waits."""
        waiting = len(self._queue)
        if waiting >= self._most or self._closing:
            self._count("dropped", 1)
            return
        self._queue.append(span)
        if waiting >= self._size - 1 and not self._wake.is_set():
            self._wake.set()

    # --- in the exporting thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        # Instrumentations of HTTP clients make no spans of an export, as within the SDK's own processors.
        otel.attach(otel.set_value(otel._SUPPRESS_INSTRUMENTATION_KEY, True))
        while not self._closing:
            full = self._wake.wait(self._delay)
            self._wake.clear()
            self._export(self._size if full and not self._closing else 1)
        self._export(1)

    def _export(self, least: int) -> None:
        """Export batches as long as that many spans wait."""
        with self._exporting:
            while len(self._queue) >= least:
                with self._counting:
                    batch = [self._queue.popleft() for _ in range(min(self._size, len(self._queue)))]
                    self._in_flight = len(batch)
                outcome = "exported" if self._exported(batch) else "failed"
                self._count(outcome, len(batch))

    def _exported(self, batch: Sequence[Item]) -> bool:
        try:
            return self._exporter.export(self._pack(batch)) is SpanExportResult.SUCCESS
        except Exception as error:
            log.warning("exporter failed", error=type(error).__name__)
            return False

    # --- the count ---------------------------------------------------------------------------------------------------

    def _count(self, outcome: str, spans: int) -> None:
        with self._counting:
            self._counts[outcome] += spans
            if outcome != "dropped":
                self._in_flight = 0
        metrics.TRACE_SPANS.inc(spans, outcome)
        if outcome != "exported" and time.monotonic() - self._told_at >= TOLD_EVERY:
            self._tell()

    def _tell(self) -> None:
        with self._counting:
            lost = self._counts["failed"] + self._counts["dropped"]
            if self._closing or time.monotonic() - self._told_at < TOLD_EVERY:
                return
            news, self._told, self._told_at = lost - self._told, lost, time.monotonic()
        log.warning("spans lost", spans=news, **self.counts())

    def counts(self) -> dict[str, int]:
        """How many spans were exported, failed (the exporter did not deliver them) or were dropped (the queue was
        full), and how many are left: not exported yet."""
        with self._counting:
            return {name: self._counts[name] for name in OUTCOMES} | {"left": len(self._queue) + self._in_flight}

    # --- the end -----------------------------------------------------------------------------------------------------

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what waits, in this thread; as in the SDK, the exporter's own time-out is the limit."""
        if not self._closing:
            self._export(1)
        return not self._closing

    def shutdown(self) -> None:
        """Export what waits, for `close_seconds` at most. What is left then is lost, and told with the sum."""
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        self._thread.join(self._close_seconds)
        counts = self.counts()
        self._exporter.shutdown()
        if counts["failed"] or counts["dropped"] or counts["left"]:
            lost = counts["failed"] + counts["dropped"] + counts["left"]
            log.warning("spans lost until the end", spans=lost, **counts)
