"""The hot path, whole: fetch ready ids from Redis, claim them in PostgreSQL, run, hand the ends to the completer.

    fetch ──▶ claim ──▶ start ──▶ run (one task a job) ──▶ end ──▶ Completer
      ▲                                                     │
      └───────────────── a slot is free ◀───────────────────┘

Everything is sized by free slots: one fetch asks for as many ids as there are slots free, or about to be free before
the claim is back (`Lookahead`); one UPDATE claims them all, and ends are written together.
"""

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import structlog

from goqueue import instruments, metrics
from goqueue.broker import Broker
from goqueue.broker.connect import BLOCK_SECONDS
from goqueue.broker.redis import weighted_order
from goqueue.errors import BrokerUnavailable, GoQueueError
from goqueue.job import AttemptEnd, ClaimedJob, ReadyJob
from goqueue.queues import Queues
from goqueue.registry import REGISTRY, Registry
from goqueue.retry import RetryPolicy
from goqueue.settings import EngineSettings, WorkerSettings
from goqueue.store.connect import Database
from goqueue.tasks import at_once, end_all, wait_at_most
from goqueue_worker.attempt import Stop, cancelled, handed_back
from goqueue_worker.claiming import Claims
from goqueue_worker.completer import BACKLOG, Completer
from goqueue_worker.drain import Drain
from goqueue_worker.hearing import Hearing
from goqueue_worker.isolation import Isolation
from goqueue_worker.lookahead import Lookahead
from goqueue_worker.membership import Membership
from goqueue_worker.reports import Reports
from goqueue_worker.requests import Requests
from goqueue_worker.runner import Runner
from goqueue_worker.share import IDLE_AFTER, FetchShare
from goqueue_worker.standing import Standing, queue_stats
from goqueue_worker.tallies import Tallies
from goqueue_worker.undone import Rewriter

TICK: Final = 0.1
"""Seconds between two looks at deadlines, and the longest that a claimed job waits for its slot."""

AHEAD: Final = 4
"""Jobs claimed beyond the free slots at most, in multiples of all slots."""

FETCH_LOOPS: Final = 2
"""Claims under way at the same time."""

SLICE: Final = 0.001
"""Seconds for which jobs are started before the event loop gets its turn."""

BLOCKED_AFTER: Final = 60.0
"""Seconds without a turn of the event loop after which the process counts as stuck."""

log = structlog.get_logger(__name__)


