"""An event loop without I/O and with a clock of its own, on which several simulated processes run.

Within a process callbacks run in the order in which they were scheduled, as asyncio promises; which process runs next
is drawn from a seeded generator. A process can be killed (nothing of it runs any more) and frozen (nothing of it runs
until it is thawed, while time passes). Time stands still while something can run, but for what a step costs, and then
jumps to the next timer.
"""

import asyncio
import heapq
import itertools
import os
import random
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, Final
from unittest import mock

PROCESS: Final[ContextVar[str]] = ContextVar("simulated_process", default="world")
"""To which simulated process the running code belongs; tasks and callbacks inherit it."""

STEP: Final = 20e-6
"""Seconds that one callback takes."""

START: Final = 1000.0
"""`time.monotonic()` at the beginning."""


class SimulatedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address in memory."""

    _numbers = itertools.count(1)

    def __init__(self, *args: Any, **more: Any) -> None:
        self._number = next(SimulatedTask._numbers)
        super().__init__(*args, **more)
        self._log_destroy_pending = False  # what a killed process leaves behind is no news

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class Stuck(Exception):
    """The simulation goes on without end."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """The loop; `choices` decides which process runs next."""

    def __init__(self, choices: random.Random) -> None:
        super().__init__()
        self._choices = choices
        self._now = START
        self._queues: dict[str, deque[asyncio.Handle]] = defaultdict(deque)
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self.dead: set[str] = set()
        self.frozen: set[str] = set()
        self.steps = 0
        self.most_steps = 3_000_000
        self.kept: list[Any] = []
        self.set_task_factory(lambda loop, work, **more: SimulatedTask(work, loop=loop, **more))

    # --- what asyncio asks of a loop ---------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = _Handle(callback, args, self, context or copy_context())
        self._put(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        timer = _Timer(when, callback, args, self, context or copy_context())
        timer._scheduled = True  # type: ignore[attr-defined]
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        return self.call_at(self._now + max(0.0, delay), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # found when its time comes

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Threads there are none: the function runs whole, some time soon."""
        future = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except BaseException as error:
                future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(0.001, run)
        return future

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def close(self) -> None:
        self._queues.clear()
        self._timers.clear()
        super().close()

    # --- processes ---------------------------------------------------------------------------------------------------

    def spawn(self, process: str, work: Coroutine[Any, Any, Any], name: str | None = None) -> None:
        """Run a coroutine as a part of a process."""
        self.kept.append(self.task(process, work, name))

    def task(self, process: str, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """The same; its task."""
        context = copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(work, name=name, context=context)

    def kill(self, process: str) -> None:
        """Nothing of it runs any more."""
        self.dead.add(process)
        self.kept.append(self._queues.pop(process, None))  # dropped objects would clean up after themselves

    def freeze(self, process: str) -> None:
        """Nothing of it runs until `thaw`."""
        self.frozen.add(process)

    def thaw(self, process: str) -> None:
        """Let it go on."""
        self.frozen.discard(process)

    # --- running -----------------------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Run callbacks until the loop shall stop."""
        queues, frozen, choices = self._queues, self.frozen, self._choices
        while not self._stopping:  # type: ignore[attr-defined]
            if self._timers and self._timers[0][0] <= self._now:
                self._release_timers()
            ready = [name for name, queue in queues.items() if queue and name not in frozen]
            if not ready:
                self._jump()
                continue
            name = ready[0] if len(ready) == 1 else choices.choice(ready)
            handle = queues[name].popleft()
            if handle.cancelled():
                continue
            self.steps += 1
            if self.steps > self.most_steps:
                raise Stuck(f"more than {self.most_steps} steps")
            self._now += STEP
            handle._run()

    def _release_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self._now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled():
                self._put(timer)

    def _put(self, handle: Any) -> None:
        if handle.process in self.dead:
            self.kept.append(handle)
        else:
            self._queues[handle.process].append(handle)

    def _jump(self) -> None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            raise Stuck("nothing can run and nothing is awaited")
        self._now = max(self._now, self._timers[0][0])


class _Handle(asyncio.Handle):
    """A callback that knows its process."""

    __slots__ = ("process",)

    def __init__(self, callback: Any, args: Any, loop: Any, context: Any) -> None:
        super().__init__(callback, args, loop, context)
        self.process = context.get(PROCESS, "world")


class _Timer(asyncio.TimerHandle):
    """A timer that knows its process."""

    __slots__ = ("process",)

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: Any) -> None:
        super().__init__(when, callback, args, loop, context)
        self.process = context.get(PROCESS, "world")


@contextmanager
def deterministic(seed: int) -> Iterator[SimulatedLoop]:
    """A loop that is the clock and the only source of chance of this process while the block runs."""
    generator = random.Random(seed)
    loop = SimulatedLoop(random.Random(generator.getrandbits(64)))
    drawn = random.Random(generator.getrandbits(64))
    random.seed(generator.getrandbits(64))
    SimulatedTask._numbers = itertools.count(1)
    with (
        mock.patch.object(time, "monotonic", loop.time),
        mock.patch.object(time, "perf_counter", loop.time),
        mock.patch.object(asyncio, "Task", SimulatedTask),
        mock.patch.object(os, "getpid", return_value=1),
        mock.patch.object(secrets, "token_hex", lambda length=32: f"{drawn.getrandbits(8 * length):0{2 * length}x}"),
        mock.patch.object(secrets, "randbits", drawn.getrandbits),
        mock.patch.object(secrets, "randbelow", drawn.randrange),
    ):
        asyncio.set_event_loop(loop)
        yield loop
