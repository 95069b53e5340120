"""Spans in the encoding of OTLP (protobuf), as far as it is made by hand. Imported only where spans are made.

A message of protobuf is the row of its fields, in any order, and messages joined byte by byte are merged
(https://protobuf.dev/programming-guides/encoding/). So a span is what all spans of its kind share, which the exporter's
own encoder has written once, and a few bytes for its ids, its times and what else differs.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from types import ModuleType
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

TURN: Final = 16
"""Spans of the SDK that are encoded, 50 µs each, before other threads get their turn."""

_YIELD: Final = 1e-5
"""Seconds that a turn lasts at least. With 0 the thread would often have the interpreter back before anybody woke."""

# Tags of fields, with the lengths of those that have always the same: trace_id = 1, span_id = 2, trace_state = 3,
# parent_span_id = 4, start_time_unix_nano = 7, end_time_unix_nano = 8; `spans` of ScopeSpans, `scope_spans` of
# ResourceSpans and `resource_spans` of the request.
_TRACE_ID, _SPAN_ID, _PARENT = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_TRACE_STATE, _START, _END = b"\x1a", b"\x39", b"\x41"
_SPANS, _SCOPE_SPANS, _RESOURCE_SPANS = b"\x12", b"\x12", b"\x0a"

_IDS: Final = Struct("<2s16s2s8scQcQ2s8s")
_IDS_OF_ROOT: Final = Struct("<2s16s2s8scQcQ")
_pack, _pack_of_root, _double = _IDS.pack, _IDS_OF_ROOT.pack, Struct("<d").pack

TEXT: Final = 32
"""Bytes of a varying text at most, and one more."""


def _length(size: int) -> bytes:
    """A length as protobuf writes it."""
    if size < 0x80:
        return bytes((size,))
    if size < 0x4000:
        return bytes((size & 0x7F | 0x80, size >> 7))
    return bytes((size & 0x7F | 0x80,)) + _length(size >> 7)


class Form:
    """All spans that are like an example but for ids, times, a text attribute and a number attribute."""

    def __init__(self, example: Any, text: str = "", number: str = "") -> None:
        """Take the example, a protobuf `Span`, apart."""
        span = type(example)()
        span.CopyFrom(example)
        self._root = not span.parent_span_id
        for field in ("trace_id", "span_id", "parent_span_id", "start_time_unix_nano", "end_time_unix_nano"):
            span.ClearField(field)
        heads, self._number, size = [b""] * TEXT, b"", (_IDS_OF_ROOT if self._root else _IDS).size
        for attribute in [attribute for attribute in span.attributes if attribute.key in (text, number)]:
            span.attributes.remove(attribute)
            alone = type(example)(attributes=[attribute])
            if attribute.key == number:
                self._number = alone.SerializeToString()[:-8]  # a double comes last
                size += len(self._number) + 8
            else:
                heads = [_text_head(alone, length) for length in range(TEXT)]
        self._heads = [span.SerializeToString() + head for head in heads]
        self._sizes = [size + len(head) + length for length, head in enumerate(self._heads)]
        self._begins = [_SPANS + _length(length) for length in self._sizes]

    def encode(
        self,
        trace_id: bytes,
        span_id: bytes,
        parent_id: bytes,
        state: str,
        start: int,
        end: int,
        text: bytes = b"",
        number: float = 0.0,
    ) -> bytes:
        """One span as a field of ScopeSpans. Times in nanoseconds since the epoch."""
        length = len(text)
        if self._root:
            ids = _pack_of_root(_TRACE_ID, trace_id, _SPAN_ID, span_id, _START, start, _END, end)
        else:
            ids = _pack(_TRACE_ID, trace_id, _SPAN_ID, span_id, _START, start, _END, end, _PARENT, parent_id)
        varying = _double(number) if self._number else b""
        if not state:
            return b"".join((self._begins[length], ids, self._heads[length], text, self._number, varying))
        encoded = state.encode()
        encoded = b"".join((_TRACE_STATE, _length(len(encoded)), encoded))
        begin = _SPANS + _length(self._sizes[length] + len(encoded))
        return b"".join((begin, ids, self._heads[length], text, self._number, varying, encoded))


def _text_head(alone: Any, size: int) -> bytes:
    """What stands before a text of so many bytes."""
    alone.attributes[0].value.string_value = "0" * size
    whole: bytes = alone.SerializeToString()
    return whole[: len(whole) - size]


class Envelope:
    """What stands around encoded spans: resource and scope."""

    def __init__(self, resource_spans: Any) -> None:
        """Take them from a protobuf `ResourceSpans` with one scope."""
        scope = resource_spans.scope_spans[0]
        around = type(resource_spans)()
        around.CopyFrom(resource_spans)
        around.ClearField("scope_spans")
        inner = type(scope)()
        inner.CopyFrom(scope)
        inner.ClearField("spans")
        self._resource, self._scope = around.SerializeToString(), inner.SerializeToString()

    def around(self, spans: Iterable[bytes]) -> bytes:
        """An ExportTraceServiceRequest with these."""
        scope = b"".join((self._scope, *spans))
        resource = b"".join((self._resource, _SCOPE_SPANS, _length(len(scope)), scope))
        return b"".join((_RESOURCE_SPANS, _length(len(resource)), resource))


class Request(bytes):
    """A request of OTLP over HTTP: has what the exporter asks of protobuf's messages."""

    def SerializePartialToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Itself."""
        return self


class Batch(Sequence[Any]):
    """Spans for one export: those of the SDK, and those that are encoded already."""

    def __init__(self, spans: Sequence[ReadableSpan | bytes], envelope: Envelope, *, as_message: bool) -> None:
        """`as_message`: the exporter, that of gRPC, takes nothing but protobuf's own class."""
        self._items = spans
        self._envelope = envelope
        self._as_message = as_message

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Any) -> Any:
        return self._items[place]

    def request(self, encode: Callable[[Any], Any]) -> Any:
        """All of them as one ExportTraceServiceRequest; `encode` is the exporter's own encoder."""
        encoded = [span for span in self._items if isinstance(span, bytes)]
        mixed = len(encoded) < len(self._items)
        request = encode(in_turns([span for span in self._items if not isinstance(span, bytes)] if mixed else []))
        if not encoded:
            return request
        if not self._as_message:
            return Request(request.SerializeToString() + self._envelope.around(encoded))
        request.MergeFromString(self._envelope.around(encoded))
        return request


def in_turns(spans: Sequence[ReadableSpan]) -> Iterator[ReadableSpan]:
    """The spans, with a pause after some: a thread that computes keeps the event loop's waiting for 5 ms each time."""
    for number, span in enumerate(spans, 1):
        yield span
        if number % TURN == 0:
            time.sleep(_YIELD)


def teach(exporter: ModuleType) -> None:
    """Let the exporter of this module of OpenTelemetry take a `Batch`: its encoder is a function of the module."""
    theirs = exporter.encode_spans
    exporter.encode_spans = lambda spans: spans.request(theirs) if isinstance(spans, Batch) else theirs(spans)  # type: ignore[attr-defined]
