"""What a worker must know of others: a job is to be cancelled, a queue is paused, another worker serves its queues, the
worker itself is to drain."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import structlog

from goqueue.broker import Broker
from goqueue.broker.reading import job_id
from goqueue.errors import BrokerUnavailable, StoreUnavailable
from goqueue.store import attempts, draining, queues
from goqueue.store.connect import Database

log = structlog.get_logger(__name__)


class Requests:
    """Redis says it at once; what is missed there PostgreSQL says within a heartbeat."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        every: float,
        *,
        served: tuple[str, list[str]],
        jobs: Callable[[], Sequence[int]],
        cancel: Callable[[int], None],
        resumed: Callable[[], None],
        drain: Callable[[], None],
    ) -> None:
        """`every` in seconds; `served` is the worker's name and queues; `jobs` tells which jobs it has.

        `cancel`, `resumed` and `drain` are called on request.
        """
        self._database = database
        self._broker = broker
        self._every = every
        self._served = served
        self._jobs = jobs
        self._cancel = cancel
        self._resumed = resumed
        self._drain = drain
        self._drain_until = 0.0  # `time.monotonic()`
        self._told = False
        self.paused: set[str] = set()
        """Queues from which nothing is to be fetched."""
        self.alone = False
        """Whether no other worker serves any of the queues, as of the last look."""
        self.draining = False
        """Whether the worker is asked to fetch no jobs."""

    async def hear(self) -> None:
        """Requests as they are made."""
        while True:
            try:
                async for message in self._broker.listen(self._broker.control_channel):
                    verb, *words = message.split(" ")
                    if verb == "cancel":
                        self._cancel_if_known(words)
                    elif verb in ("pause", "resume", ""):
                        await self._look_at_pauses()
                    if verb in ("drain", ""):
                        await self._look_at_workers()
                    # Anything else is of a later version, which does not rely on this one to understand it.
            except (BrokerUnavailable, StoreUnavailable):
                await asyncio.sleep(1.0)  # neither gives a sign when it is back

    def _cancel_if_known(self, words: Sequence[str]) -> None:
        if words and (found := job_id(words[0].encode())) is not None:
            self._cancel(found)
        elif not self._told:
            self._told = True
            log.warning("request to cancel not understood", request=" ".join(words)[:60])

    async def look(self) -> None:
        """PostgreSQL's word on them, again and again."""
        while True:
            try:
                await self._look_at_pauses()
                await self._look_at_workers()
                if ids := self._jobs():
                    async with self._database.connection() as connection:
                        for job_id in await attempts.cancel_requests(connection, ids):
                            self._cancel(job_id)
            except StoreUnavailable:
                pass
            await asyncio.sleep(self._every)

    def pause(self, names: set[str]) -> None:
        """Fetch no more from these queues: PostgreSQL has just said that they are paused."""
        self.paused = self.paused | names

    async def _look_at_pauses(self) -> None:
        async with self._database.connection() as connection:
            paused = await queues.paused(connection)
        before, self.paused = self.paused, paused
        self._resumed()
        if not paused <= before:
            await self._begin_fetch_anew()  # it may wait for jobs of a queue that is paused now

    async def _look_at_workers(self) -> None:
        asked_at = time.monotonic()
        async with self._database.connection() as connection:
            others, seconds = await draining.standing(connection, *self._served)
        self._drain_until = asked_at + seconds
        if seconds > 0 and not self.draining:
            self.draining = True
            log.info("asked to drain: no more jobs are fetched", worker=self._served[0])
            self._drain()
            await self._begin_fetch_anew()  # what it brings goes back
        self.end_drain(time.monotonic())
        was_alone, self.alone = self.alone, not others
        if was_alone and others:
            await self._begin_fetch_anew()  # it asks for all that there is room for

    def end_drain(self, now: float) -> None:
        """Fetch again where the request is over: whoever made it renews it for as long as it holds."""
        if self.draining and now >= self._drain_until:
            self.draining = False
            log.info("fetches jobs again", worker=self._served[0])
            self._resumed()

    async def _begin_fetch_anew(self) -> None:
        with contextlib.suppress(BrokerUnavailable):
            await self._broker.wake_fetch()
