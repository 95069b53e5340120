"""One HTTP connection, with an end to its patience: uvicorn's own protocol bounds neither a request's head nor the time
that a client takes to send it or to read the answer.

Each process looks once a second at all of its connections, which costs less than a timer for each request would:

- A head that is not complete within `head_timeout` gets 408; a connection that sent nothing at all is closed.
- A head over `max_head_bytes`, or of more than `MAX_HEADERS` headers, gets 431.
- A body that still comes `head_timeout` after its answer ends the connection.
- A client that has not read its answers `write_timeout` after the first of them got stuck is cut off.
- One connection more than `max_connections` gets 503 and is closed.

A body that comes too slowly is `middleware.Boundary`'s business (408 after `request_timeout`).
"""

import asyncio
from functools import cache
from http import HTTPStatus
from typing import Any, ClassVar, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from goqueue import metrics, settings
from goqueue.listening import unmapped
from goqueue.settings import ApiSettings

MAX_HEADERS: Final = 100
"""Headers of one request."""

LOOK: Final = 1.0
"""Seconds between two looks at all connections: how late a time limit may strike."""

_api: Final = cache(lambda: settings.load(ApiSettings))
"""uvicorn makes connections from its own configuration only, and in processes of its own; ours is in the environment
there."""


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits on heads, clients and their number."""

    _look: ClassVar[asyncio.TimerHandle | None] = None
    """The next look at all connections of this process; None where there are none."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **more: Any) -> None:
        super().__init__(config, server_state, app_state, **more)
        self._limits = _api()
        self._head_since: float | None = None
        """When the head that is under way began, in the loop's time."""
        self._head_bytes = 0
        self._body_open = False
        self._left_over_since: float | None = None
        """When a body was first seen of a request that is answered already."""
        self._stuck_since: float | None = None
        """When an answer that still waits to be read was first seen."""
        self._refusal: HTTPStatus | None = None

    # --- uvicorn and the parser call these -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        if self.client is not None:
            self.client = (unmapped(self.client[0]), self.client[1])
        if len(self.connections) > self._limits.max_connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", "connections")
            return
        self._head_since = self.loop.time()
        if Connection._look is None:
            Connection._look = self.loop.call_later(LOOK, _look_at, self.connections, self.loop)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has become too long."""
        continued = self._head_bytes
        super().data_received(data)
        # The parser shows a header when it is complete. What it gathers until then is counted here, but for the first
        # piece, which may hold the body of the request before.
        if continued and self._head_since is not None:
            self._head_bytes = max(self._head_bytes, continued + len(data))
            if self._head_bytes > self._limits.max_head_bytes and not self.transport.is_closing():
                self._too_large()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_since = self.loop.time()
        self._head_bytes = 1

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """The head is complete: the request is on its way to the app."""
        self._head_since = None
        self._head_bytes = 0
        self._body_open = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is complete."""
        self._body_open = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser, or one of the limits above, refused."""
        if self._refusal is not None:
            self._too_large()
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "invalid http request", "head")

    # --- limits ----------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Cut off a client that is too slow; `now` in the loop's time."""
        if self._reads_too_slowly(now):
            metrics.HTTP_CUT.inc(1, "slow_reader")
            self.transport.abort()  # close() would wait until all is read
        elif self._head_since is not None and now - self._head_since > self._limits.head_timeout:
            if self._head_bytes:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request timeout", "slow_head")
            else:
                self._end("silent")
        elif self._still_sends(now):
            self._end("slow_body")

    def _reads_too_slowly(self, now: float) -> bool:
        if self.transport.get_write_buffer_size() == 0:
            self._stuck_since = None
            return False
        if self._stuck_since is None:
            self._stuck_since = now
        return now - self._stuck_since > self._limits.write_timeout

    def _still_sends(self, now: float) -> bool:
        if not self._body_open or not self.cycle.response_complete:
            self._left_over_since = None
            return False
        if self._left_over_since is None:
            self._left_over_since = now
        return now - self._left_over_since > self._limits.head_timeout

    def _end(self, reason: str) -> None:
        metrics.HTTP_CUT.inc(1, reason)
        self._head_since, self._body_open = None, False
        self.transport.close()

    def _count(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > self._limits.max_head_bytes:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("too large")  # the parser stops, and `send_400_response` is called

    def _too_large(self) -> None:
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head is too large", "large_head")

    def _refuse(self, status: HTTPStatus, error: str, reason: str) -> None:
        """Answer in the one error shape, and close."""
        metrics.HTTP_CUT.inc(1, reason)
        self._head_since = None
        body = b'{"error":"%b"}' % error.encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def _look_at(connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
    now = loop.time()
    for connection in tuple(connections):
        connection.look(now)
    Connection._look = loop.call_later(LOOK, _look_at, connections, loop) if connections else None
