"""Many callers, one statement: while batches are under way the next gathers. No timer delays a lone one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Gather(Generic[Asked, Answer]):
    """Puts concurrent questions together; `answer` is given up to `most` and answers each, or raises for all."""

    def __init__(
        self,
        answer: Callable[[list[Asked]], Awaitable[Sequence[Answer | Exception]]],
        most: int,
        name: str,
        batches: int = 1,
    ) -> None:
        """`batches` may be under way at the same time."""
        self._answer = answer
        self._most = most
        self._name = name
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._batches = batches
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, asked: Asked) -> Answer:
        """The answer to this one; raises what `answer` gave or raised for it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        # One that was woken for the same batch has not taken it yet.
        if len(self._tasks) < self._batches and (not self._tasks or len(self._waiting) == 1):
            # Not at once: those who ask in the same turn of the event loop go together.
            task = asyncio.create_task(self._run(), name=self._name)
            self._tasks.add(task)
        return await future

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        try:
            await self._answer_waiting()
        finally:  # at once, not when the task is done: whoever asks next must begin a new one
            if (task := asyncio.current_task()) is not None:
                self._tasks.discard(task)

    async def _answer_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [(asked, future) for asked, future in batch if not future.done()]  # a caller that gave up
            if not batch:
                continue
            answers: Sequence[Answer | Exception]
            try:
                answers = await self._answer([asked for asked, _ in batch])
            except Exception as error:
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
