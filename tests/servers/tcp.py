"""TCP servers in a test's own event loop that leave no connection behind."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

LOOPBACK = "127.0.0.1"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection, which is closed when it returns."""


@contextlib.asynccontextmanager
async def listen(serve: Serve, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Accept connections on a free port of the loopback address, yield the port, and close them all at the end.

    `serve` is cancelled where it still runs. A connection that is only about to close would outlive the event loop
    of its test, and its warning would fail another test.
    """
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections[task] = writer
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, LOOPBACK, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for writer in connections.values():
            writer.transport.abort()
        await (
            server.wait_closed()
        )  # for the connections too, since Python 3.12; a writer waits forever after failed TLS
