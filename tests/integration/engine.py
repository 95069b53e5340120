"""An engine in this process on real stores: what the tests of worker and scheduler stand on."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

from goqueue.broker import Broker
from goqueue.encryption import Keyring
from goqueue.job import ClaimedJob, Job, NewJob
from goqueue.registry import Handler, JobType, Registry
from goqueue.retry import RetryPolicy
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings, EngineSettings, RedisSettings, SchedulerSettings, WorkerSettings
from goqueue.store import attempts
from goqueue.store.connect import Connection, Database, fetch_all
from goqueue_scheduler.scheduler import Scheduler
from goqueue_worker.worker import Worker
from tests.servers.stores import FreshDatabase, FreshRedis

QUEUES = ["default", "other"]
FAST = RetryPolicy(base=0.05, maximum=0.2)

WITHIN = 40.0
"""Seconds that a test waits for what must come. A reconciliation would repair it after a minute, and must not help."""


class Anything(BaseModel):
    """A payload that accepts everything."""

    model_config = ConfigDict(extra="allow")


async def eventually(condition: Callable[[], Awaitable[Any]], seconds: float = WITHIN) -> Any:
    """Ask until the answer is true, for at most that long; PostgreSQL has no signal to await for a row's change."""
    try:
        async with asyncio.timeout(seconds):
            while not (answer := await condition()):  # noqa: ASYNC110 - a row that changes sets no event
                await asyncio.sleep(0.01)
            return answer
    except TimeoutError:
        pytest.fail(f"not within {seconds} s: {condition}")


@dataclass
class Engine:
    """Stores, service and the means to start workers and schedulers on them."""

    dsn: str
    redis: RedisSettings
    database: Database
    broker: Broker
    service: JobService
    registry: Registry = field(default_factory=Registry)
    settings: EngineSettings = field(
        default_factory=lambda: EngineSettings(queues=QUEUES, lease_seconds=1.5, heartbeat_seconds=0.3)
    )

    def handle(self, name: str, handler: Handler, *, timeout: float = 30.0, retry: RetryPolicy = FAST) -> None:
        """Register a job type with any payload."""
        self.registry.add(JobType(name, Anything, retry=retry, timeout=timeout, handler=handler))

    async def enqueue(self, type: str, queue: str = "default", **more: Any) -> int:
        """Enqueue one job; its id."""
        payload = more.pop("payload", {})
        return (await self.service.enqueue(NewJob(queue, type, payload, **more))).id

    @contextlib.asynccontextmanager
    async def worker(self, name: str | None = None, **settings: Any) -> AsyncIterator[Worker]:
        """A worker, stopped (drained) with the block."""
        chosen = WorkerSettings(**{"concurrency": 10, "grace_seconds": 5, **settings})
        worker = Worker(self.database, self.broker, self.dsn, chosen, self.settings, self.registry, name)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await running

    @contextlib.contextmanager
    def scheduler_in_thread(self) -> Iterator[None]:
        """A scheduler with a loop and connections of its own, for tests that block this one."""
        stop = threading.Event()

        async def main() -> None:
            settings = DatabaseSettings(max_retries=0)
            database, broker = Database(self.dsn, settings), Broker(self.redis)
            await database.open(settings)
            chosen = SchedulerSettings(leader_seconds=1.0)
            running = asyncio.create_task(Scheduler(database, broker, chosen, self.settings, self.registry).run())
            await asyncio.to_thread(stop.wait)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await broker.close()
            await database.close()

        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextlib.asynccontextmanager
    async def scheduler(self, **settings: Any) -> AsyncIterator[Scheduler]:
        """A scheduler, stopped with the block."""
        chosen = SchedulerSettings(**{"leader_seconds": 1.0, **settings})
        scheduler = Scheduler(self.database, self.broker, chosen, self.settings, self.registry)
        running = asyncio.create_task(scheduler.run())
        try:
            yield scheduler
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def leads(self, scheduler: Scheduler) -> None:
        """Wait until it leads and has reconciled for the first time."""

        async def leading() -> bool:
            return scheduler.leadership.leading and await self.broker.epoch() is not None

        await eventually(leading)

    async def lock_awaited(self) -> bool:
        """Whether a statement waits for a lock that another one holds."""
        waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return bool(await self.rows(waiting))

    async def until(self, job_id: int, *statuses: str, seconds: float = WITHIN) -> Job:
        """Wait until the job has one of these statuses; the job."""

        async def there() -> Job | None:
            job = await self.service.get(job_id)
            return job if job.status in statuses else None

        job: Job = await eventually(there, seconds)
        return job

    async def rows(self, query: Any, *parameters: Any) -> list[Any]:
        """Whatever a statement returns."""
        async with self.database.connection() as connection:
            return await fetch_all(connection, query, parameters or None)

    async def execute(self, query: Any, *parameters: Any) -> int:
        """Run a statement; how many rows it touched."""
        async with self.database.connection() as connection:
            return (await connection.execute(query, parameters or None)).rowcount

    async def outcomes(self, job_id: int) -> list[str]:
        """How the job's attempts ended, those that are kept."""
        rows = await self.rows("SELECT outcome FROM job_attempts WHERE job_id = %s ORDER BY finished_at", job_id)
        return [row[0] for row in rows]


@contextlib.asynccontextmanager
async def opened(
    database: FreshDatabase, ready_queues: FreshRedis, keyring: Keyring | None = None
) -> AsyncIterator[Engine]:
    """An engine on the given stores, both emptied first."""
    redis = RedisSettings(url=SecretStr(ready_queues.url), prefix=ready_queues.prefix)
    async with connected(database.dsn, redis, keyring) as engine:
        async with engine.database.connection() as connection:
            await empty(connection)
        await engine.broker._redis.flushdb()
        yield engine


@contextlib.asynccontextmanager
async def connected(dsn: str, redis: RedisSettings, keyring: Keyring | None = None) -> AsyncIterator[Engine]:
    """An engine on stores as they are."""
    settings = DatabaseSettings(max_retries=0)
    pool = Database(dsn, settings, maximum=8, keyring=keyring)
    await pool.open(settings)
    broker = Broker(redis)
    service = JobService(pool, broker)
    try:
        yield Engine(dsn, redis, pool, broker, service)
    finally:
        await service.close()
        await broker.close()
        await pool.close()


async def claim(connection: Connection, worker_id: int, ids: Sequence[int], queue: str = "default") -> list[ClaimedJob]:
    """Claim as a worker does, under a lease of its own."""
    return await attempts.claim(connection, worker_id, ids, queue=queue, lease=attempts.new_lease())


async def empty(connection: Connection) -> None:
    """No jobs, no workers, no leader."""
    await connection.execute(
        "TRUNCATE jobs, job_attempts, job_logs, workers, queues, schedules, leaders, api_keys, audit_log, "
        "payment_declines, idempotency_keys CASCADE"
    )
    await connection.execute("UPDATE dispatch_floor SET id = 0")
