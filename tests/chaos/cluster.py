"""A whole GoQueue of real processes to be broken, and the count of what became of its jobs."""

import asyncio
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, LiteralString

import pytest
from pydantic import SecretStr

from goqueue.broker import Broker
from goqueue.errors import StoreUnavailable
from goqueue.job import NewJob
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings, RedisSettings
from goqueue.store.connect import Database, fetch_all
from tests.servers.stores import FreshDatabase, FreshRedis

LEASE_SECONDS = 3.0
SETTLE_SECONDS = 45.0
"""Longest wait, after the breaking is over, until every accepted job is final. Lease, rescue and retries fit in."""

_SPAWN = multiprocessing.get_context("forkserver")
_SPAWN.set_forkserver_preload(
    [
        "goqueue_cli.processes",
        "goqueue_worker.worker",
        "goqueue_worker.handlers",
        "goqueue_scheduler.scheduler",
        "uvloop",
    ]
)

# Every write of `completed` is noted by PostgreSQL itself, so that a second one cannot hide.
WATCH_COMPLETIONS = """
CREATE TABLE completions (job_id bigint NOT NULL);
CREATE FUNCTION note_completion() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO completions VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER note_completion AFTER UPDATE OF status ON jobs FOR EACH ROW
    WHEN (NEW.status = 'completed') EXECUTE FUNCTION note_completion();
"""


