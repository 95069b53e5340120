"""The one door through which jobs enter and are steered: used by the API, the scheduler, the operator, the client.

Concurrent enqueues share one INSERT (`goqueue.inserts`), concurrent lookups one SELECT (`goqueue.gather`). The push to
Redis follows the commit and is nobody's promise: if it fails or the process dies before it, the dispatcher makes up for
it.
"""

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from goqueue import metrics, tracing
from goqueue.access import Actor, Reach
from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, Conflict, NotFound
from goqueue.gather import Gather
from goqueue.idempotency import RequestKey
from goqueue.inserts import Inserts, count_enqueued
from goqueue.job import Attempt, AttemptPage, Enqueued, Job, JobFilter, NewJob, Page, ReadyJob
from goqueue.lifecycle import JobStatus
from goqueue.logger import Logger
from goqueue.store import attempt_pages, audit, enqueue, idempotency, jobs, listing, pages, queues
from goqueue.store.audit import Action
from goqueue.store.connect import Connection, Database
from goqueue.store.settled import SettledEdge
from goqueue.tasks import at_once

SHARE: Final = 500
"""Jobs in one shared lookup, and half of those in one push."""

PATIENCE: Final = 1.0
"""Seconds that a request waits for Redis where it can do without."""

T = TypeVar("T")

log = Logger(__name__)


