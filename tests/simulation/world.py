"""One simulated installation: stores, API, workers, schedulers, the jobs that they get, and what befalls them."""

import asyncio
import contextlib
import functools
import importlib
import itertools
import pkgutil
import random
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from unittest import mock

import structlog
from pydantic import BaseModel, ConfigDict

from goqueue import store
from goqueue.errors import GoQueueError, StoreUnavailable
from goqueue.job import NewJob
from goqueue.registry import JobType, Registry
from goqueue.rescue import UNCHARGED
from goqueue.retry import RetryPolicy
from goqueue.service import JobService
from goqueue.settings import EngineSettings, SchedulerSettings, WorkerSettings
from goqueue.store import copy, enqueue, sql
from goqueue_scheduler.census import Census
from goqueue_scheduler.counts import Counts
from goqueue_scheduler.cronduty import CronDuty
from goqueue_scheduler.pruner import Pruner
from goqueue_scheduler.scheduler import Scheduler
from goqueue_scheduler.supervisor import Supervisor
from goqueue_worker import worker as worker_module
from goqueue_worker.attempt import Stop
from goqueue_worker.worker import Worker
from tests.simulation import redis
from tests.simulation.invariants import Invariants, Run, Violation
from tests.simulation.loop import PROCESS, START, SimulatedLoop
from tests.simulation.membership import SimulatedMembership
from tests.simulation.pg import client
from tests.simulation.pg.server import Server


@functools.cache
def statement_names() -> dict[str, str]:
    """Text of each statement of the engine → its name."""
    return {
        value: name
        for module in pkgutil.iter_modules(store.__path__)
        for name, value in vars(importlib.import_module(f"goqueue.store.{module.name}")).items()
        if isinstance(value, str) and name.isupper()
    }


PATIENCE: Final = 400.0
"""Seconds after the last fault within which every job must have ended."""

ELSEWHERE: Final = (CronDuty, Pruner, Census, Counts)
"""Duties that move no job that is there."""

TRACED: Final = 20_000


class Work(BaseModel):
    """The payload of a simulated job: its number, and what each run does, as (kind, seconds)."""

    model_config = ConfigDict(extra="allow")

    n: int
    plan: list[tuple[str, float]]


@dataclass
class Setup:
    """How an installation is set up; drawn from the seed."""

    lease: float
    heartbeat: float
    workers: int
    schedulers: int
    concurrency: int
    reconcile: float
    jobs: int
    seconds: float
    """How long jobs and faults come."""
    pace: float
    """Seconds between two faults, on average."""
    rush: float
    """Part of that time in which the jobs come."""
    impatience: float
    """Share of failing attempts that somebody cancels just as they end."""
    short: float
    """Share of jobs that never wait."""
    faults: list[str] = field(default_factory=list)


@dataclass
class Process:
    """A running worker or scheduler."""

    name: str
    worker: Worker | None = None
    scheduler: Scheduler | None = None
    task: asyncio.Task[Any] | None = None
    leaving: bool = False


