"""Many callers, one statement: while one batch is under way the next gathers. No timer delays a lone one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Gather(Generic[Asked, Answer]):
    """Puts concurrent questions together; `answer` is given up to `most` and answers each, or raises for all."""

    def __init__(
        self, answer: Callable[[list[Asked]], Awaitable[Sequence[Answer | Exception]]], most: int, name: str
    ) -> None:
        self._answer = answer
        self._most = most
        self._name = name
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Answer:
        """The answer to this one; raises what `answer` gave or raised for it."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._task is None or self._task.done():
            # Not at once: those who ask in the same turn of the event loop go together.
            self._task = asyncio.create_task(self._run(), name=self._name)
        return await future

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
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