async def promptly(asking: Awaitable[T]) -> T:
    """What Redis says.

    Raises:
        BrokerUnavailable: it is away, or says nothing for `PATIENCE` seconds.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            return await asking
    except TimeoutError:
        raise BrokerUnavailable(f"no answer within {PATIENCE:g} s") from None


class JobService:
    """Jobs in, and every steering of them. One per process; `close()` waits for what is under way."""

    def __init__(self, database: Database, broker: Broker) -> None:
        self.database = database
        self.broker = broker
        self._inserts = Inserts(database, self._push_soon)
        self._lookups: Gather[int, Job] = Gather(self._look_up, SHARE, "look up")
        self._settled = SettledEdge(database)
        self._to_push: deque[ReadyJob] = deque()
        self._pushing: asyncio.Task[None] | None = None
        self.unpushed = 0
        """Jobs committed here whose push failed; the dispatcher pushes them."""
        self._pushes_fail = False

    async def close(self) -> None:
        """Wait for inserts and pushes under way."""
        await self._inserts.close()
        if self._pushing is not None:
            await self._pushing

    # --- enqueue -----------------------------------------------------------------------------------------------------

    async def enqueue(self, job: NewJob, key: RequestKey | None = None) -> Enqueued:
        """Insert one order, together with whatever others wait at the moment; returns after the commit.

        With a key: at most once, whatever became of the job since (`goqueue.idempotency`).

        Raises:
            StoreUnavailable: PostgreSQL is away; the job may or may not have been made.
            Conflict: another transaction holds one of its keys; nothing was written.
            KeyReused: the key came with another request before.
        """
        if (spans := tracing.sender(job.source)) is None:
            return await self._inserts.ask(job, key)
        with spans.sending([job]) as span:
            made = await self._inserts.ask(job, key)
            spans.sent(span, made)
            return made

    async def find_made(self, job: NewJob, key: RequestKey | None) -> Enqueued | None:
        """The job that `enqueue` would return without making one, or None.

        Raises:
            KeyReused: the key came with another request before.
        """
        async with self.database.connection() as connection:
            if key is not None:
                answer = (await idempotency.find(connection, [key], self.database.keyring)).get(key)
                if isinstance(answer, Exception):
                    raise answer
                if answer is not None:
                    return answer
            return (await enqueue.find_keyed(connection, [job])).get(0)

    async def enqueue_many(self, orders: Sequence[NewJob]) -> list[Enqueued]:
        """Insert all orders or none.

        Raises:
            Conflict: another transaction holds one of their keys; nothing was written.
        """
        if not orders or (spans := tracing.sender(orders[0].source)) is None:
            return await self._inserts.all_or_none(orders)
        with spans.sending(orders):
            return await self._inserts.all_or_none(orders)

    async def enqueue_as(self, actor: Actor, action: Action, about: str, order: NewJob) -> Enqueued:
        """Insert the order that an act asks for; the act is written down in the same transaction.

        Args:
            actor: Who asks for the job.
            action: What is done.
            about: The name of what it is done with.
            order: The job.

        Raises:
            Conflict: another transaction holds the order's unique key; nothing was written.
        """
        with tracing.sending(order):
            async with self.database.connection() as connection, connection.transaction():
                [made], ready = await enqueue.insert(connection, [order], self.database.keyring)
                details = {"job_id": made.id, "created": made.created}
                await audit.record(connection, actor, action, about, tenant=order.tenant, details=details)
        self._push_soon(ready)
        count_enqueued([order], [made])
        return made

    def _push_soon(self, ready: Sequence[ReadyJob]) -> None:
        if not ready:
            return
        self._to_push.extend(ready)
        if self._pushing is None or self._pushing.done():
            self._pushing = at_once(self._push_waiting(), name="push")

    async def _push_waiting(self) -> None:
        while self._to_push:
            batch = [self._to_push.popleft() for _ in range(min(2 * SHARE, len(self._to_push)))]
            try:
                await self.broker.push(batch)
            except BrokerUnavailable as error:
                # With those that gathered meanwhile: a Redis that is silent takes seconds to fail each time.
                missed = len(batch) + len(self._to_push)
                self._to_push.clear()
                self.unpushed += missed
                metrics.UNPUSHED.inc(missed)
                if not self._pushes_fail:
                    self._pushes_fail = True
                    log.warning("jobs accepted but not pushed; the dispatcher will", jobs=missed, reason=error.message)
            else:
                self._pushes_fail = False

    # --- one job -----------------------------------------------------------------------------------------------------

    async def get(self, job_id: int, reach: Reach | None = None) -> Job:
        """The job.

        Raises:
            NotFound: there is none, or not within reach (None: everything is).
        """
        job = await self._lookups.ask(job_id)
        if reach is not None and not reach.covers(job.tenant, job.queue, job.type):
            raise NotFound("job not found")
        return job

    async def _look_up(self, ids: list[int]) -> Sequence[Job | Exception]:
        async with self.database.connection() as connection:
            found = await jobs.get(connection, ids, self.database.keyring)
        return [found.get(job_id) or NotFound("job not found") for job_id in ids]

    async def find(self, wanted: JobFilter) -> list[Job]:
        """As many jobs as the filter's limit says, however long it takes to find them and however large they are."""
        return [job async for page in self.pages(wanted) for job in page.jobs]

    async def pages(self, wanted: JobFilter) -> AsyncIterator[Page]:
        """The same in pages that fit into memory."""
        while wanted.limit > 0:
            page = await self.page(wanted)
            yield page
            if page.next is None:
                return
            wanted = dataclasses.replace(wanted, after=page.next, limit=wanted.limit - len(page.jobs))

    async def page(
        self,
        wanted: JobFilter,
        seconds: float | None = None,
        admit: Callable[[], Awaitable[None]] | None = None,
    ) -> Page:
        """One page of jobs, of so many as fit into memory (`goqueue.store.pages`).

        Args:
            wanted: Which jobs.
            seconds: After about that time the page has what was found by then; None: it is full or the last one.
            admit: Awaited before a page is read that may take some memory.
        """
        if wanted.settled:
            wanted = dataclasses.replace(wanted, before=await self._settled.find())
        keyring = self.database.keyring
        async with self.database.connection() as connection:
            hits = await listing.search(connection, wanted, seconds=seconds)
            if admit is None or pages.is_small(hits):
                return await pages.read(connection, wanted, hits, keyring)
        await admit()
        async with self.database.connection() as connection:
            return await pages.read(connection, wanted, hits, keyring)

    @contextlib.asynccontextmanager
    async def _act(self, job_id: int, actor: Actor | None, action: Action | None) -> AsyncIterator[Connection]:
        """A connection on which an actor does something to a job; it is written down in the same transaction.

        Raises:
            NotFound: there is no such job, or not within the actor's reach.
        """
        async with self.database.connection() as connection:
            if actor is None:
                yield connection
                return
            async with connection.transaction():
                tenant = await _place(connection, job_id, actor.reach)
                yield connection
                if action is not None:
                    await audit.record(connection, actor, action, job_id, tenant=tenant)

    async def set_status(self, job_id: int, status: JobStatus, actor: Actor | None = None) -> None:
        """Move a job by hand, as the state machine allows.

        Raises:
            NotFound: there is no such job.
            Conflict: its state forbids the move, or another open job has its unique key.
        """
        action = Action.JOB_CANCELLED if status is JobStatus.CANCELLED else None
        async with self._act(job_id, actor, action) as connection:
            queue = await jobs.set_status(connection, job_id, status)
            if queue is None:
                now = _found(await jobs.status_of(connection, job_id))
                raise Conflict(f"a {now} job cannot become {status}", {"status": now.value, "requested": status.value})
        if status is JobStatus.PENDING:
            return  # the dispatcher pushes it
        await self._try(self.broker.remove(queue, job_id))

    async def increment_attempts(self, job_id: int, actor: Actor | None = None) -> None:
        """attempts + 1, atomically; NotFound where there is no such job."""
        async with self._act(job_id, actor, None) as connection:
            _found(await jobs.increment_attempts(connection, job_id) or None)

    async def save_result(self, job_id: int, result: str | None, error: str | None, actor: Actor | None = None) -> None:
        """Store a result (JSON text) and an error; NotFound where there is no such job."""
        async with self._act(job_id, actor, None) as connection:
            _found(await jobs.save_result(connection, job_id, result, error, self.database.keyring) or None)

    async def cancel(self, job_id: int, actor: Actor | None = None) -> JobStatus:
        """Cancel an open job: at once if it waits; a running one is asked to stop (status still `processing`).

        Raises:
            NotFound: there is no such job.
            Conflict: it is final already.
        """
        async with self._act(job_id, actor, Action.JOB_CANCELLED) as connection:
            done = await jobs.cancel(connection, job_id)
            if done is None:
                now = _found(await jobs.status_of(connection, job_id))
                raise Conflict(f"a {now} job cannot be cancelled", {"status": now.value})
        status, queue = done
        metrics.CANCELLATIONS.inc(1, "waiting" if status is JobStatus.CANCELLED else "running")
        if status is JobStatus.CANCELLED:
            await self._try(self.broker.remove(queue, job_id))
        else:
            await self._try(self.broker.tell(f"cancel {job_id}"))
        return status

    async def retry(self, job_id: int, actor: Actor | None = None) -> None:
        """Give a failed or cancelled job a fresh set of attempts, at once.

        Raises:
            NotFound: there is no such job.
            Conflict: it is in another state, or another open job has its unique key.
        """
        async with self._act(job_id, actor, Action.JOB_RETRIED) as connection:
            ready = await jobs.retry(connection, job_id)
            if ready is None:
                now = _found(await jobs.status_of(connection, job_id))
                raise Conflict(f"a {now} job cannot be retried", {"status": now.value})
        self._push_soon([ready])
        metrics.RETRIED_BY_HAND.inc()

    async def history(
        self, job_id: int, reach: Reach | None = None, after: str | None = None, limit: int = 1000
    ) -> tuple[AttemptPage, list[dict[str, Any]]]:
        """One page of the finished attempts of a job, and with the first one the first 1,000 lines that its handler
        logged.

        Raises:
            NotFound: there is no such job, or not within reach.
            InvalidInput: `after` is not the `next` of a page.
        """
        async with self.database.connection() as connection:
            await _place(connection, job_id, reach)
            keyring = self.database.keyring
            ended = await attempt_pages.attempts_of(connection, job_id, keyring, after=after, limit=limit)
            return ended, [] if after else await jobs.logs_of(connection, job_id, keyring=keyring)

    async def attempts(self, job_id: int) -> list[Attempt]:
        """All finished attempts of a job, oldest first; NotFound where there is no such job."""
        page, _ = await self.history(job_id)
        found = page.attempts
        while page.next is not None:
            page, _ = await self.history(job_id, after=page.next)
            found += page.attempts
        return found

    async def logs(self, job_id: int, after: int, limit: int, reach: Reach | None = None) -> list[dict[str, Any]]:
        """One page of the lines that the job's handler logged; NotFound where there is no such job."""
        async with self.database.connection() as connection:
            await _place(connection, job_id, reach)
            return await jobs.logs_of(connection, job_id, after, limit, self.database.keyring)

    async def delete(self, job_id: int, actor: Actor | None = None) -> None:
        """Hide a job; an open one is cancelled first. NotFound where there is none."""
        async with self._act(job_id, actor, Action.JOB_DELETED) as connection, connection.transaction():
            done = await jobs.cancel(connection, job_id)
            _found(await jobs.soft_delete(connection, job_id) or None)
        if done is not None:
            metrics.CANCELLATIONS.inc(1, "waiting" if done[0] is JobStatus.CANCELLED else "running")
        if done is not None and done[0] is JobStatus.CANCELLED:
            await self._try(self.broker.remove(done[1], job_id))
        elif done is not None:
            await self._try(self.broker.tell(f"cancel {job_id}"))

    async def pause(self, queue: str, actor: Actor | None = None) -> None:
        """Let no worker fetch from the queue."""
        async with self.database.connection() as connection, connection.transaction():
            await queues.pause(connection, queue)
            if actor is not None:
                await audit.record(connection, actor, Action.QUEUE_PAUSED, queue)
        await self._try(self.broker.tell("pause"))

    async def resume(self, queue: str, actor: Actor | None = None) -> None:
        """Let workers fetch from it again."""
        async with self.database.connection() as connection, connection.transaction():
            await queues.resume(connection, queue)
            if actor is not None:
                await audit.record(connection, actor, Action.QUEUE_RESUMED, queue)
        await self._try(self.broker.tell("resume"))

    async def _try(self, sending: Any) -> None:
        """A message that PostgreSQL's word makes good if it is lost."""
        try:
            await promptly(sending)
        except BrokerUnavailable as error:
            log.warning("redis not told; workers will learn it from the database", reason=error.message)


async def _place(connection: Connection, job_id: int, reach: Reach | None) -> str | None:
    """The tenant of a job that is within reach. The place of a job never changes, so what follows may rely on it.

    Raises:
        NotFound: there is no such job, or not within reach: nobody can tell which.
    """
    place = await jobs.place_of(connection, job_id)
    if place is None or (reach is not None and not reach.covers(*place)):
        raise NotFound("job not found")
    return place[0]


def _found(value: T | None) -> T:
    if value is None:
        raise NotFound("job not found")
    return value
