"""Whether this process makes spans. Off unless asked for, and then nothing of OpenTelemetry's SDK is imported.

The switch is `tracing.on`: one look at it is all that the hot path pays where it is None. What spans there are and
how they hang together stands in `goqueue.spans`; what the environment says about exporters in `goqueue.exporting`.
"""

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from goqueue import settings, tracecontext
from goqueue.job import NewJob, Source
from goqueue.settings import TracingSettings

if TYPE_CHECKING:
    from goqueue.spans import Spans

Attributes = dict[str, Any]
"""Of a span, by name."""

FLUSH_SECONDS: Final = 3.0
"""Longest wait at the end of a process for spans to be exported."""

on: "Spans | None" = None
"""What makes spans in this process. Ask for it as `tracing.on`."""

_close: Callable[[], None] | None = None
_library: "Spans | None" = None

_API: Final = "opentelemetry.trace"
_SDK: Final = "opentelemetry.sdk.trace"
_NOTHING: Final[AbstractContextManager[None]] = nullcontext()


def check() -> None:
    """Find out whether `begin` would fail.

    Raises:
        SettingsError: as `begin`.
    """
    chosen = settings.load(TracingSettings)
    if chosen.wanted:
        from goqueue import exporting

        exporting.check(chosen)


def begin(process: str) -> None:
    """Make spans from now on, if the environment asks for it (`OTEL_*`) or a module of job types has set up its own.

    Raises:
        SettingsError: a variable is wrong, or the packages that it asks for are not installed.
    """
    global on, _close
    chosen = settings.load(TracingSettings)
    if chosen.sdk_disabled or (chosen.traces_exporter == "none"):
        return
    if chosen.wanted:
        from goqueue import exporting

        on, _close = exporting.spans(process, chosen, FLUSH_SECONDS)
    elif _SDK in sys.modules:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        from goqueue import spans

        theirs = trace.get_tracer_provider()
        if isinstance(theirs, TracerProvider):
            on, _close = spans.Spans(theirs), theirs.shutdown


def end() -> None:
    """Export what is left, for `FLUSH_SECONDS` at most: nobody waits for an exporter that is away. Blocks so long."""
    global on, _close
    close, on, _close = _close, None, None
    if close is not None:
        closing = threading.Thread(target=close, name="traces", daemon=True)
        closing.start()
        closing.join(FLUSH_SECONDS + 1)  # with the line that says how many spans are lost


def sender(source: Source) -> "Spans | None":
    """What makes the span of an enqueue; jobs from the library get one within a span of their program's own."""
    return _of_caller() if on is None and source is Source.LIBRARY else on


def sending(order: NewJob) -> AbstractContextManager[Any]:
    """A span around the enqueue of an order, which gets its context; or none, see `sender`."""
    spans = sender(order.source)
    return _NOTHING if spans is None else spans.sending([order])


def _of_caller() -> "Spans | None":
    """Spans of the program that uses the library, by whatever it has set up, within a span of its own."""
    global _library
    api: Any = sys.modules.get(_API)
    if api is None or not api.get_current_span().get_span_context().is_valid:
        return None
    if _library is None:
        from goqueue import spans

        _library = spans.Spans(api)
    return _library


def doing(
    name: str, attributes: dict[str, Any] | None = None, parent: str | None = None
) -> AbstractContextManager[Any]:
    """A span around some work of ours; `parent` is a stored context. Gives the span, or None where there are none."""
    return _NOTHING if on is None else on.doing(name, attributes, parent)


def calling(
    name: str, host: str, port: int | None, attributes: dict[str, Any] | None = None
) -> AbstractContextManager[Any]:
    """A span around a call of others. Gives the span, or None where there are none."""
    return _NOTHING if on is None else on.calling(name, host, port, attributes)


def answered(span: Any, status: int) -> None:
    """Note the status of an HTTP response in the span of `calling`, if it is one."""
    if span is not None:
        from goqueue import spans

        spans.answered(span, status, least=400)


def headers(stored: str | None) -> dict[str, str]:
    """W3C headers for a call of others: of the current span, else those of the context that came with the job."""
    api: Any = sys.modules.get(_API)
    if api is not None:
        current = api.get_current_span().get_span_context()
        if current.is_valid:
            from goqueue import spans

            return spans.context_of(current).headers
    came = tracecontext.parse(stored)
    return came.headers if came is not None else {}