class World:
    """The installation."""

    def __init__(self, loop: SimulatedLoop, chance: random.Random, setup: Setup) -> None:
        self.loop = loop
        self.chance = chance
        self.setup = setup
        self.trace: deque[tuple[float, str, str]] = deque(maxlen=TRACED)
        self.violations: list[str] = []
        self.over = asyncio.Event()
        self.server = Server(loop, random.Random(chance.getrandbits(64)), self.note, self._committed, self.crashed)
        self.server.names = statement_names()
        self.redis = redis.RedisServer(loop, random.Random(chance.getrandbits(64)), self.note)
        self.invariants = Invariants(lambda: self.server.storage, self._excused, self.fail, forgiven=UNCHARGED)
        self.engine = EngineSettings(
            queues=["default", "other"], lease_seconds=setup.lease, heartbeat_seconds=setup.heartbeat
        )
        self.registry = Registry()
        retry = RetryPolicy(base=0.2, maximum=3.0)
        self.registry.add(JobType("work", Work, retry=retry, timeout=30.0, handler=self._work))
        self.processes: dict[str, Process] = {}
        self.ids: dict[int, int] = {}
        """Number → id of jobs that were accepted."""
        self.service: JobService | None = None
        """The API's."""
        self._numbers = itertools.count(1)
        self._names = itertools.count(1)
        self._seed_floor()

    def _seed_floor(self) -> None:
        storage = self.server.storage
        transaction = storage.begin(self.server.clock(), "world")
        storage.insert(storage.tables["dispatch_floor"], {"only_row": True, "id": 0}, transaction)
        storage.commit(transaction)

    # --- what is noted -----------------------------------------------------------------------------------------------

    def note(self, who: str, what: str) -> None:
        """A step, for the trace."""
        self.trace.append((self.loop.time() - START, who, what))

    def fail(self, violation: str) -> None:
        """An invariant does not hold."""
        self.note("VIOLATION", violation)
        self.violations.append(violation)
        self.over.set()

    def crashed(self, error: BaseException) -> None:
        """Something raised what nobody expects."""
        if not isinstance(error, Violation):
            self.fail(f"{type(error).__name__}: {error}")

    def _committed(self, changes: list[Any]) -> None:
        if hasattr(self, "invariants"):
            self.invariants.committed(changes)

    def _excused(self, run: Run) -> bool:
        """Whether others may take this run's worker for dead, or its claim was lost."""
        worker = self.processes[run.process].worker
        assert worker is not None
        membership = worker._membership
        rows = (cell.versions[-1][1] for cell in self.server.storage.tables["workers"].cells if cell.versions)
        alive = {row["id"] for row in rows if row is not None}
        return (
            run.claim.lost
            or run.process in self.loop.dead
            or run.process in self.loop.frozen
            or run.attempt.stop is not None
            or membership.fenced
            or membership.worker_id != run.claim.worker_id
            or run.claim.worker_id not in alive
        )

    # --- handlers ----------------------------------------------------------------------------------------------------

    async def _work(self, payload: Work, attempt: Any) -> None:
        process = PROCESS.get()
        run = self.invariants.started(payload.n, process, attempt)
        count = len(self.invariants.runs[payload.n])
        kind, seconds = payload.plan[min(count, len(payload.plan)) - 1]
        self.note(process, f"handler of job {payload.n} (id {attempt.job.id}) begins: {kind} after {seconds:.2f} s")
        try:
            if seconds:
                await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.invariants.ended(run, "failed" if attempt.stop is Stop.TIMEOUT else "interrupted")
            self.note(process, f"handler of job {payload.n} is interrupted: {attempt.stop}")
            raise
        self.invariants.ended(run, kind)
        self.note(process, f"handler of job {payload.n} ends: {kind}")
        if kind == "failed":
            if self.service is not None and self.chance.random() < self.setup.impatience:
                self.spawn("api", self._cancel_soon(self.service, payload.n, attempt.job.id))
            raise RuntimeError("planned")

    # --- processes ---------------------------------------------------------------------------------------------------

    def spawn(self, process: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run a part of a process, whose errors end the simulation."""
        self.loop.kept.append(self.task(process, work))

    def task(self, process: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """The same; its task."""

        async def watched() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self.crashed(error)

        return self.loop.task(process, watched())

    def start_worker(self) -> Process:
        """A new worker process."""
        process = Process(f"worker-{next(self._names)}")
        self.processes[process.name] = process
        settings = WorkerSettings(concurrency=self.setup.concurrency, grace_seconds=3.0)

        async def main() -> None:
            process.worker = Worker(
                client.database(self.server, process.name),
                redis.broker(self.redis, process.name),
                "host=simulated",
                settings,
                self.engine,
                self.registry,
                process.name,
            )
            await process.worker.run()
            self.note(process.name, "has stopped")
            if not process.leaving:
                self.fail(f"{process.name} ended by itself")

        process.task = self.task(process.name, main())
        self.note(process.name, "starts")
        return process

    def start_scheduler(self) -> Process:
        """A new scheduler process."""
        process = Process(f"scheduler-{next(self._names)}")
        self.processes[process.name] = process
        settings = SchedulerSettings(leader_seconds=3.0, reconcile_seconds=self.setup.reconcile)

        async def main() -> None:
            scheduler = Scheduler(
                client.database(self.server, process.name),
                redis.broker(self.redis, process.name),
                settings,
                self.engine,
                self.registry,
            )
            scheduler.supervisor = Supervisor([one for one in scheduler.duties if not isinstance(one, ELSEWHERE)])
            process.scheduler = scheduler
            await scheduler.run()

        process.task = self.task(process.name, main())
        self.note(process.name, "starts")
        return process

    def living(self, kind: str) -> list[Process]:
        """The processes of a kind (`worker`, `scheduler`) that live and are not leaving."""
        return [
            one
            for one in self.processes.values()
            if one.name.startswith(kind) and one.name not in self.loop.dead and not one.leaving
        ]

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        self.note(process.name, "is killed")
        for name in (process.name, f"{process.name}:beat"):
            self.loop.kill(name)
        self.server.cut(process.name)
        self.redis.cut(process.name)

    def freeze(self, process: Process, seconds: float, *, whole: bool = True) -> None:
        """SIGSTOP, and SIGCONT after some time; not `whole`: a handler blocks the event loop."""
        names = [process.name, f"{process.name}:beat"] if whole else [process.name]
        self.note(process.name, f"{'is frozen' if whole else 'blocks'} for {seconds:.1f} s")
        for name in names:
            self.loop.freeze(name)

        def thaw() -> None:
            for name in names:
                self.loop.thaw(name)

        self.after(seconds, thaw, process.name, "goes on")

    def after(self, seconds: float, act: Callable[[], Any], who: str = "world", what: str = "") -> None:
        """Do something later."""

        async def later() -> None:
            await asyncio.sleep(seconds)
            if what:
                self.note(who, what)
            act()

        self.spawn("world", later())

    # --- jobs --------------------------------------------------------------------------------------------------------

    def order(self) -> NewJob:
        """An order for a job that will do something."""
        kinds = self.chance.choices(("ok", "failed"), (5, 1), k=6)
        plan = [(kind, self._duration()) for kind in kinds] + [("ok", 0.1)]
        queue = self.chance.choice(("default", "default", "other"))
        due = None
        if self.chance.random() < 0.15:
            due = self.server.clock() + timedelta(seconds=self.chance.uniform(0.5, 10))
        timeout = self.chance.choice((None, None, 5.0))
        payload = {"n": next(self._numbers), "plan": plan}
        return NewJob(queue, "work", payload, self.chance.randrange(6), available_at=due, timeout=timeout)

    def _duration(self) -> float:
        roll = self.chance.random()
        if roll < self.setup.short:
            return 0.0
        return self.chance.uniform(0.0, 0.3) if roll < 0.8 else self.chance.uniform(0.5, 9.0)

    async def customers(self) -> None:
        """Enqueue jobs, cancel and retry some."""
        service = self.service = JobService(client.database(self.server, "api", 8), redis.broker(self.redis, "api"))
        owner = client.database(self.server, "library", 8)
        left = self.setup.jobs
        while left > 0 and not self.over.is_set():
            burst = min(left, self.chance.choice((1, 1, 2, 5, 20)))
            left -= burst
            for _ in range(burst):
                if self.chance.random() < 0.2:
                    self.spawn("library", self._enqueue_late(owner))
                else:
                    self.spawn("api", self._enqueue(service))
            await asyncio.sleep(self.chance.expovariate(self.setup.jobs / self.setup.seconds / self.setup.rush / 6))

    async def _enqueue(self, service: JobService) -> None:
        order = self.order()
        number = order.payload["n"]
        with contextlib.suppress(GoQueueError):
            made = await service.enqueue(order)
            self.ids[number] = made.id
            self.note("api", f"job {number} is accepted as id {made.id}")
            if self.chance.random() < 0.3:
                await asyncio.sleep(self.chance.choice((0.0, 0.01, 0.3, 5.0)) * self.chance.random())
                await self._cancel(service, number, made.id)

    async def _cancel_soon(self, service: JobService, number: int, job_id: int) -> None:
        await asyncio.sleep(self.chance.uniform(0.0, 0.02))
        await self._cancel(service, number, job_id)

    async def _cancel(self, service: JobService, number: int, job_id: int) -> None:
        before = self.server.timeline
        with contextlib.suppress(GoQueueError):
            status = await service.cancel(job_id)
            self.note("api", f"cancellation of job {number} (id {job_id}) is acknowledged: {status}")
            if self.server.timeline != before:
                return  # the id may be another job's by now
            self.invariants.acknowledged(number, status.value)
            if self.chance.random() < 0.2:
                await asyncio.sleep(self.chance.uniform(0.0, 3.0))
                await service.retry(job_id)
                self.note("api", f"job {number} (id {job_id}) is retried by hand")

    async def _enqueue_late(self, database: Any) -> None:
        """A caller's own transaction: ids drawn now, committed some time later."""
        order = self.order()
        with contextlib.suppress(StoreUnavailable):
            async with database.connection() as connection, connection.transaction():
                await connection.execute(sql.INSERT_PLAIN, enqueue.columns([order], owed=True))
                await asyncio.sleep(self.chance.choice((0.01, 0.5, 4.0)) * self.chance.random())

    # --- the whole ---------------------------------------------------------------------------------------------------

    async def run(self, nemesis: Callable[["World"], Coroutine[Any, Any, None]]) -> None:
        """Start, let things happen, heal, and look whether all jobs end."""
        for _ in range(self.setup.workers):
            self.start_worker()
        for _ in range(self.setup.schedulers):
            self.start_scheduler()
        self.spawn("world", self.customers())
        faults = self.task("world", nemesis(self))
        await self._wait(self.setup.seconds)
        faults.cancel()
        self.heal()
        until = self.loop.time() + PATIENCE
        await self._wait(10.0)
        while self.loop.time() < until and not self.over.is_set() and self.invariants.open_jobs():
            await self._wait(5.0)
        if not self.over.is_set():
            self.invariants.at_the_end()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    def heal(self) -> None:
        """No more faults: everything that lives goes on, everything can be reached, what is missing is started."""
        self.note("world", "heals")
        self.server.trouble.lost_request = self.server.trouble.lost_answer = 0.0
        self.server.trouble.slow_commit = self.server.trouble.slow_statement = 0.0
        self.redis.lost_request = self.redis.lost_answer = 0.0
        self.server.unreachable.clear()
        self.server.traps.clear()
        self.redis.unreachable.clear()
        self.redis.up = True
        if not self.server.up:
            self.server.start()
        for name in list(self.loop.frozen):
            self.loop.thaw(name)
        for _ in range(self.setup.workers - len(self.living("worker"))):
            self.start_worker()
        if not self.living("scheduler"):
            self.start_scheduler()

    @contextlib.contextmanager
    def installed(self) -> Any:
        """The parts that take the place of real ones."""

        def membership(*arguments: Any, **more: Any) -> SimulatedMembership:
            return SimulatedMembership(self.server, self.loop, *arguments, **more)

        structlog.configure(processors=[_dropped], logger_factory=structlog.ReturnLoggerFactory())
        with (
            mock.patch.object(worker_module, "Membership", membership),
            mock.patch.object(copy, "WORTH", 10**9),  # COPY is not simulated
        ):
            yield


def _dropped(_logger: Any, _method: str, _event: Any) -> Any:
    raise structlog.DropEvent
