"""What the routes read out of paths, headers and bodies before anything is stored."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from goqueue.errors import InvalidInput
from goqueue.job import MAX_ID
from goqueue.jsontext import decode
from goqueue_api.bulk import MAX_ORDERS, decode_many
from goqueue_api.context import job_id, known_queue
from goqueue_api.jobs import idempotency_key
from goqueue_api.plans import schedule_name


@given(st.integers(1, MAX_ID))
def test_every_id_there_can_be_is_read(number: int) -> None:
    assert job_id(str(number)) == number


@given(st.text(max_size=30).filter(lambda text: not (text.isascii() and text.isdecimal())))
def test_anything_else_is_an_invalid_id_and_never_another_error(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        job_id(text)
    assert caught.value.as_dict() == {"error": "invalid ID"}


@pytest.mark.parametrize(
    "text", ["0", "-1", "+1", " 1", "1 ", "1_0", "1.0", "1e3", "²", "１", str(MAX_ID + 1), "9" * 5000]
)
def test_what_looks_like_a_number_but_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid ID"):
        job_id(text)


def test_an_unknown_queue_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidInput) as caught:
        known_queue("c", ["b", "a"])
    assert caught.value.fields == {"provided": "c", "allowed": ["a", "b"]}


@pytest.mark.parametrize("name", ["daily", "a", "a.b-c_9", "x" * 128])
def test_a_schedule_may_be_called(name: str) -> None:
    assert schedule_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a b", "a/b", "a\n", "\0", "x" * 129, "é"])
def test_a_schedule_may_not_be_called(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        schedule_name(name)
    assert list(caught.value.fields) == ["name"]


def _with_key(value: bytes | None) -> Request:
    headers = [] if value is None else [(b"idempotency-key", value)]
    return Request({"type": "http", "headers": headers})


def test_no_key_is_no_key() -> None:
    assert idempotency_key(_with_key(None)) is None


@pytest.mark.parametrize("value", [b"a", b"x" * 255, b"order 7/b"])
def test_a_printable_key_is_taken(value: bytes) -> None:
    assert idempotency_key(_with_key(value)) == value.decode()


@pytest.mark.parametrize("value", [b"", b"x" * 256, b"\x00", b"a\tb", b"\x7f", b"\xa0"])
def test_any_other_key_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidInput):
        idempotency_key(_with_key(value))


ORDERS = st.lists(st.dictionaries(st.text(max_size=5), st.integers(-9, 9), max_size=2), min_size=1, max_size=20)


@given(ORDERS, st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \n"]))
def test_ndjson_and_an_array_say_the_same(orders: list[dict[str, int]], between: bytes) -> None:
    if any("\0" in key for order in orders for key in order):
        return
    lines = between.join(map(orjson.dumps, orders)) + between
    assert decode_many(lines, "application/x-ndjson") == decode_many(orjson.dumps(orders), "") == orders
    assert decode_many(lines, "") == orders


def test_a_wrong_line_is_named_by_its_index_and_its_place_in_the_file() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_many(b'{"a": 1}\n\n{"a": 2}\nnope\n', "")
    assert caught.value.fields == {"index": 2, "line": 4}


@pytest.mark.parametrize("body", [b"", b"\n\n", b"[]", b" [ ] "])
def test_a_bulk_of_nothing_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="validation failed"):
        decode_many(body, "")


@pytest.mark.parametrize("body", [orjson.dumps([1] * (MAX_ORDERS + 1)), b"1\n" * (MAX_ORDERS + 1)])
def test_one_too_many_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_many(body, "")
    assert caught.value.fields == {"body": "at most 10000 jobs in one request"}


def test_reading_ndjson_stops_at_the_limit() -> None:
    with pytest.raises(InvalidInput, match="validation failed"):
        decode_many(b"1\n" * (MAX_ORDERS + 1) + b"not even read", "")


@pytest.mark.parametrize("number", [-(2**63), 2**63 - 1, 2**64 - 1, 0])
def test_a_number_of_64_bits_is_kept_exactly(number: int) -> None:
    assert decode(str(number)) == number


@pytest.mark.parametrize("body", [str(2**64), str(-(2**63) - 1), '{"a": [1' + "0" * 25 + "]}", "9" * 5000])
def test_a_larger_whole_number_is_refused_not_rounded(body: str) -> None:
    with pytest.raises(InvalidInput, match=r"^invalid json: "):
        decode(body)


@pytest.mark.parametrize("body", ['"' + "9" * 40 + '"', "0.12345678901234567890123", "1.5e20"])
def test_long_digits_in_text_and_in_fractions_are_no_such_number(body: str) -> None:
    assert decode(body) == orjson.loads(body)