class Worker:
    """One worker process. `run()` works until `stop()`; then it drains within the grace period."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        dsn: str,
        settings: WorkerSettings,
        engine: EngineSettings,
        registry: Registry = REGISTRY,
        name: str | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        """`isolation` None: jobs that workers have died of run like others."""
        self._database = database
        self._broker = broker
        self._settings = settings
        self._engine = engine
        self._registry = registry
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._weights = settings.weights(Queues(registry, engine.queues))
        self._turn = asyncio.Lock()  # to fetch
        self._order = asyncio.Lock()  # to start: what was fetched first starts first, although claims overlap
        self._reserved = 0  # fetched, not yet claimed
        self._held: deque[tuple[float, ClaimedJob]] = deque()  # claimed at that time, for a slot about to be free
        self._lookahead = Lookahead(AHEAD * settings.concurrency, time.monotonic())
        self._share = FetchShare()
        self._ended = 0
        self._starting = False
        self._freed = asyncio.Event()
        self._joined = asyncio.Event()
        self._completer = Completer(database, self._freed.set)
        self._rewriter = Rewriter(database, self._completer, engine.heartbeat_seconds)
        self._tallies = Tallies()
        self._reports = Reports(settings.log_lines, settings.log_bytes)
        self._runner = Runner(
            self.name,
            settings.concurrency,
            settings.threads,
            RetryPolicy(base=settings.retry_base_seconds, maximum=settings.retry_max_seconds),
            database,
            settings.defer_seconds,
            self._completer,
            self._tallies,
            self._reports,
            self._on_ended,
            isolation,
        )
        self._running = self._runner.running
        self._drain = Drain(settings.grace_seconds, broker, database, self._completer, self._runner, self._freed)
        self._stopping = self._drain.begun
        self._requests = Requests(
            database,
            broker,
            engine.heartbeat_seconds,
            served=(self.name, list(self._weights)),
            jobs=lambda: [*self._running, *(job.id for _, job in self._held)],
            cancel=self._cancel,
            resumed=self._freed.set,
            drain=self._begin_to_drain,
        )
        self._loop = asyncio.get_running_loop()
        self._membership = Membership(
            dsn,
            engine,
            self.name,
            list(self._weights),
            settings.concurrency,
            self._standing,
            self._from_thread(self._on_joined),
            self._from_thread(self.hand_back_all),
            database.pgbouncer,
        )
        self._claims = Claims(
            database,
            broker,
            self._membership,
            self._stopping,
            engine.heartbeat_seconds,
            recovered=self._recovered,
            paused=self._requests.pause,
        )
        self.hearing = Hearing(broker)
        self.ticked_at = time.monotonic()
        """When the event loop last ran our timer."""

    # --- the hot path ------------------------------------------------------------------------------------------------

    async def _fetch_loop(self) -> None:
        """Two of these take turns: PostgreSQL claims for one while Redis or the handlers work for the other."""
        while not self._stopping.is_set():
            async with self._turn:
                ready = await self._fetch()
                if not ready:
                    continue
                self._reserved += len(ready)
                fetched = time.monotonic()
                # Within the turn: the claim is sent before the other loop prepares its fetch.
                claiming = at_once(self._claims.claim(ready))
            async with self._order:
                claimed = await claiming
                self._reserved -= len(ready)
                self._tallies.claimed(claimed)
                now = time.monotonic()
                self._lookahead.claimed(now - fetched, self._ended, now)
                ours = {job.id: job for job in claimed}
                # In the order of their queue, each once.
                self._held.extend((now, ours.pop(job.id)) for job in ready if job.id in ours)
                self._start_claimed()
            self._freed.set()

    async def _fetch(self) -> list[ReadyJob]:
        """Ready jobs for the free slots and for those about to be free; none when stopping or after an error."""
        while not self._stopping.is_set():
            most = self._settings.concurrency
            room = most + self._lookahead.jobs - len(self._running) - len(self._held) - self._reserved
            open_queues = {name: weight for name, weight in self._weights.items() if name not in self._requests.paused}
            member = self._membership
            may = member.worker_id is not None and not member.fenced and not self._requests.draining
            if room >= self._lookahead.batch and may and open_queues and self._completer.backlog <= BACKLOG:
                self._share.alone = self._requests.alone
                count = self._share.of(min(room, most))
                try:
                    ready = await self._broker.fetch(
                        weighted_order(open_queues), count, BLOCK_SECONDS if self._share.fresh else IDLE_AFTER
                    )
                except BrokerUnavailable:  # logged by the broker, once for each outage
                    await self._pause(0.5)
                else:
                    self.hearing.heard()
                    self._share.fetched(count, len(ready))
                    if ready and (ready[0].queue in self._requests.paused or self._requests.draining):  # since then
                        await self._claims.put_back(ready)
                        continue
                    return ready
            else:
                self.hearing.heard()
                await self._pause_until_freed(0.2)
        return []

    def _recovered(self, jobs: list[ClaimedJob]) -> None:
        """Take jobs that a claim of this worker took without our hearing of it."""
        self._tallies.claimed(jobs)
        now = time.monotonic()
        self._held.extend((now, job) for job in jobs)
        self._start_claimed()

    def _start_claimed(self) -> None:
        """Start what a claim brought. A worker that is asked to drain hands it back: it is for others."""
        if self._requests.draining:
            self._hand_back_held()
        else:
            self._start_held()

    def _start_held(self) -> None:
        """Fill the free slots. Not from within the start of a job: one that never waits ends there, and asks again.

        A worker that stops starts nothing: what a claim brings it then goes back."""
        if not self._starting:
            self._start_slice()

    def _start_slice(self) -> None:
        """Start jobs for `SLICE` seconds. A thousand that never wait would keep the event loop for as long as they
        take, and PostgreSQL without work: what claims next and what writes their ends gets its turn in between."""
        if self._stopping.is_set():
            self._starting = False
            self._hand_back_held()
            return
        most, until = self._settings.concurrency, time.monotonic() + SLICE
        self._starting = True
        try:
            held, running, start = self._held, self._running, self._start
            while held and len(running) < most:
                start(held.popleft()[1])
                if time.monotonic() >= until:
                    break
        finally:
            self._starting = bool(self._held) and len(self._running) < most
            if self._starting:
                self._loop.call_soon(self._start_slice, context=self._runner.context)

    def _start(self, job: ClaimedJob) -> None:
        if job.id in self._running:  # its lease is lost, or we could not have claimed the job again
            self._running[job.id].interrupt(Stop.HAND_BACK)
        runner = self._runner
        kind = self._registry.get(job.type)
        running = runner.attempt(job, kind)
        _ = at_once(runner.run(running, kind), context=running.context)

    def _on_ended(self) -> None:
        """A slot is free."""
        self._ended += 1
        self._freed.set()
        self._start_held()  # here and now: with jobs of milliseconds, a turn of the event loop is a slot in ten

    # --- around it ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `stop()`, then drain.

        Raises:
            GoQueueError: the worker cannot start.
        """
        completing = asyncio.create_task(self._completer.run(), name="completer")
        duties = [
            asyncio.create_task(self._timer(), name="timer"),
            asyncio.create_task(self._claims.recover(), name="recover"),
            asyncio.create_task(self._rewriter.run(), name="rewrite"),
            asyncio.create_task(self._reports.run(self._database), name="reports"),
            asyncio.create_task(self._requests.hear(), name="hear"),
            asyncio.create_task(self._requests.look(), name="look"),
            asyncio.create_task(self.hearing.watch(), name="hearing"),
        ]
        self._show()
        self._membership.start()
        log.info("worker started", worker=self.name, queues=list(self._weights), concurrency=self._settings.concurrency)
        fetching = [asyncio.create_task(self._fetch_loop(), name=f"fetch-{number}") for number in range(FETCH_LOOPS)]
        try:
            await self._until_stopped([*fetching, completing, *duties])
            await self._drain.drain(fetching, self._claims, self._hand_back_held)
        finally:
            if not completing.done():  # nothing to wait for after a drain; else some other part broke
                self._hand_back_held()
                await self._runner.give_up()
                await self._drain.write_ends()
            ended = all(task.done() for task in fetching)  # else a claim may still take jobs
            await end_all([*fetching, completing, *duties])
            await asyncio.gather(*fetching, completing, *duties, return_exceptions=True)
            settled = ended and await self._drain.settled(self._claims)
            empty = settled and not (self._running or self._held or self._reserved or self._completer.backlog)
            await asyncio.to_thread(self._membership.leave, empty=empty)
            self._runner.threads.shutdown()
            log.info("worker stopped", worker=self.name)

    def _show(self) -> None:
        """Let the metrics read what stands here already."""
        instruments.collect(self._tallies)
        self._runner.show()
        metrics.HELD.read(lambda: len(self._held))
        metrics.UNWRITTEN.read(lambda: self._completer.backlog)
        metrics.DEAF.read(lambda: self.hearing.deaf)
        metrics.DRAINING.read(lambda: self._requests.draining)
        metrics.HEARTBEAT_AGE.read(lambda: self._membership.age)

    async def _until_stopped(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Wait for `stop()`; a duty that ends before it is a bug, and the process must not live on without it."""
        stopping = asyncio.create_task(self._stopping.wait())
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if stopping not in done:
            stopping.cancel()
            self.stop()
            for task in done:
                task.result()
            raise GoQueueError("a part of the worker ended by itself")

    def stop(self) -> None:
        """Stop fetching and begin to drain: the grace period begins now. Call it in the event loop's thread."""
        self._drain.begin()

    def hand_back_all(self) -> None:
        """Interrupt everything that runs; it goes back uncharged if its lease still holds."""
        self._hand_back_held()
        self._runner.hand_back_all()

    def _begin_to_drain(self) -> None:
        """Give back what has not begun; what runs goes on to its end. The worker stays ready: Kubernetes would remove
        the pod that is not ready before those that are idle."""
        self._hand_back_held()
        self._runner.hand_back_waiting()

    def _hand_back_held(self) -> None:
        for _, job in self._held:
            self._end_unstarted(job, handed_back(job))
        self._held.clear()

    def _cancel(self, job_id: int) -> None:
        """Somebody asked for it: now if the job waits for its slot, else as soon as its handler lets go."""
        if running := self._running.get(job_id):
            running.interrupt(Stop.CANCEL)
        for entry in [entry for entry in self._held if entry[1].id == job_id]:
            self._held.remove(entry)
            self._end_unstarted(entry[1], cancelled(entry[1]))

    def _end_unstarted(self, job: ClaimedJob, end: AttemptEnd) -> None:
        self._tallies.ended(job, end.outcome, None)
        self._completer.put(end)

    def _from_thread(self, call: Any) -> Any:
        return lambda *arguments: self._loop.call_soon_threadsafe(call, *arguments)

    def _on_joined(self, worker_id: int) -> None:
        log.info("registered", worker=self.name, worker_id=worker_id)
        self._joined.set()
        self._freed.set()

    def _standing(self) -> Standing:
        """What a heartbeat tells, in its thread."""
        running = list(self._running.values())
        stats = queue_stats(self._weights, running, self._tallies, time.monotonic())
        # A drain is told once nothing can begin any more: not while a claim is under way.
        drained = self._requests.draining and not self._reserved and not self._held
        return Standing(len(running), self._stopping.is_set() or drained, stats)

    async def _pause_until_freed(self, seconds: float) -> None:
        self._freed.clear()
        await wait_at_most(self._freed, max(0.0, seconds))

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try, or less when stopping."""
        await wait_at_most(self._stopping, seconds)

    async def _timer(self) -> None:
        """One look at all deadlines instead of a timer for each job."""
        while True:
            await asyncio.sleep(TICK)
            now = self.ticked_at = time.monotonic()
            if self._membership.fenced and (self._running or self._held):
                # The heartbeat's thread says so only when its present try is over, and a claim may come back later.
                self.hand_back_all()
            self._runner.look(now)
            self._requests.end_drain(now)
            if self._held and not self._starting and now - self._held[0][0] > TICK:
                self._lookahead.missed()
                self._hand_back_held()

    def unwell(self) -> dict[str, str]:
        """Why the process should be restarted, for its liveness probe; empty where it should not."""
        wrong = {}
        if self.hearing.deaf:
            wrong["fetch"] = f"no fetch came back for {time.monotonic() - self.hearing.fetched_at:.0f} s"
        if time.monotonic() - self.ticked_at > BLOCKED_AFTER:
            wrong["loop"] = f"a handler blocks the event loop since {time.monotonic() - self.ticked_at:.0f} s"
        return wrong | self._runner.unwell()

    def unready(self) -> dict[str, str]:
        """Why the worker takes no jobs at the moment; empty where it does."""
        if self._stopping.is_set():
            return {"worker": "draining"}
        if not self._joined.is_set() or self._membership.fenced:
            return {"database": "no heartbeat written"}
        return {}
