"""Claims: the jobs that a worker fetched become its own, also where PostgreSQL's answer is lost on its way."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import structlog

from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, StoreContended, StoreUnavailable
from goqueue.job import ClaimedJob, ReadyJob
from goqueue.store import attempts
from goqueue.store.connect import Database
from goqueue.tasks import wait_at_most
from goqueue_worker.ledger import ClaimLedger

RETRY: Final = 0.2
"""Seconds between two tries while PostgreSQL cannot be reached."""

SKIP_LOCKED: Final = 30.0
"""Seconds for which claims leave out locked rows, after one has waited for such a row in vain."""

LOCKED_AGAIN: Final = 1.0
"""Seconds after which jobs whose rows were locked go back to their queue."""

log = structlog.get_logger(__name__)


class Registration(Protocol):
    """What a claim must know of the worker's heartbeat."""

    @property
    def worker_id(self) -> int | None:
        """The worker's present id; None where it has none."""

    @property
    def fenced(self) -> bool:
        """Whether the worker may take no jobs for now."""


class Claims:
    """Claims jobs, and finds those of claims whose answer was lost."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        registration: Registration,
        stopping: asyncio.Event,
        every: float,
        *,
        recovered: Callable[[list[ClaimedJob]], None],
        paused: Callable[[set[str]], None],
    ) -> None:
        """`every` in seconds: how often lost claims are looked for again. `recovered` is given the jobs that they took,
        `paused` the names of queues from which a claim got nothing since they are paused."""
        self._database = database
        self._broker = broker
        self._registration = registration
        self._stopping = stopping
        self._every = every
        self._recovered = recovered
        self._paused = paused
        self._ledger = ClaimLedger()
        self._lost = asyncio.Event()
        self._asking = asyncio.Lock()
        self._skip_locked_until = 0.0
        self._returning: set[asyncio.Task[None]] = set()

    async def claim(self, ready: list[ReadyJob]) -> list[ClaimedJob]:
        """Claim what was fetched from one queue; what cannot be claimed now goes back to Redis, since it is gone from
        there."""
        ids = [job.id for job in ready]
        while not self._registration.fenced and not self._stopping.is_set():
            worker_id = self._registration.worker_id
            if worker_id is None:
                break
            try:
                return await self._claim(worker_id, ready[0].queue, ids)
            except StoreContended:
                log.warning("claim waited for a locked row, trying again without it", jobs=len(ids))
                self._skip_locked_until = time.monotonic() + SKIP_LOCKED
            except StoreUnavailable:
                log.warning("claim failed, trying again", jobs=len(ids))
                await wait_at_most(self._stopping, RETRY)
        await self.put_back(ready)
        return []

    async def _claim(self, worker_id: int, queue: str, ids: list[int]) -> list[ClaimedJob]:
        """One try, under a lease of its own."""
        claim = None
        try:
            async with self._database.connection() as connection:
                claim = self._ledger.sent(worker_id, attempts.new_lease(), ids)
                claimed = await attempts.claim(
                    connection,
                    worker_id,
                    ids,
                    queue=queue,
                    lease=claim.lease,
                    skip_locked=time.monotonic() < self._skip_locked_until,
                )
        except StoreContended:  # has changed nothing
            if claim is not None:
                self._ledger.answered(claim)
            raise
        except BaseException:
            if claim is not None:
                self._ledger.lost(claim, time.monotonic())
                self._lost.set()
            raise
        self._ledger.answered(claim)
        if len(claimed) < len(ids):
            missed = set(ids).difference(job.id for job in claimed)
            if missed:
                self._in_background(self._look_after(sorted(missed), queue))
        return claimed

    # --- what a claim did not get ------------------------------------------------------------------------------------

    async def _look_after(self, ids: list[int], queue: str) -> None:
        """Give back to Redis what is still ready although the claim did not get it."""
        try:
            async with self._database.connection() as connection:
                ready, paused = await attempts.passed_over(connection, ids)
        except StoreUnavailable:
            return  # reconciliation finds them
        if paused:
            self._paused(paused)
        await self.put_back([job for job in ready if job.queue in paused or job.queue != queue])
        if locked := [job for job in ready if job.queue not in paused and job.queue == queue]:
            await wait_at_most(self._stopping, LOCKED_AGAIN)
            await self.put_back(locked)

    async def put_back(self, ready: Sequence[ReadyJob]) -> None:
        """Push jobs that were fetched to where they were."""
        try:
            await self._broker.push(ready, arrived=False)
        except BrokerUnavailable as error:
            log.warning("fetched jobs not pushed back; the dispatcher will", jobs=len(ready), reason=error.reason)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="put-back")
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    # --- claims whose answer was lost --------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Look for what lost claims took, until cancelled: as soon as PostgreSQL answers and heartbeats are written
        again, and from time to time for as long as such a claim may still take effect."""
        while True:
            if not self._ledger.lost_any:
                await self._lost.wait()
            self._lost.clear()
            if await self._look_for_lost():
                await wait_at_most(self._lost, self._every)
            else:
                await asyncio.sleep(RETRY)

    async def settle(self) -> bool:
        """Finish when no claim will be made any more; False where jobs may be this worker's that nobody knows of."""
        if self._returning:
            await asyncio.wait(self._returning, timeout=LOCKED_AGAIN)
        if not self._ledger.settled:
            await self._look_for_lost()
        return self._ledger.settled

    async def _look_for_lost(self) -> bool:
        """One look; False where it cannot be made."""
        async with self._asking:
            worker_id = self._registration.worker_id
            if worker_id is None or self._registration.fenced:
                return False
            claims = self._ledger.unsure(worker_id)
            if not claims:
                return True
            now = time.monotonic()
            ids = sorted({id for claim in claims for id in claim.missing})
            try:
                async with self._database.connection() as connection:
                    jobs = await attempts.held(connection, worker_id, ids, [claim.lease for claim in claims])
            except StoreUnavailable:
                return False
            found = self._ledger.found(claims, jobs, now)
        if found:
            log.warning("jobs found whose claim was not answered", jobs=len(found))
            self._recovered(found)
        return True
