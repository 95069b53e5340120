"""A TCP proxy that can fall silent: connections stay open and say nothing, as when a host or a firewall vanished."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tests.servers.tcp import listen

Silence = Callable[[bytes], bool]
"""Given what a client sends, whether this connection falls silent from now on."""


class SilentProxy:
    """Forwards to one address until told to be silent."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._silence: Silence = lambda _: False
        self.port = 0
        self.opened = 0
        """Connections so far."""
        self.silenced = 0
        """Connections that fell silent."""

    def silence(self, which: Silence) -> None:
        """From now on a connection falls silent for good when `which` says so of what its client sends."""
        self._silence = which

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator["SilentProxy"]:
        """Listen on a free port of the loopback address."""
        async with listen(self._serve) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, far_writer))
                group.create_task(self._back(far_reader, writer))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            far_writer.transport.abort()
            with contextlib.suppress(OSError):
                await far_writer.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._silence(data):
                self.silenced += 1
                while await reader.read(65536):
                    pass
                break
            far.write(data)
            await far.drain()
        raise ConnectionResetError

    async def _back(self, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await far.read(65536):
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
