"""Bodies of requests: only `InvalidInput` comes out, and what is accepted can be kept as it is."""

import copy
import json
from typing import Any

import orjson
from hypothesis import strategies as st

import goqueue.builtin  # noqa: F401 - registers the built-in types
from goqueue.errors import InvalidInput
from goqueue.job import NewJob
from goqueue.jsontext import decode
from goqueue.orders import accept, accept_all
from goqueue.registry import REGISTRY
from goqueue_api.bulk import MAX_ORDERS, decode_many
from tests.fuzz.inputs import VALUES, fuzz, mutated, nested, spliced

QUEUES = ["default", "email", "webhooks", "payment", "images"]
ORDERS: list[dict[str, Any]] = [
    {
        "queue": "email",
        "type": "send_email",
        "payload": {"to": "ada@example.org", "subject": "Hi", "body": "Hello"},
        "max_retries": 3,
        "priority": 1,
        "available_at": "2030-01-01T00:00:00Z",
        "timeout": 5,
        "unique_key": "k",
    },
    {
        "queue": "webhooks",
        "payload": {"url": "https://example.org/", "method": "POST", "body": {}, "headers": {"a": "b"}, "timeout": 3},
    },
    {
        "queue": "payment",
        "payload": {"payment_id": "p", "user_id": "u", "amount": 5.5, "currency": "EUR", "method": "card"},
    },
]
_ORDER = st.one_of([mutated(order) for order in ORDERS])
_ANYTHING: st.SearchStrategy[Any] = st.deferred(
    lambda: VALUES | _ORDER | st.lists(_ORDER, max_size=3) | st.builds(nested, st.sampled_from([63, 64, 65, 300, 2000]))
)


def _written(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"[" * 2000 + b"]" * 2000


_TEXTS = st.builds(_written, _ANYTHING)
_PIECES = st.sampled_from(
    rb'\u0000 \ud800 \\u0000 " [ ] { } , : NaN -Infinity 1e999 -9223372036854775809 0x1 //'.split()
) | st.sampled_from([b"\n", b"\r", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"9" * 25, b"[" * 70])
_BODIES = st.binary(max_size=60) | _TEXTS | spliced(_TEXTS, _PIECES)


def _refused(error: InvalidInput) -> str:
    assert error.message.startswith("invalid json")
    assert len(error.message.splitlines()) == 1
    assert len(error.message) < 300
    return "refused"


@fuzz(body=_BODIES)
def test_json_is_accepted_as_it_can_be_kept_or_refused(body: bytes) -> str:
    try:
        value = decode(body)
    except InvalidInput as error:
        return _refused(error)
    kept = orjson.dumps(value)
    assert decode(kept) == value
    assert "\x00" not in json.dumps(value, ensure_ascii=False)
    return "accepted"


@fuzz(
    body=_BODIES
    | st.builds(lambda parts, end: end.join(parts), st.lists(_BODIES, max_size=4), st.sampled_from([b"\n", b"\r\n"])),
    content_type=st.sampled_from(["", "application/json", "application/x-ndjson", "text/plain; ndjson", "\x00"]),
)
def test_a_bulk_body_is_a_list_of_orders_or_refused(body: bytes, content_type: str) -> str:
    try:
        orders = decode_many(body, content_type)
    except InvalidInput as error:
        return "none or too many" if set(error.fields) == {"body"} else _refused(error)
    assert isinstance(orders, list)
    assert 0 < len(orders) <= MAX_ORDERS
    return "accepted"


@fuzz(raw=st.one_of(_ORDER, _ORDER, _ANYTHING))
def test_an_order_is_accepted_unchanged_or_refused(raw: Any) -> str:
    try:
        raw = decode(_written(raw))
    except InvalidInput:
        return "no JSON"
    before = copy.deepcopy(raw)
    job: NewJob | None
    try:
        job = accept(raw, REGISTRY, QUEUES)
    except InvalidInput as error:
        orjson.dumps(error.as_dict())
        job = None
    assert raw == before
    assert accept_all([raw], REGISTRY, QUEUES) == (None if job is None else [job])
    if job is None:
        return "refused"
    assert job.payload == before["payload"]
    orjson.dumps(job.payload)
    return "accepted"
