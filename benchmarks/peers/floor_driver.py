"""The floor: GoQueue's own SQL and Redis commands from a bare loop. No product, no rules, no job ever fails.

A backlog of no-op jobs is drained without running anything: two connections take turns, so that PostgreSQL works on one
batch while the other is fetched and decoded. Where jobs are stamped or wait, bare tasks are the slots.
"""

import asyncio
import os
from datetime import datetime
from typing import Any, LiteralString, Self

import orjson
import psycopg
from redis.asyncio import Redis

from benchmarks.peers import protocol
from benchmarks.peers.goqueue_driver import GoQueue
from benchmarks.peers.protocol import Payload, async_job
from goqueue.broker.overflow import member
from goqueue.job import ready_score
from goqueue.settings import RedisSettings, load
from goqueue.store import attempt_sql, attempts, session, sql
from goqueue_worker.completer import GAP

LOOPS = 2


class Stores:
    """One connection to each store, and the commands of the hot path."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], redis: str, worker: int) -> None:
        self._cursor = connection.cursor(binary=True)
        self._redis = Redis.from_url(redis, protocol=2)
        self._key = f"{load(RedisSettings).prefix}:ready:default"
        self._worker = worker

    @classmethod
    async def connect(
        cls, worker: int = 0, *, postgres: str = protocol.POSTGRES_URL, redis: str = protocol.REDIS_URL
    ) -> Self:
        """Connect as GoQueue's processes do; `worker` claims."""
        connection = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
        connection.prepare_threshold = 0
        await connection.execute(session.preamble(connection.info.server_version, pgbouncer=False), prepare=False)
        return cls(connection, redis, worker)

    async def execute(self, statement: LiteralString) -> None:
        """Tell PostgreSQL something about this connection."""
        await self._cursor.execute(statement)

    async def add(self, payload: Payload) -> None:
        """Enqueue one job."""
        job, available_at = await self.insert(payload)
        await self._redis.zadd(self._key, {member(job): ready_score(0, int(available_at.timestamp() * 1000))})

    async def insert(self, payload: Payload) -> tuple[Any, datetime]:
        """Insert one job; its id, and when it may run."""
        await self._cursor.execute(
            sql.INSERT_ONE,
            {
                "queue": "default",
                "type": "bench",
                "payload": orjson.dumps(payload).decode(),
                "max_retries": 3,
                "priority": 0,
                "due": None,
                "timeout": None,
                "source": "library",
                "trace": None,
                "tenant": None,
            },
        )
        row = await self._cursor.fetchone()
        assert row is not None
        return row[0], row[2]

    async def claim(self, count: int) -> list[Any]:
        """Up to `count` jobs as `(id, lease, …)`; none where none came within a second."""
        reply: Any = await self._redis.bzmpop(1, 1, [self._key], min=True, count=count)
        if not reply:
            return []
        return await self.claim_ids([int(member) for member, _ in reply[1]])

    async def claim_ids(self, ids: list[int]) -> list[Any]:
        """Of these jobs those that could be claimed."""
        lease = attempts.new_lease()
        claim = {"worker": self._worker, "ids": attempts.array_text(ids), "queue": "default", "lease": lease}
        await self._cursor.execute(attempt_sql.CLAIM, claim)
        return await self._cursor.fetchall()

    async def complete(self, jobs: list[Any]) -> None:
        """End these jobs."""
        jobs = sorted(jobs)
        columns = {"ids": [job[0] for job in jobs], "leases": [job[1] for job in jobs]}
        arrays = {name: attempts.array_text(column) for name, column in columns.items()}
        await self._cursor.execute(attempt_sql.COMPLETE, arrays | {"results": None})


class Floor(GoQueue):
    """Enqueues in bulk as GoQueue does; one by one, and works, without it."""

    async def open(self, callers: int) -> None:
        await super().open(callers)
        self._stores = await Stores.connect()

    async def one(self, payload: Payload) -> None:
        await self._stores.add(payload)

    def work(self) -> None:
        protocol.run_loop(self._work())

    async def _work(self) -> None:
        async with await psycopg.AsyncConnection.connect(protocol.POSTGRES_URL, autocommit=True) as connection:
            worker = await attempts.register(connection, f"floor-{os.getpid()}", ["default"], 1)
        stores = [await Stores.connect(worker) for _ in range(LOOPS)]
        if protocol.AWAIT_SECONDS or protocol.PROBE:
            await _run_in_slots(*stores)
        else:
            await asyncio.gather(*map(_drain, stores))


async def _drain(stores: Stores) -> None:
    share = min(500, max(1, protocol.CONCURRENCY // LOOPS))
    while True:
        if jobs := await stores.claim(share):
            await stores.complete(jobs)


async def _run_in_slots(feeding: Stores, completing: Stores) -> None:
    waiting, ended = asyncio.Queue[Any](), asyncio.Queue[Any]()
    low = asyncio.Event()

    async def feed() -> None:
        while True:
            while waiting.qsize() > protocol.CONCURRENCY:
                low.clear()
                await low.wait()
            for job in await feeding.claim(protocol.CONCURRENCY):
                waiting.put_nowait(job)

    async def slot() -> None:
        while True:
            job = await waiting.get()
            low.set()
            await async_job(orjson.loads(job[5])["sent"])
            ended.put_nowait(job)

    async def complete() -> None:
        while True:
            jobs = [await ended.get()]
            while not ended.empty():
                jobs.append(ended.get_nowait())
            await completing.complete(jobs)
            await asyncio.sleep(GAP)

    await asyncio.gather(*(slot() for _ in range(protocol.CONCURRENCY)), feed(), complete())


if __name__ == "__main__":
    protocol.main(Floor())
