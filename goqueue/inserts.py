"""Orders of many callers share one INSERT; who waits for another transaction does so apart from all others.

A unique key, a source key or an idempotency key that another transaction has written and not yet committed makes an
INSERT wait for that transaction. So orders with keys never share a statement with orders without. A batch of them waits
for `QUICK` seconds; then it is halved until the order whose key is held stands alone. That one goes on by itself, at
most `Contention.patience` seconds and with a share of the pool's connections, and is then refused. Its key is known as
contended for a while: later orders with it do not join a batch, and those that come meanwhile wait for the first one's
answer instead of for the database.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

from goqueue import metrics
from goqueue.errors import Conflict, KeysHeld, StoreContended, StoreRefused
from goqueue.gather import Gather
from goqueue.idempotency import RequestKey
from goqueue.job import Enqueued, NewJob, ReadyJob
from goqueue.store import enqueue, idempotency
from goqueue.store.connect import Database

SHARE: Final = 500
"""Orders in one shared INSERT."""

BATCHES: Final = 2
"""Batches of orders with keys that are inserted at the same time."""

QUICK: Final = 0.05
"""Seconds that a batch waits for another transaction with one of its keys."""

PATIENCE: Final = 1.0
"""Seconds that a lone order waits for another transaction with its key, and before that for its turn."""

LOCKED: Final = 10.0
"""Seconds that orders wait for a lock on the whole table where statements have no bound of their own."""

REMEMBERED: Final = 10.0
"""Seconds for which a key is known as contended after an order was refused for it."""

MOST_REMEMBERED: Final = 10_000

UNIQUE_KEY: Final = "unique key is contended, try again"
IDEMPOTENCY_KEY: Final = "idempotency key is contended, try again"

Push = Callable[[Sequence[ReadyJob]], None]
Order = TypeVar("Order")


class Contention:
    """The keys that other transactions hold at the moment, and the right to wait for one of them."""

    def __init__(self, database: Database) -> None:
        self.patience = min(PATIENCE, database.statement_timeout / 5) if database.statement_timeout else PATIENCE
        """Seconds; two waits and the statements between them fit into the time of a request."""
        self._turns = asyncio.Semaphore(max(1, database.maximum // 4))
        self._waits: dict[Hashable, asyncio.Future[bool]] = {}
        self._known: dict[Hashable, float] = {}

    def wait_of(self, key: Hashable) -> asyncio.Future[bool] | None:
        """The wait for this key that is under way: whether it ended without the key."""
        return self._waits.get(key)

    def is_known(self, key: Hashable) -> bool:
        """Whether an order was refused for this key within the last `REMEMBERED` seconds."""
        until = self._known.get(key)
        if until is None:
            return False
        if until > time.monotonic():
            return True
        del self._known[key]
        return False

    async def wait(self, key: Hashable, attempt: Callable[[float], Awaitable[Enqueued]], refusal: str) -> Enqueued:
        """What the attempt returns, which is told how long it may wait for the key.

        Raises:
            Conflict: the key was held all the time, or others wait for theirs; nothing was written.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waits[key] = future
        held = False
        try:
            try:
                async with asyncio.timeout(self.patience):
                    await self._turns.acquire()
            except TimeoutError:
                raise KeysHeld(refusal) from None
            try:
                return await attempt(self.patience)
            finally:
                self._turns.release()
        except KeysHeld:
            held = True
            raise Conflict(refusal) from None
        finally:
            self._known.pop(key, None)
            if held and len(self._known) < MOST_REMEMBERED:
                self._known[key] = time.monotonic() + REMEMBERED
            elif held:
                self._known = {key: time.monotonic() + REMEMBERED}
            del self._waits[key]
            future.set_result(held)


class KeyedInserts(Generic[Order]):
    """Orders that another transaction can make wait. `attempt` inserts some of them, or raises KeysHeld."""

    def __init__(
        self,
        attempt: Callable[[list[Order], float], Awaitable[Sequence[Enqueued | Exception]]],
        key_of: Callable[[Order], Hashable],
        contention: Contention,
        *,
        most: int,
        refusal: str,
        name: str,
    ) -> None:
        self._attempt = attempt
        self._key_of = key_of
        self._contention = contention
        self._refusal = refusal
        self._gather: Gather[Order, Enqueued] = Gather(self._answer, most, name, BATCHES)

    async def close(self) -> None:
        """Wait for what is under way."""
        await self._gather.close()

    async def ask(self, order: Order) -> Enqueued:
        """Insert the order, or find the job that its key names.

        Raises:
            Conflict: another transaction holds the key; nothing was written.
        """
        key, contention = self._key_of(order), self._contention
        while True:
            if (waiting := contention.wait_of(key)) is not None:
                if await asyncio.shield(waiting):
                    raise Conflict(self._refusal)
                continue
            if not contention.is_known(key):
                try:
                    return await self._gather.ask(order)
                except KeysHeld:
                    if contention.wait_of(key) is not None:
                        continue
            return await contention.wait(key, lambda patience: self._alone(order, patience), self._refusal)

    async def _alone(self, order: Order, patience: float) -> Enqueued:
        (answer,) = await self._attempt([order], patience)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _answer(self, orders: list[Order]) -> Sequence[Enqueued | Exception]:
        try:
            return await self._attempt(orders, QUICK)
        except (KeysHeld, StoreRefused, Conflict) as error:
            if len(orders) == 1:
                return [error]
        half = len(orders) // 2
        return [*await self._answer(orders[:half]), *await self._answer(orders[half:])]