def _run(part: str, environment: Mapping[str, str], log: Path) -> None:
    """In the child: become one of GoQueue's processes."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    from goqueue_cli import processes

    getattr(processes, part)()


@dataclass
class Tally:
    """What became of the accepted jobs."""

    name: str
    accepted: int
    completed: int
    lost: int
    stuck: int
    completed_twice: int
    ran_again: int
    """Effects beyond the first of a job: at-least-once, not an error."""
    kills: int

    def __str__(self) -> str:
        return (
            f"{self.name}: accepted {self.accepted}, completed {self.completed}, lost {self.lost}, stuck {self.stuck},"
            f" completed twice {self.completed_twice} (ran again {self.ran_again}, kills {self.kills})"
        )


@dataclass
class Cluster:
    """Real processes on real stores. Everything it started ends with it."""

    folder: Path
    database: FreshDatabase
    ready_queues: FreshRedis
    pool: Database
    service: JobService
    tallies: list[Tally]
    name: str
    accepted: list[int] = field(default_factory=list)
    processes: list[BaseProcess] = field(default_factory=list)
    kills: int = 0

    @property
    def sink(self) -> Path:
        return self.folder / "sink"

    def start(self, part: str, **more: str) -> BaseProcess:
        """Start `worker`, `scheduler` or `api`; settings may be given in upper case."""
        environment = {
            **self.database.environment,
            **self.ready_queues.environment,
            "GOQUEUE_JOBS": "tests.chaos.jobs",
            "GOQUEUE_LEASE_SECONDS": str(LEASE_SECONDS),
            "GOQUEUE_HEARTBEAT_SECONDS": "0.4",
            "GOQUEUE_SCHEDULER_LEADER_SECONDS": "2",
            "GOQUEUE_SCHEDULER_RECONCILE_SECONDS": "10",
            "GOQUEUE_WORKER_CONCURRENCY": "10",
            "GOQUEUE_WORKER_HEALTH_PORT": "0",
            "GOQUEUE_SCHEDULER_HEALTH_PORT": "0",
            "CHAOS_SINK": str(self.sink),
            **more,
        }
        process = _SPAWN.Process(
            target=_run, args=(part, environment, self.folder / f"{part}-{len(self.processes)}.log"), daemon=True
        )
        process.start()
        self.processes.append(process)
        return process

    def kill(self, process: BaseProcess, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; SIGKILL is also awaited."""
        assert process.pid
        os.kill(process.pid, number)
        if number is signal.SIGKILL:
            process.join(60)
            self.kills += 1

    def order(self, type: str = "work", seconds: float = 0.0, queue: str = "default", **more: object) -> NewJob:
        """A job of these tests."""
        return NewJob(queue, type, {"seconds": seconds}, **{"max_retries": 20, **more})  # type: ignore[arg-type]

    async def post(self, type: str = "work", seconds: float = 0.0, **more: Any) -> int | None:
        """Enqueue one job; its id once accepted, None where it was not."""
        order = self.order(type, seconds, **more)
        try:
            made = await self.service.enqueue(order)
        except StoreUnavailable:
            return None
        self.accepted.append(made.id)
        return made.id

    async def post_until(self, stop: asyncio.Event, each: float = 0.004, seconds: float = 0.01) -> None:
        """A steady stream of jobs, whatever happens to the stores."""
        while not stop.is_set():
            if await self.post(seconds=seconds) is None:
                await asyncio.sleep(0.1)
            await asyncio.sleep(each)

    async def counts(self) -> Counter[str]:
        """The accepted jobs by status."""
        async with self.pool.connection() as connection:
            rows = await fetch_all(
                connection, "SELECT status, count(*) FROM jobs WHERE id = ANY(%s) GROUP BY 1", (self.accepted,)
            )
        return Counter(dict(rows))

    async def settle(self, seconds: float = SETTLE_SECONDS) -> Tally:
        """Wait until every accepted job is final (or time is up), then count; the count is printed with the report."""
        deadline = time.monotonic() + seconds
        counts: Counter[str] = Counter()
        while time.monotonic() < deadline:
            try:
                counts = await self.counts()
            except StoreUnavailable:
                counts = Counter()
            if sum(counts[s] for s in ("completed", "failed", "cancelled")) == len(self.accepted):
                break
            await asyncio.sleep(0.2)
        async with self.pool.connection() as connection:
            twice = await fetch_all(connection, "SELECT job_id FROM completions GROUP BY 1 HAVING count(*) > 1")
        effects = Counter(int(line.split()[0]) for line in self.sink.read_text().splitlines())
        completed = counts["completed"]
        tally = Tally(
            name=self.name,
            accepted=len(self.accepted),
            completed=completed,
            lost=len(self.accepted) - sum(counts.values()) + await self._completed_without_effect(effects),
            stuck=counts["pending"] + counts["processing"],
            completed_twice=len(twice),
            ran_again=sum(count - 1 for count in effects.values()),
            kills=self.kills,
        )
        self.tallies.append(tally)
        return tally

    async def _completed_without_effect(self, effects: Counter[int]) -> int:
        async with self.pool.connection() as connection:
            rows = await fetch_all(connection, "SELECT id FROM jobs WHERE status = 'completed'")
        return sum(1 for (job_id,) in rows if not effects[job_id])

    async def workers(self, count: int, seconds: float = 60.0) -> None:
        """Wait until that many workers are registered."""
        await self.until("SELECT count(*) >= %s FROM workers", (count,), seconds)

    async def until(self, query: LiteralString, parameters: tuple[object, ...] = (), seconds: float = 60.0) -> None:
        """Wait until a query's first value is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                async with self.pool.connection() as connection:
                    rows = await fetch_all(connection, query, parameters)
                if rows[0][0]:
                    return
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.05)
        pytest.fail(f"not within {seconds} s: {query}")

    def stop_all(self) -> None:
        """End every process."""
        for process in self.processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
        for process in self.processes:
            process.join(60)


@asynccontextmanager
async def running(
    name: str, folder: Path, database: FreshDatabase, ready_queues: FreshRedis, tallies: list[Tally]
) -> AsyncIterator[Cluster]:
    """A cluster without processes yet, on a database that notes completions."""
    settings = DatabaseSettings(max_retries=0)
    pool = Database(database.dsn, settings, maximum=4)
    await pool.open(settings)
    broker = Broker(RedisSettings(url=SecretStr(ready_queues.url), prefix=ready_queues.prefix))
    cluster = Cluster(folder, database, ready_queues, pool, JobService(pool, broker), tallies, name)
    cluster.sink.touch()
    async with pool.connection() as connection:
        await connection.execute(WATCH_COMPLETIONS, prepare=False)
    try:
        yield cluster
    finally:
        cluster.stop_all()
        await cluster.service.close()
        await broker.close()
        await pool.close()
