"""Tasks that begin at once, and waits that end in time."""

import asyncio
import contextlib
import sys
from collections.abc import Coroutine, Iterable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T], name: str | None = None, context: Context | None = None) -> asyncio.Task[T]:
    """A task that runs here and now until it first waits, and not after a turn of the event loop.

    It runs in `context`, or in a copy of the caller's. Before Python 3.12 it begins with the next turn, before whatever
    is woken from now on.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, name=name, context=context, eager_start=True)
    return loop.create_task(work, name=name, context=context)


async def end_all(tasks: Iterable[asyncio.Future[Any]], *, again: float = 1.0) -> None:
    """Cancel tasks until they are done, once more after each `again` seconds.

    Once is not enough: before Python 3.12 `asyncio.wait_for`, which psycopg's pool uses, loses a cancellation that
    comes together with what it waited for.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again)


async def wait_at_most(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for the event, but no longer than that; None: for as long as it takes. Which it was, the event knows."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
