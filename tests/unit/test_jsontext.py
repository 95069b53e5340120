"""JSON from outside: what is refused before it reaches PostgreSQL."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue.errors import InvalidInput
from goqueue.jsontext import MAX_DEPTH, decode, holds_nul

strings = st.text()
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | strings,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(strings, children, max_size=4),
    max_leaves=20,
)


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_has_nul(item) for item in value)


@given(documents)
def test_what_decode_accepts_it_returns_unchanged(document: object) -> None:
    encoded = orjson.dumps(document)
    if _has_nul(document):
        with pytest.raises(InvalidInput, match="NUL"):
            decode(encoded)
    else:
        assert decode(encoded) == document


@given(documents)
def test_a_nul_is_found_exactly_where_there_is_one(document: object) -> None:
    assert holds_nul(orjson.dumps(document).decode()) == _has_nul(document)


@pytest.mark.parametrize("text", [r'"\\u0000"', r'"a\\\\u0000"'])
def test_an_escaped_backslash_before_u0000_is_no_nul(text: str) -> None:
    assert "\0" not in decode(text)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b'{"a": Infinity}', b'"\xff"', b'"\\ud800"', b'{"a": 1}}', b'"\\u0000"', b"[1,]", b"'a'"],
)
def test_broken_json_is_named_in_one_line(body: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^invalid json: ") as caught:
        decode(body)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("depth", "fine"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (5000, False)])
def test_nesting_is_bounded(depth: int, fine: bool) -> None:
    body = b"[" * depth + b"]" * depth
    if fine:
        decode(body)
    else:
        with pytest.raises(InvalidInput, match="invalid json"):
            decode(body)


def test_many_flat_braces_are_no_nesting() -> None:
    assert len(decode(b"[" + b",".join([b"{}"] * 500) + b"]")) == 500
