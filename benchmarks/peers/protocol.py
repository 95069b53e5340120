"""The driver's side of the protocol in README.md, for every driver in Python. Standard library only: it is
imported in the peers' own environments."""

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

POSTGRES_URL = os.environ.get("BENCH_POSTGRES_URL", "")
REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "1000"))
AWAIT_SECONDS = int(os.environ.get("BENCH_AWAIT_MS", "0")) / 1000
PROBE = int(os.environ.get("BENCH_PROBE", "0"))
BULK = 5000
"""Jobs in one call of a bulk interface."""

_PAD = "x" * 160
_probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if PROBE else None
if _probe is not None:
    _probe.connect(("127.0.0.1", PROBE))

Payload = dict[str, Any]


def payload() -> Payload:
    """About 200 bytes as JSON, stamped with the time at which the caller asked."""
    return {"sent": time.time_ns(), "pad": _PAD}


def job(sent: int) -> None:
    """The job itself, for handlers that are not async."""
    if AWAIT_SECONDS or _probe is not None:
        started = time.time_ns()
        if AWAIT_SECONDS:
            time.sleep(AWAIT_SECONDS)
        _tell(sent, started)


async def async_job(sent: int) -> None:
    """The job itself."""
    if AWAIT_SECONDS or _probe is not None:
        started = time.time_ns()
        if AWAIT_SECONDS:
            await asyncio.sleep(AWAIT_SECONDS)
        _tell(sent, started)


def _tell(sent: int, started: int) -> None:
    if _probe is not None:
        _probe.send(b"%d %d %d" % (sent, started, time.time_ns()))


def threads(most: int) -> int:
    """Threads for a system that runs its jobs in them: the slots it is given where jobs wait, else at most `most`."""
    return CONCURRENCY if AWAIT_SECONDS else min(CONCURRENCY, most)


def become(*command: str) -> None:
    """Turn into the system's own worker command, found beside this interpreter."""
    program = os.path.join(os.path.dirname(sys.executable), command[0])
    # The checkout, which is the working directory, has to stay importable for the command too.
    os.environ["PYTHONPATH"] = os.getcwd()
    os.execv(program, [program, *command[1:]])  # noqa: S606 - the driver itself


def await_go() -> None:
    """Say that everything is connected, and wait for the runner's line."""
    print("ready", flush=True)
    sys.stdin.readline()


def _due(count: int, sent: int, begin: float, rate: int) -> int:
    return min(count, int((time.monotonic() - begin) * rate) + 1) - sent


def _pause(begin: float, sent: int, rate: int) -> float:
    return max(begin + sent / rate - time.monotonic(), 0.01)


class SyncDriver:
    """A system whose client blocks."""

    def setup(self) -> None:
        """Make the schema."""

    def open(self, callers: int) -> None:
        """Connect for `callers` concurrent callers."""

    def one(self, payload: Payload) -> None:
        """Enqueue one job; returns when it is accepted."""
        raise NotImplementedError

    def many(self, payloads: list[Payload]) -> None:
        """Enqueue many jobs by the fastest way there is."""
        for each in payloads:
            self.one(each)

    def work(self) -> None:
        """Be a worker process with CONCURRENCY slots, until SIGTERM."""
        raise NotImplementedError

    def enqueue(self, mode: str, count: int, parameter: int) -> None:
        """The protocol's `enqueue`."""
        self.open(parameter if mode == "single" else 1)
        await_go()
        if mode == "bulk":
            for first in range(0, count, BULK):
                self.many([payload() for _ in range(min(BULK, count - first))])
        elif mode == "single":
            shares = [count // parameter + (caller < count % parameter) for caller in range(parameter)]
            callers = [threading.Thread(target=self._singly, args=(share,)) for share in shares]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
        else:
            self._paced(count, parameter)
        print("done", flush=True)

    def _singly(self, count: int) -> None:
        for _ in range(count):
            self.one(payload())

    def _paced(self, count: int, rate: int) -> None:
        begin, sent = time.monotonic(), 0
        while sent < count:
            due = _due(count, sent, begin, rate)
            if due > 1:
                self.many([payload() for _ in range(due)])
            elif due == 1:
                self.one(payload())
            sent += max(due, 0)
            time.sleep(_pause(begin, sent, rate))


class AsyncDriver:
    """A system whose client is async."""

    async def setup(self) -> None:
        """Make the schema."""

    async def open(self, callers: int) -> None:
        """Connect for `callers` concurrent callers."""

    async def one(self, payload: Payload) -> None:
        """Enqueue one job; returns when it is accepted."""
        raise NotImplementedError

    async def many(self, payloads: list[Payload]) -> None:
        """Enqueue many jobs by the fastest way there is."""
        await self.by_callers(50, [lambda each=each: self.one(each) for each in payloads])  # type: ignore[misc]

    def work(self) -> None:
        """Be a worker process with CONCURRENCY slots, until SIGTERM."""
        raise NotImplementedError

    async def close(self) -> None:
        """Wait until all that was accepted is where it belongs."""

    @staticmethod
    async def by_callers(callers: int, calls: list[Callable[[], Awaitable[None]]]) -> None:
        """Make the calls, `callers` at a time."""
        waiting = iter(calls)

        async def caller() -> None:
            for call in waiting:
                await call()

        await asyncio.gather(*(caller() for _ in range(callers)))

    async def enqueue(self, mode: str, count: int, parameter: int) -> None:
        """The protocol's `enqueue`."""
        await self.open(parameter if mode == "single" else 1)
        await_go()
        if mode == "bulk":
            for first in range(0, count, BULK):
                await self.many([payload() for _ in range(min(BULK, count - first))])
        elif mode == "single":
            await self.by_callers(parameter, [lambda: self.one(payload())] * count)
        else:
            await self._paced(count, parameter)
        await self.close()
        print("done", flush=True)

    async def _paced(self, count: int, rate: int) -> None:
        begin, sent = time.monotonic(), 0
        while sent < count:
            due = _due(count, sent, begin, rate)
            if due > 1:
                await self.many([payload() for _ in range(due)])
            elif due == 1:
                await self.one(payload())
            sent += max(due, 0)
            await asyncio.sleep(_pause(begin, sent, rate))


def run_loop(main: Awaitable[None]) -> None:
    """Run on uvloop where the environment has it."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(_of(main))
    else:
        uvloop.run(_of(main))


async def _of(main: Awaitable[None]) -> None:
    await main


def main(driver: SyncDriver | AsyncDriver) -> None:
    """`setup`, `enqueue bulk|single|paced COUNT PARAMETER` or `work`."""
    match sys.argv[1:]:
        case ["work"]:
            driver.work()
        case ["setup"] if isinstance(driver, AsyncDriver):
            run_loop(driver.setup())
        case ["setup"] if isinstance(driver, SyncDriver):
            driver.setup()
        case ["enqueue", mode, count, parameter] if isinstance(driver, AsyncDriver):
            run_loop(driver.enqueue(mode, int(count), int(parameter)))
        case ["enqueue", mode, count, parameter] if isinstance(driver, SyncDriver):
            driver.enqueue(mode, int(count), int(parameter))
        case _:
            sys.exit("usage: setup | enqueue bulk|single|paced COUNT PARAMETER | work")
