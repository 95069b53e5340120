"""From a request body to an order: each rule of the REST contract."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import goqueue.builtin  # noqa: F401 - registers the built-in types
from goqueue.errors import InvalidInput
from goqueue.orders import accept, accept_all
from goqueue.registry import REGISTRY

QUEUES = ["default", "email", "webhooks", "payment", "images"]
MAIL = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}


def body(**changes: Any) -> dict[str, Any]:
    return {"queue": "email", "payload": MAIL, **changes}


def refused(raw: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        accept(raw, REGISTRY, QUEUES)
    return caught.value


@pytest.mark.parametrize(
    ("queue", "payload", "expected"),
    [
        ("email", MAIL, "send_email"),
        ("default", MAIL, "send_email"),
        ("webhooks", {"url": "https://example.org/hook", "method": "POST", "body": {}}, "send_webhook"),
        (
            "payment",
            {"payment_id": "p1", "user_id": "u1", "amount": 12.5, "currency": "USD", "method": "card"},
            "process_payment",
        ),
    ],
)
def test_the_type_follows_from_a_built_in_queue(queue: str, payload: dict[str, Any], expected: str) -> None:
    assert accept({"queue": queue, "payload": payload}, REGISTRY, QUEUES).type == expected


def test_the_queue_follows_from_the_type_where_none_is_named() -> None:
    order = {"type": "send_email", "payload": MAIL}
    assert accept(order, REGISTRY, QUEUES).queue == "email"
    assert accept({**order, "queue": None}, REGISTRY, QUEUES).queue == "email"
    many = accept_all([order, {**order, "queue": "images"}], REGISTRY, QUEUES)
    assert many is not None
    assert [one.queue for one in many] == ["email", "images"]


def test_a_types_own_queue_must_be_one_that_there_is() -> None:
    with pytest.raises(InvalidInput, match="invalid queue") as caught:
        accept({"type": "send_email", "payload": MAIL}, REGISTRY, ["default"])
    assert caught.value.fields == {"provided": "email", "allowed": ["default"]}


@pytest.mark.parametrize(
    "raw", [{}, {"payload": MAIL}, {"queue": None, "type": None, "payload": MAIL}, {"payload": {}}]
)
def test_without_queue_and_type_the_queue_is_asked_for(raw: dict[str, Any]) -> None:
    error = refused(raw)
    assert error.message == "validation failed"
    assert set(error.fields) == {"queue"} | ({"payload"} - set(raw))


def test_another_queue_needs_a_type() -> None:
    assert refused(body(queue="images")).fields == {"type": "required for queue 'images'"}


def test_absent_max_retries_means_five_and_zero_means_none() -> None:
    assert accept(body(), REGISTRY, QUEUES).max_retries == 5
    assert accept(body(max_retries=0), REGISTRY, QUEUES).max_retries == 0


def test_an_unknown_queue_is_told_the_allowed_ones() -> None:
    error = refused(body(queue="nope"))
    assert error.message == "invalid queue"
    assert error.fields == {"provided": "nope", "allowed": sorted(QUEUES)}


def test_an_unknown_type_is_told_the_allowed_ones() -> None:
    error = refused(body(type="nope"))
    assert error.message == "invalid job type"
    assert error.fields["provided"] == "nope"
    assert "send_email" in error.fields["allowed"]


@pytest.mark.parametrize("payload", [None, 1, "x", [], True])
def test_a_payload_must_be_an_object(payload: Any) -> None:
    assert refused(body(payload=payload)).message == "invalid payload format"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_retries": 21}, "max_retries"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": "3"}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"priority": 101}, "priority"),
        ({"available_at": "2026-01-01"}, "available_at"),
        ({"available_at": "2026-01-01T00:00:00"}, "available_at"),
        ({"available_at": "2300-01-01T00:00:00Z"}, "available_at"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 1e-300}, "timeout"),
        ({"timeout": 0.0009}, "timeout"),
        ({"timeout": 86401}, "timeout"),
        ({"unique_key": ""}, "unique_key"),
        ({"unique_key": "a\nb"}, "unique_key"),
        ({"unique_key": "x" * 256}, "unique_key"),
        ({"queue": ""}, "queue"),
        ({"queue": 5}, "queue"),
        ({"type": 5}, "type"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    error = refused(body(**change))
    assert error.message == "validation failed"
    assert list(error.fields) == [field]


@pytest.mark.parametrize("missing", ["queue", "payload"])
def test_a_missing_field_is_named(missing: str) -> None:
    raw = body()
    del raw[missing]
    assert missing in refused(raw).fields


@pytest.mark.parametrize("raw", [None, [], "x", 1])
def test_a_body_must_be_an_object(raw: Any) -> None:
    assert refused(raw).fields == {"body": "must be a JSON object"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"to": "nobody"}, "to"),
        ({"to": None}, "to"),
        ({"subject": ""}, "subject"),
        ({"subject": "a\r\nBcc: eve@example.org"}, "subject"),
        ({"body": ""}, "body"),
        ({"cc": "x"}, "cc"),
    ],
)
def test_a_wrong_e_mail_is_refused_without_showing_its_value(change: dict[str, Any], field: str) -> None:
    error = refused(body(payload={**MAIL, **change}))
    assert error.message == "payload validation failed"
    assert list(error.fields) == [field]
    assert "eve@" not in str(error.fields)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": "5"}, "amount"),
        ({"currency": "US"}, "currency"),
        ({"currency": "US1"}, "currency"),
        ({"method": "cash"}, "method"),
        ({"payment_id": ""}, "payment_id"),
        ({"user_id": ""}, "user_id"),
    ],
)
def test_a_wrong_payment_is_refused(change: dict[str, Any], field: str) -> None:
    payment = {"payment_id": "p", "user_id": "u", "amount": 5, "currency": "EUR", "method": "card", **change}
    assert list(refused({"queue": "payment", "payload": payment}).fields) == [field]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "not a url"}, "url"),
        ({"url": "ftp://example.org"}, "url"),
        ({"method": "GET"}, "method"),
        ({"body": "text"}, "body"),
        ({"timeout": 31}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"headers": {"a b": "c"}}, "headers"),
        ({"headers": {"a": 1}}, "headers"),
        ({"headers": {"a": "b\r\nc: d"}}, "headers"),
    ],
)
def test_a_wrong_webhook_is_refused(change: dict[str, Any], field: str) -> None:
    hook = {"url": "https://example.org/hook", "method": "POST", "body": {}, **change}
    (found,) = refused({"queue": "webhooks", "payload": hook}).fields
    assert found.split(".")[0] == field


ONE_OF_EACH: list[Any] = [
    body(),
    body(priority=7, available_at="2030-01-01T00:00:00Z", timeout=2, unique_key="k", max_retries=0),
    body(type="process_payment", payload={"payment_id": "p", "user_id": "u", "amount": 1, "currency": "USD"}),
    body(type="send_webhook", queue="images", payload={"url": "https://example.org", "method": "POST", "body": {}}),
    body(queue="nope"),
    body(type="nope"),
    body(queue="images"),
    body(payload=[]),
    body(payload={}),
    body(priority=101),
    body(surprise=1),
    None,
]


@given(st.lists(st.sampled_from(ONE_OF_EACH[:4]) | st.sampled_from(ONE_OF_EACH), min_size=1, max_size=6))
def test_many_orders_are_accepted_as_each_would_be_or_none_of_them(raw: list[Any]) -> None:
    try:
        expected = [accept(one, REGISTRY, QUEUES, trace_context="t") for one in raw]
    except InvalidInput:
        assert accept_all(raw, REGISTRY, QUEUES, trace_context="t") is None
    else:
        assert accept_all(raw, REGISTRY, QUEUES, trace_context="t") == expected
