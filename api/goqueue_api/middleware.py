"""Around every request, as plain ASGI: its id, its time limit, its size limit."""

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from goqueue import metrics, tracecontext, tracing
from goqueue.instruments import OTHER
from goqueue.tracecontext import TraceContext
from goqueue_api.bodies import BodyTooLarge, UnknownEncoding
from goqueue_api.memory import FREE, Memory
from goqueue_api.throttle import HEADERS as RATE_LIMIT

_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers of every answer."""
_PRIVATE: Final = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every answer that has none of its own: what jobs hold is nobody else's, and no JSON is a page."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger(__name__)


class Boundary:
    """Gives each request an id (the caller's own, if it is decent), `seconds` of time and `max_bytes` of body.

    A HEAD request is served as a GET whose body is not sent (RFC 9110, 9.3.2).
    """

    def __init__(
        self, app: ASGIApp, seconds: float, max_bytes: int, max_bulk_bytes: int, memory: Memory | None = None
    ) -> None:
        """`memory` holds the bodies that are not small, None: without a bound."""
        self._app = app
        self._memory = memory
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._max_bulk_bytes = max_bulk_bytes
        self._counted: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = scope
        if head := scope["method"] == "HEAD":
            scope = {**asked, "method": "GET"}
        request_id, declared, encoded = _look(scope["headers"])
        limit = self._max_bulk_bytes if scope["path"].rstrip("/") == "/jobs/bulk" else self._max_bytes
        started = 0  # the status of the answer
        began = time.perf_counter()
        held = 0  # bytes of room for the body

        async def room() -> None:
            nonlocal held
            if self._memory is not None:
                held = await self._memory.bodies.acquire(min(declared, limit) or limit)

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message["status"]
                message["headers"] = _headers(message.get("headers", ()), scope, request_id)
            elif head:
                message = {**message, "body": b""}
            await send(message)

        scope["goqueue.request_id"] = shown = request_id.decode()
        with structlog.contextvars.bound_contextvars(request_id=shown):
            try:
                async with asyncio.timeout(self._seconds):
                    await self._app(scope, _limited(receive, limit, declared, encoded, room), send_with_id)
            except TimeoutError:
                if started:
                    raise
                await _answer(send_with_id, 408, b'{"error":"request timeout"}')
            except ClientDisconnect:
                return
            except Exception:
                if started:
                    raise
                log.exception("request failed", path=scope["path"])
                await _answer(send_with_id, 500, b'{"error":"internal server error"}')
            finally:
                if held and self._memory is not None:
                    self._memory.bodies.release(held)
                if head and "route" in scope:
                    asked["route"] = scope["route"]  # for the span around this
                if started:
                    self._count(asked, started, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """The request in the metrics. The router has left its route in the scope, if there is one."""
        route = getattr(scope.get("route"), "path", OTHER)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        pair = self._counted.get((route, method, status))
        if pair is None:
            requests = metrics.HTTP_REQUESTS.child(route, method, f"{status // 100}xx")
            pair = self._counted[route, method, status] = requests, metrics.HTTP_SECONDS.child(route, method)
        requests, durations = pair
        if requests is not None:
            requests.inc()
            trace_id = tracing.on.recorded() if tracing.on is not None else None
            durations.observe(seconds, None if trace_id is None else {"trace_id": trace_id})


def _headers(own: Sequence[tuple[bytes, bytes]], scope: Scope, request_id: bytes) -> list[tuple[bytes, bytes]]:
    """An answer's headers with those that every answer has."""
    headers = [*own, (b"x-request-id", request_id), *_SECURITY, *scope.get(RATE_LIMIT, ())]
    there = {name for name, _ in own}
    return headers + [(name, value) for name, value in _PRIVATE.items() if name not in there]


async def _answer(send: Send, status: int, body: bytes) -> None:
    """An error by which the connection ends: what it still holds of the request is not read."""
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _look(headers: list[tuple[bytes, bytes]]) -> tuple[bytes, int, bool]:
    """The request's id (a new one where it has none that is decent), the length that it declares, and whether its body
    is compressed."""
    request_id, declared, encoded = b"", 0, False
    for name, value in headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            request_id = value
        elif name == b"content-length" and value.isdigit():
            declared = int(value)
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            encoded = True
    return request_id or uuid.uuid4().hex.encode(), declared, encoded


def _limited(
    receive: Receive, limit: int, declared: int, encoded: bool, room: Callable[[], Awaitable[None]]
) -> Receive:
    """`receive` that gives up once more than `limit` bytes came, or at once where the request declares more or has a
    compressed body. It waits for room before it reads on in a body that is not small."""
    seen = 0
    counts = False

    async def counted() -> Message:
        nonlocal seen, counts
        if encoded:
            raise UnknownEncoding
        if declared > limit:
            raise BodyTooLarge("request body is too large", {"limit_bytes": limit})
        if not counts and (seen > FREE or declared > FREE):
            counts = True
            await room()
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise BodyTooLarge("request body is too large", {"limit_bytes": limit})
        return message

    return counted


def trace_context(scope: Any) -> TraceContext | None:
    """The caller's W3C trace context, if it is one."""
    parents, states = [], []
    for name, value in scope["headers"]:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    if len(parents) != 1:
        return None
    return tracecontext.from_headers(parents[0].decode("latin-1"), b",".join(states).decode("latin-1"))


def traceparent(scope: Any) -> str | None:
    """The same as it stands with a job."""
    found = trace_context(scope)
    return found.stored() if found is not None else None
