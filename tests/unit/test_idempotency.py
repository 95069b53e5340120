"""Which requests with an `Idempotency-Key` are the same, and whose a key is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue.idempotency import is_same, request_key
from goqueue.job import NewJob, Source
from goqueue.jsontext import decode

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
PAYLOADS = st.dictionaries(TEXT, VALUES, max_size=4)


def order(payload: dict[str, Any], **more: Any) -> NewJob:
    return NewJob("email", "send_email", payload, **more)


def turned(value: Any) -> Any:
    """The same value with the fields of all objects in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(inner) for key, inner in reversed(value.items())}
    return [turned(inner) for inner in value] if isinstance(value, list) else value


@given(PAYLOADS)
def test_the_order_of_fields_and_a_second_trip_through_json_make_no_difference(payload: dict[str, Any]) -> None:
    sent = orjson.loads(orjson.dumps(payload))
    key = request_key("k", "key:a", order(sent))
    for same in (turned(sent), decode(orjson.dumps(sent, option=orjson.OPT_INDENT_2))):
        assert request_key("k", "key:a", order(same)) == key


@given(PAYLOADS, PAYLOADS)
def test_other_payloads_have_other_fingerprints_under_the_same_digest(
    payload: dict[str, Any], other: dict[str, Any]
) -> None:
    texts = [orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in (payload, other)]
    keys = [request_key("k", "key:a", order(one)) for one in (payload, other)]
    assert keys[0].digest == keys[1].digest
    assert (keys[0].fingerprint == keys[1].fingerprint) == (texts[0] == texts[1])


@pytest.mark.parametrize(
    "change",
    [
        {"queue": "default"},
        {"type": "send_webhook"},
        {"max_retries": 4},
        {"priority": 1},
        {"timeout": 1.5},
        {"unique_key": "u"},
        {"available_at": datetime(2100, 1, 1, tzinfo=UTC)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_a_request_asks_for_counts(change: dict[str, Any]) -> None:
    asked = order({"a": 1})
    key, other = request_key("k", "c", asked), request_key("k", "c", replace(asked, **change))
    assert key.digest == other.digest
    assert not is_same(other, key.fingerprint, None)


def test_the_trace_and_the_zone_of_a_time_do_not_count() -> None:
    at = datetime(2100, 1, 1, tzinfo=UTC)
    key = request_key("k", "c", order({}, available_at=at))
    local = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert request_key("k", "c", order({}, available_at=local, trace_context="00-1-2-01", source=Source.LIBRARY)) == key


@given(st.lists(st.tuples(st.none() | st.text(), st.text(), st.text()), min_size=2, max_size=2, unique=True))
def test_no_two_callers_tenants_or_keys_share_a_row(owners: list[tuple[str | None, str, str]]) -> None:
    one, other = (request_key(value, caller, order({}, tenant=tenant)) for tenant, caller, value in owners)
    assert one.digest != other.digest
    assert one.fingerprint != other.fingerprint
