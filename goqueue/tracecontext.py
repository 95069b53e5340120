"""The trace context that stands with a job: W3C `traceparent` and, after a space, `tracestate` if there is one. Pure.

Retries stay in the trace of their job and link to its first attempt. So the end of a first attempt adds the id of its
span to the tracestate, as the member `goqueue` (docs/decisions/0006-traces.md).
"""

import re
from dataclasses import dataclass
from typing import Final

MEMBER: Final = "goqueue"
"""Our member of the tracestate."""

_MAX_STATE: Final = 512
"""Characters of a tracestate that W3C asks everybody to pass on."""

_LENGTH: Final = 55
"""Characters of a traceparent."""

_PARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_HEAD: Final = re.compile(_PARENT.pattern + r"(?: |\Z)")
_STATE: Final = re.compile(r"[\x20-\x7e]*")
_SPAN: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a job stands in a trace. Ids are lower-case hexadecimal; `first` is the span of the first attempt."""

    trace_id: str
    span_id: str
    flags: int
    state: str = ""
    first: str | None = None

    @property
    def sampled(self) -> bool:
        """Whether somebody records the trace."""
        return bool(self.flags & 1)

    @property
    def traceparent(self) -> str:
        """The header of that name."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def headers(self) -> dict[str, str]:
        """As headers of a request; without our own member, which is nobody else's business."""
        return {"traceparent": self.traceparent} | ({"tracestate": self.state} if self.state else {})

    def stored(self) -> str:
        """As the text that stands with the job."""
        members = [f"{MEMBER}={self.first}"] if self.first else []
        state = ",".join([*members, self.state] if self.state else members)
        return f"{self.traceparent} {state}" if state else self.traceparent


def parse(text: str | None) -> TraceContext | None:
    """What stands with a job; None where that is nothing, or nothing that W3C knows. Half a context is none."""
    if text is None:
        return None
    parent, _, state = text.partition(" ")
    found = _PARENT.fullmatch(parent)
    if found is None:
        return None
    first, others = None, []
    if len(state) <= _MAX_STATE and _STATE.fullmatch(state):
        for member in filter(None, (part.strip() for part in state.split(","))):
            key, _, value = member.partition("=")
            if key != MEMBER:
                others.append(member)
            elif _SPAN.fullmatch(value):
                first = value
    return TraceContext(found[1], found[2], int(found[3], 16), ",".join(others), first)


def parent(text: str) -> tuple[str, str, str] | None:
    """Trace id, span id and flags of what stands with a job, as they are written there. For the hot path."""
    found = _HEAD.match(text)
    return found and found.group(1, 2, 3)  # type: ignore[return-value]


def unrecorded(text: str) -> bool:
    """Whether this is a traceparent alone that says that nobody records the trace. As fast as can be, so False of what
    has a tracestate, and perhaps True of what is none at all."""
    return len(text) == _LENGTH and text[-1] in "02468ace"


def sampled(flags: str) -> bool:
    """Whether these two hexadecimal digits say that somebody records the trace."""
    return flags[1] in "13579bdf"


def from_headers(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """The context of a request; our own member counts for nothing there."""
    found = parse(f"{traceparent} {tracestate}" if " " not in traceparent else None)
    return found and TraceContext(found.trace_id, found.span_id, found.flags, found.state)


def trace_id(text: str | None) -> str | None:
    """The id of the trace that has a job in it, if somebody records it."""
    found = parent(text) if text is not None and not unrecorded(text) else None
    return found[0] if found is not None and sampled(found[2]) else None