class Inserts:
    """All orders of one process: each goes with its like."""

    def __init__(self, database: Database, push: Push) -> None:
        """`push` is told what Redis is owed after a commit."""
        self._database = database
        self._push = push
        self.contention = contention = Contention(database)
        self._plain: Gather[NewJob, Enqueued] = Gather(self._insert_plain, SHARE, "insert")
        self._keyed = KeyedInserts(
            self._insert_keyed, _job_key, contention, most=SHARE, refusal=UNIQUE_KEY, name="insert keyed"
        )
        self._requests = KeyedInserts(
            self._insert_requests, _request_key, contention, most=SHARE, refusal=IDEMPOTENCY_KEY, name="requests"
        )
        self._keyed_requests = KeyedInserts(
            self._insert_keyed_request, _job_key_of_request, contention, most=1, refusal=UNIQUE_KEY, name="one request"
        )

    async def close(self) -> None:
        """Wait for what is under way."""
        await self._plain.close()
        for inserts in (self._keyed, self._requests, self._keyed_requests):
            await inserts.close()

    def ask(self, job: NewJob, key: RequestKey | None = None) -> Awaitable[Enqueued]:
        """Insert one order together with others like it.

        Raises:
            Conflict: another transaction holds one of its keys; nothing was written.
            KeyReused: the idempotency key came with another request before.
        """
        if key is not None:
            return (self._keyed_requests if job.unique_key else self._requests).ask((key, job))
        return self._keyed.ask(job) if job.unique_key or job.source_key else self._plain.ask(job)

    async def all_or_none(self, orders: Sequence[NewJob]) -> list[Enqueued]:
        """Insert all orders in one transaction.

        Raises:
            Conflict: another transaction holds one of their keys; nothing was written.
        """
        if not any(job.unique_key or job.source_key for job in orders):
            return await self._insert_unlocked(orders)
        try:
            return await self._insert(orders, QUICK)
        except KeysHeld:
            held = object()  # which key it is nobody knows

        async def insert(patience: float) -> Enqueued:
            made[:] = await self._insert(orders, patience)
            return made[0]

        made: list[Enqueued] = []
        await self.contention.wait(held, insert, UNIQUE_KEY)
        return made

    async def _insert(self, orders: Sequence[NewJob], wait: float) -> list[Enqueued]:
        async with self._database.connection() as connection:
            made, ready = await enqueue.insert(connection, orders, self._database.keyring, wait=wait)
            self._push(ready)  # before the connection goes back: a worker waits for it
        count_enqueued(orders, made)
        return made

    async def _insert_plain(self, orders: list[NewJob]) -> Sequence[Enqueued | Exception]:
        try:
            return await self._insert_unlocked(orders)
        except StoreRefused as error:
            if len(orders) == 1:
                return [error]
        half = len(orders) // 2
        return [*await self._insert_plain(orders[:half]), *await self._insert_plain(orders[half:])]

    async def _insert_unlocked(self, orders: Sequence[NewJob]) -> list[Enqueued]:
        """Orders without keys wait for a lock on the whole table only, as a migration takes it: for as long as a
        statement may."""
        until = time.monotonic() + (self._database.statement_timeout or LOCKED)
        while True:
            try:
                return await self._insert(orders, QUICK)
            except StoreContended:
                if time.monotonic() >= until:
                    raise

    async def _insert_keyed(self, orders: list[NewJob], wait: float) -> Sequence[Enqueued | Exception]:
        return await self._insert(orders, wait)

    async def _insert_requests(
        self, orders: list[tuple[RequestKey, NewJob]], wait: float
    ) -> Sequence[Enqueued | Exception]:
        async with self._database.connection() as connection:
            answers, ready = await idempotency.insert(connection, orders, self._database.keyring, wait=wait)
            self._push(ready)
        for (_, job), answer in zip(orders, answers, strict=True):
            if isinstance(answer, Enqueued):
                count_enqueued([job], [answer])
        return answers

    async def _insert_keyed_request(
        self, orders: list[tuple[RequestKey, NewJob]], wait: float
    ) -> Sequence[Enqueued | Exception]:
        ((key, job),) = orders
        async with self._database.connection() as connection:
            answer, ready = await idempotency.insert_keyed(connection, key, job, self._database.keyring, wait=wait)
            self._push(ready)
        if isinstance(answer, Enqueued):
            count_enqueued([job], [answer])
        return [answer]


def _job_key(job: NewJob) -> Hashable:
    return (job.active_key, None) if job.unique_key else (None, job.source_key)


def _request_key(order: tuple[RequestKey, NewJob]) -> Hashable:
    return order[0].digest


def _job_key_of_request(order: tuple[RequestKey, NewJob]) -> Hashable:
    return _job_key(order[1])


def count_enqueued(orders: Sequence[NewJob], enqueued: Sequence[Enqueued]) -> None:
    """Jobs made, a few labels for many jobs."""
    if not metrics.ENQUEUED.on:
        return
    if len(orders) == 1:
        if enqueued[0].created:
            metrics.ENQUEUED.inc(1, orders[0].queue, orders[0].type, orders[0].source.value)
        return
    kinds: dict[tuple[str, str, str], int] = {}
    for order, made in zip(orders, enqueued, strict=True):
        if made.created:
            labels = (order.queue, order.type, order.source.value)
            kinds[labels] = kinds.get(labels, 0) + 1
    for labels, count in kinds.items():
        metrics.ENQUEUED.inc(count, *labels)
