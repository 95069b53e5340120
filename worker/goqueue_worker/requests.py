"""What others ask of a worker: to cancel a job that it has, to take nothing from a queue for a while."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, StoreUnavailable
from goqueue.store import attempts, queues
from goqueue.store.connect import Database


class Requests:
    """Redis says it at once; what is missed there PostgreSQL says within a heartbeat."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        every: float,
        *,
        jobs: Callable[[], Sequence[int]],
        cancel: Callable[[int], None],
        resumed: Callable[[], None],
    ) -> None:
        """`every` in seconds; `jobs` tells which jobs the worker has; `cancel` and `resumed` are called on request."""
        self._database = database
        self._broker = broker
        self._every = every
        self._jobs = jobs
        self._cancel = cancel
        self._resumed = resumed
        self.paused: set[str] = set()
        """Queues from which nothing is to be fetched."""

    async def hear(self) -> None:
        """Requests as they are made."""
        while True:
            try:
                async for message in self._broker.listen(self._broker.control_channel):
                    verb, _, argument = message.partition(" ")
                    if verb == "cancel":
                        self._cancel(int(argument))
                    elif verb in ("pause", "resume", ""):
                        await self._look_at_pauses()
            except (BrokerUnavailable, StoreUnavailable):
                await asyncio.sleep(1.0)  # neither gives a sign when it is back

    async def look(self) -> None:
        """PostgreSQL's word on them, again and again."""
        while True:
            try:
                await self._look_at_pauses()
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
            with contextlib.suppress(BrokerUnavailable):
                await self._broker.wake_fetch()  # it may wait for jobs of a queue that is paused now
