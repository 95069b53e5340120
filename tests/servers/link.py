"""A TCP connection from a process to its server that loses answers, breaks, and leads elsewhere after a failover."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.servers.tcp import LOOPBACK, listen


class Link:
    """Forwards to one address of the loopback interface; what it does to its connections is the test's choice."""

    def __init__(self, port: int) -> None:
        """`port` is where the server listens."""
        self._target = port
        self._up = True
        self._answers = True
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.lost = 0
        """Bytes of answers that were thrown away."""

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator["Link"]:
        """Listen on a free port of the loopback address for as long as the block lasts."""
        async with listen(self._accept) as self.port:
            yield self

    async def lose_answers(self, seconds: float, cut: float) -> None:
        """For `seconds` the server gets what it is sent and its answers vanish; then nothing connects for `cut`
        seconds."""
        self._answers = False
        await asyncio.sleep(seconds)
        self._up = False
        await self._break_all()
        self._answers = True
        await asyncio.sleep(cut)
        self._up = True

    @contextlib.asynccontextmanager
    async def swallowing_answers(self) -> AsyncIterator[None]:
        """Within the block the server gets what it is sent and its answers vanish; then the link is cut."""
        self._answers = False
        try:
            yield
        finally:
            await self.cut()

    async def cut(self) -> None:
        """Break all connections and accept none until `lead_to`."""
        self._up = False
        await self._break_all()
        self._answers = True

    def lead_to(self, port: int) -> None:
        """Accept connections again, and forward them to this port."""
        self._target = port
        self._up = True

    async def _break_all(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            if self._up:
                await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side broke it, or the test did
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target)
        both = [
            asyncio.create_task(self._copy(reader, far_writer, answers=False)),
            asyncio.create_task(self._copy(far_reader, writer, answers=True)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()  # first: the link may be broken a second time while this one is awaited
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            with contextlib.suppress(OSError):
                await far_writer.wait_closed()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await source.read(65536):
            if answers and not self._answers:
                self.lost += len(data)
                continue
            target.write(data)
            await target.drain()
