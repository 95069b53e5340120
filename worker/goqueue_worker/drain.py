"""How a worker ends: it fetches no more, its jobs finish within the grace period or go back, every end is written."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog

from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, GoQueueError
from goqueue.store.connect import Database
from goqueue.tasks import wait_at_most
from goqueue_worker.claiming import Claims
from goqueue_worker.completer import Completer
from goqueue_worker.runner import Runner

CLAIM_SECONDS: Final = 2.0
"""How long a drain waits, after its grace period, for a claim that is under way."""

WRITE_SECONDS: Final = 5.0
"""How long a worker that ends tries to write the ends that it has. The chart allows 10 s beyond the grace period."""

REPORT_SECONDS: Final = 2.0
"""The same for progress and log lines."""

log = structlog.get_logger(__name__)


class Drain:
    """The end of one worker."""

    def __init__(
        self,
        grace_seconds: float,
        broker: Broker,
        database: Database,
        completer: Completer,
        runner: Runner,
        freed: asyncio.Event,
    ) -> None:
        """`freed` is set whenever an attempt ends."""
        self._grace = grace_seconds
        self._broker = broker
        self._database = database
        self._completer = completer
        self._runner = runner
        self._freed = freed
        self._stopped_at = 0.0
        self.begun = asyncio.Event()
        """Set once the worker is to stop."""

    def begin(self) -> None:
        """Fetch no more; the grace period begins now. Call it in the event loop's thread."""
        if not self.begun.is_set():
            self._stopped_at = time.monotonic()
            self.begun.set()
        self._freed.set()

    async def drain(
        self, fetching: list[asyncio.Task[None]], claims: Claims, hand_back_held: Callable[[], None]
    ) -> None:
        """Let running jobs finish within the grace period, hand back the rest uncharged, write every end.

        A claim that is under way may wait for PostgreSQL: neither the drain nor its end waits for it.
        """
        deadline = self._stopped_at + self._grace
        ending = asyncio.create_task(self._end_fetch(fetching), name="end-fetch")
        ending.add_done_callback(lambda _: self._freed.set())
        hand_back_held()
        self._runner.hand_back_waiting()
        running = self._runner.running
        log.info("draining", running=len(running), grace_seconds=self._grace)
        while (running or not ending.done()) and (left := deadline - time.monotonic()) > 0:
            self._freed.clear()
            await wait_at_most(self._freed, left)
        if running:
            log.warning("grace period over, handing back", jobs=list(running)[:20])
            await self._runner.give_up()
        await asyncio.wait({ending}, timeout=CLAIM_SECONDS)
        if ending.done():
            ending.result()
        else:
            log.error("a claim does not end; what it takes will be rescued")
            ending.cancel()
        await self.settled(claims)  # what it finds is handed back
        hand_back_held()
        await self.write_ends()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._runner.reports.flush(self._database), timeout=REPORT_SECONDS)

    async def settled(self, claims: Claims) -> bool:
        """Look once more for what lost claims took; False where that is not known."""
        with contextlib.suppress(GoQueueError, TimeoutError):
            return await asyncio.wait_for(claims.settle(), timeout=CLAIM_SECONDS)
        return False

    async def _end_fetch(self, fetching: list[asyncio.Task[None]]) -> None:
        """Wake the fetch that may be blocked; never cancel it, since what it has just popped would be lost to Redis."""
        while not all(task.done() for task in fetching):
            with contextlib.suppress(BrokerUnavailable):
                await self._broker.wake_fetch()
            await asyncio.wait(fetching, timeout=0.1)
        for task in fetching:
            task.result()

    async def write_ends(self) -> None:
        """Wait until every end is written, for `WRITE_SECONDS` at most."""
        try:
            await asyncio.wait_for(self._completer.drained(), timeout=WRITE_SECONDS)
        except TimeoutError:
            log.error("ends not written before exit; their jobs will be rescued", ends=self._completer.backlog)
