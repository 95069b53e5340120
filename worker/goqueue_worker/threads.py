"""Threads for handlers that are not async."""

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from goqueue_worker.attempt import RunningAttempt

PATIENCE: Final = 30.0
"""Seconds that a job waits for a thread before it goes back to its queue, where another worker may have one free."""

Returned = tuple[Any, BaseException | None]
"""What a handler returned, or what it raised. As a value: a future of asyncio does not carry every exception, and some
it exchanges for others."""


class Threads:
    """Calls each handler in a thread of its own, `most` at a time; further jobs wait in the order in which they came.

    A thread cannot be interrupted. The thread of a handler that runs on after its attempt is over counts as taken until
    the handler returns. All methods belong to the event loop's thread.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.abandoned = 0
        """Handlers that still run although their attempt is over."""
        self._free = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="handler")

    @property
    def waiting(self) -> int:
        """Jobs that wait for a thread."""
        return len(self._waiting)

    async def call(self, running: RunningAttempt, handler: Callable[..., Any], *arguments: Any) -> Returned:
        """Call the handler once a thread is free; the time of the attempt begins then.

        Raises:
            RuntimeError: the system gives this process no more threads.
        """
        if self._free:
            self._free -= 1
        else:
            await self._turn(running)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Returned] = loop.create_future()
        running.begin()
        try:
            self._pool.submit(self._call, loop, answer, contextvars.copy_context(), handler, arguments)
        except RuntimeError:
            self._release()
            raise
        try:
            return await answer
        except asyncio.CancelledError:
            self.abandoned += 1
            raise

    async def _turn(self, running: RunningAttempt) -> None:
        """Wait for a thread; on return it is taken."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        running.wait(PATIENCE)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(turn)
            else:
                self._release()
            raise

    def _release(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _call(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: asyncio.Future[Returned],
        context: contextvars.Context,
        handler: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        """In the thread."""
        returned = context.run(_outcome, handler, arguments)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker did not wait for this thread
            loop.call_soon_threadsafe(self._returned, answer, returned)

    def _returned(self, answer: asyncio.Future[Returned], returned: Returned) -> None:
        self._release()
        if answer.cancelled():
            self.abandoned -= 1
        else:
            answer.set_result(returned)

    def shutdown(self) -> None:
        """Start no more threads, and wait for none."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _outcome(handler: Callable[..., Any], arguments: tuple[Any, ...]) -> Returned:
    try:
        return handler(*arguments), None
    except BaseException as error:
        return None, error
