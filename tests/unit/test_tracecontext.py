"""What stands with a job of its trace."""

import pytest

from goqueue import tracecontext
from goqueue.tracecontext import TraceContext

TRACE, SPAN, FIRST = "1" * 32, "2" * 16, "3" * 16
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "stored",
    [PARENT, f"{PARENT} a=1,b=2", f"{PARENT} goqueue={FIRST}", f"{PARENT} goqueue={FIRST},a=1"],
)
def test_what_is_stored_is_read_back(stored: str) -> None:
    found = tracecontext.parse(stored)
    assert found is not None
    assert found.stored() == stored


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "trace",
        f"01-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.replace('1', 'A')}-{SPAN}-01",
        f"{PARENT}\n",
    ],
)
def test_anything_else_is_none(stored: str | None) -> None:
    assert tracecontext.parse(stored) is None
    assert tracecontext.trace_id(stored) is None


@pytest.mark.parametrize("state", ["a=\u00e9", "a=\n", "x=" + "1" * 600])
def test_a_tracestate_that_is_none_is_left_out(state: str) -> None:
    assert tracecontext.from_headers(PARENT, state) == TraceContext(TRACE, SPAN, 1)


def test_a_callers_own_member_of_our_name_counts_for_nothing() -> None:
    found = tracecontext.from_headers(PARENT, f"goqueue={FIRST},a=1")
    assert found == TraceContext(TRACE, SPAN, 1, "a=1")


def test_our_member_is_sent_to_nobody() -> None:
    found = tracecontext.parse(f"{PARENT} goqueue={FIRST},a=1")
    assert found is not None
    assert found.headers == {"traceparent": PARENT, "tracestate": "a=1"}


def test_only_a_recorded_trace_has_an_id_to_look_up() -> None:
    assert tracecontext.trace_id(PARENT) == TRACE
    assert tracecontext.trace_id(f"00-{TRACE}-{SPAN}-00") is None
    assert tracecontext.trace_id(f"00-{TRACE}-{SPAN}-03") == TRACE
