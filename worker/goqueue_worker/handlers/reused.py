"""HTTP over kept connections: what the other side closed just now is sent once more, over a new connection.

A server may close a kept connection at any time, also as the next request is under way; which of the two came first
nobody can tell from outside. So where a reused connection ends before a single byte of an answer, nothing is known to
have gone wrong but the reuse. Only for requests that may arrive twice: RFC 9110, section 9.2.2.
"""

import ssl
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx


@dataclass(slots=True)
class Exchange:
    """What happened to one request: whether it had a new connection, and whether any byte came back."""

    connected: bool = False
    answered: bool = False


_EXCHANGE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


class Watched(httpcore.AsyncNetworkStream):
    """A stream that tells the exchange under way that something was received."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's interface
        """As the stream beneath."""
        data = await self._stream.read(max_bytes, timeout)
        if data and (exchange := _EXCHANGE.get()) is not None:
            exchange.answered = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's interface
        """As the stream beneath."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """As the stream beneath."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
    ) -> httpcore.AsyncNetworkStream:
        """As the stream beneath, and watched as well."""
        return Watched(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """As the stream beneath."""
        return self._stream.get_extra_info(info)


class WatchedBackend(httpcore.AsyncNetworkBackend):
    """A backend whose connections are watched."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """As the backend beneath."""
        if (exchange := _EXCHANGE.get()) is not None:
            exchange.connected = True
        return Watched(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """As the backend beneath."""
        return Watched(await self._backend.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        """As the backend beneath."""
        await self._backend.sleep(seconds)


class RepeatingTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport on a pool of kept connections. A request whose reused connection ends before any answer is
    sent once more over a new one."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls, trust_env=False)
        self._pool = self._connections(backend, tls, kept=20)
        self._fresh = httpx.AsyncHTTPTransport(verify=tls, trust_env=False)
        self._fresh._pool = self._connections(backend, tls, kept=0)

    @staticmethod
    def _connections(
        backend: httpcore.AsyncNetworkBackend, tls: ssl.SSLContext, kept: int
    ) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=None,  # the worker's concurrency bounds them
            max_keepalive_connections=kept,
            keepalive_expiry=5.0,
            network_backend=WatchedBackend(backend),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx, but for the second try."""
        exchange = Exchange()
        token = _EXCHANGE.set(exchange)
        try:
            return await super().handle_async_request(request)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            if exchange.connected or exchange.answered:
                raise
        finally:
            _EXCHANGE.reset(token)
        return await self._fresh.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the kept connections."""
        await super().aclose()
        await self._fresh.aclose()
