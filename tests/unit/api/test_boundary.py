"""What stands around every request: its id, its time, its size, and failures that nobody expected."""

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from goqueue_api.bodies import BodyTooLarge
from goqueue_api.middleware import Boundary, traceparent

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def scope(*headers: tuple[bytes, bytes], path: str = "/jobs/create") -> Scope:
    return {"type": "http", "method": "POST", "path": path, "headers": list(headers)}


async def answered(app: Any, request: Scope, *chunks: bytes, seconds: float = 1.0) -> list[Message]:
    """What a Boundary of 10 bytes (100 for bulk) around `app` sends."""
    sent: list[Message] = []
    left = list(chunks) or [b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    await Boundary(app, seconds, 10, 100)(request, receive, send)
    return sent


async def reads_all(_: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def request_id(sent: list[Message]) -> bytes:
    return bytes(dict(sent[0]["headers"])[b"x-request-id"])


@pytest.mark.parametrize("given", [b"a", b"A-z_0.9", b"x" * 128])
async def test_a_decent_request_id_is_returned(given: bytes) -> None:
    assert request_id(await answered(reads_all, scope((b"x-request-id", given)))) == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\nb", b'"', "é".encode(), b"a\n"])
async def test_any_other_request_id_is_replaced(given: bytes) -> None:
    made = request_id(await answered(reads_all, scope((b"x-request-id", given))))
    assert made != given
    assert len(made) == 32


async def test_a_body_up_to_the_limit_passes() -> None:
    assert (await answered(reads_all, scope(), b"12345", b"67890"))[0]["status"] == 204


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"5"),)])
async def test_a_body_over_the_limit_stops_the_reader_whatever_was_declared(headers: Any) -> None:
    caught: list[BodyTooLarge] = []

    async def app(request: Scope, receive: Receive, send: Send) -> None:
        try:
            await reads_all(request, receive, send)
        except BodyTooLarge as error:
            caught.append(error)

    await answered(app, scope(*headers), b"12345", b"67890", b"1", b"never read")
    assert [error.fields for error in caught] == [{"limit_bytes": 10}]


async def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    async def app(_: Scope, receive: Receive, __: Send) -> None:
        with pytest.raises(BodyTooLarge):
            await receive()

    await answered(app, scope((b"content-length", b"11")), b"1")


@pytest.mark.parametrize("path", ["/jobs/bulk", "/jobs/bulk/"])
async def test_bulk_has_a_limit_of_its_own(path: str) -> None:
    assert (await answered(reads_all, scope(path=path), b"x" * 100))[0]["status"] == 204


async def test_what_takes_too_long_is_408() -> None:
    async def app(*_: Any) -> None:
        await asyncio.Event().wait()

    sent = await answered(app, scope((b"x-request-id", b"me")), seconds=0.01)
    assert (sent[0]["status"], sent[1]["body"], request_id(sent)) == (408, b'{"error":"request timeout"}', b"me")


async def test_an_unexpected_failure_is_500_in_the_one_shape_without_its_details() -> None:
    async def app(*_: Any) -> None:
        raise RuntimeError("secret")

    sent = await answered(app, scope((b"x-request-id", b"me")))
    assert (sent[0]["status"], sent[1]["body"], request_id(sent)) == (500, b'{"error":"internal server error"}', b"me")


async def test_a_failure_after_the_answer_began_is_passed_on() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("late")

    with pytest.raises(RuntimeError, match="late"):
        await answered(app, scope())


async def test_nobody_is_answered_who_has_left() -> None:
    async def app(*_: Any) -> None:
        raise ClientDisconnect

    assert await answered(app, scope()) == []


def test_a_valid_traceparent_is_kept() -> None:
    assert traceparent(scope((b"traceparent", PARENT))) == PARENT.decode()


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        PARENT + b"-00",
        PARENT.upper(),
        b"ff" + PARENT[2:],
        b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + PARENT[52:],
        PARENT + b"\n",
    ],
)
def test_any_other_traceparent_is_none(wrong: bytes) -> None:
    assert traceparent(scope((b"traceparent", wrong))) is None
