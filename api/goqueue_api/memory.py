"""How much of a process's memory large requests and answers may take together.

Small ones are not counted. Who finds no room waits for it, in the order of arrival and for a bounded time, and is then
refused with 503 and `Retry-After`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from goqueue.errors import GoQueueError

FREE: Final = 64 * 1024
"""Bytes of a body, or of an answer, that are not counted."""

BODIES: Final = 16 * 1024 * 1024
"""Bytes of request bodies at the same time; the largest body that is allowed fits in any case."""

MAKING: Final = 2
"""Pages that are read and encoded at the same time; one takes up to some 20 MiB meanwhile."""

SENDING: Final = 24 * 1024 * 1024
"""Bytes of answers that wait for their callers to read them."""

PIECE: Final = 64 * 1024
"""Bytes of an answer that are handed to the connection at once."""


class Overloaded(GoQueueError):
    """Large requests use all the memory that there is for them (HTTP 503). `wait`: seconds until the next try."""

    def __init__(self) -> None:
        super().__init__("too many large requests at once, try again", {"retry_after": 1})
        self.wait = 1


class Room:
    """So many bytes, for whoever comes first; `patience` in seconds bounds the wait for them."""

    def __init__(self, total: int, patience: float) -> None:
        self._total = self._left = total
        self._patience = patience
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def take(self, amount: int) -> AsyncIterator[None]:
        """Hold so many bytes, or all where it is more; raises as `acquire`."""
        held = await self.acquire(amount)
        try:
            yield
        finally:
            self.release(held)

    async def acquire(self, amount: int) -> int:
        """Take so many bytes, or all where it is more; how many are to be released.

        Raises:
            Overloaded: there was no room in time.
        """
        amount = min(amount, self._total)
        if self._waiting or amount > self._left:
            await self._wait(amount)
        else:
            self._left -= amount
        return amount

    async def _wait(self, amount: int) -> None:
        place = amount, asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._patience):
                await place[1]
        except BaseException as error:
            if place in self._waiting:
                self._waiting.remove(place)
                self.release(0)
            elif place[1].done() and not place[1].cancelled():
                self.release(amount)  # it came in the moment in which nobody waited any more
            if isinstance(error, TimeoutError):
                raise Overloaded from None
            raise

    def release(self, amount: int) -> None:
        """Give back what was acquired; whoever waits takes it."""
        self._left += amount
        while self._waiting and self._waiting[0][0] <= self._left:
            amount, future = self._waiting.popleft()
            if not future.done():
                self._left -= amount
                future.set_result(None)


class Memory:
    """What the large requests of one process share."""

    def __init__(self, largest_body: int, patience: float) -> None:
        """`largest_body` in bytes; who waits for room waits `patience` seconds at most."""
        self.bodies = Room(max(BODIES, largest_body), patience)
        self._making = Room(MAKING, patience)
        self.sending = Room(SENDING, patience)

    @contextlib.asynccontextmanager
    async def making(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """What is called in the block before a page takes memory; the block ends when the page is encoded."""
        async with contextlib.AsyncExitStack() as stack:

            async def admit() -> None:
                await stack.enter_async_context(self._making.take(1))

            yield admit


class Sent(Response):
    """An answer that is handed over as fast as its caller reads it, and counted as long as that takes."""

    def __init__(self, response: Response, memory: Memory) -> None:
        """As `response`, which is complete."""
        super().__init__(status_code=response.status_code)
        self.body, self.raw_headers = response.body, response.raw_headers
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        body = memoryview(bytes(self.body))
        async with self._memory.sending.take(len(body)):
            start: dict[str, Any] = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            for at in range(0, len(body), PIECE):
                piece = bytes(body[at : at + PIECE])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def paced(response: Response, memory: Memory) -> Response:
    """The answer, counted where it is large."""
    return response if len(response.body) <= FREE else Sent(response, memory)
