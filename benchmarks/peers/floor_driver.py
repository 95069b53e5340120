"""The floor: GoQueue's own SQL and Redis commands from a bare loop. No product, no handler, no job ever fails.

Two connections take turns, so that PostgreSQL works on one batch while the other is fetched and decoded.
"""

import asyncio
import os
from typing import Any

import psycopg
from redis.asyncio import Redis

from benchmarks.peers import protocol
from benchmarks.peers.goqueue_driver import GoQueue
from goqueue.settings import RedisSettings, load
from goqueue.store import sql
from goqueue.store.connect import PLANNER

LOOPS = 2


class Floor(GoQueue):
    """Enqueues as GoQueue does; works without it."""

    def work(self) -> None:
        protocol.run_loop(self._work())

    async def _work(self) -> None:
        async with await psycopg.AsyncConnection.connect(protocol.POSTGRES_URL, autocommit=True) as connection:
            cursor = await connection.execute(sql.REGISTER_WORKER, (f"floor-{os.getpid()}", ["default"], 1))
            row = await cursor.fetchone()
        assert row is not None
        await asyncio.gather(*(self._loop(row[0]) for _ in range(LOOPS)))

    async def _loop(self, worker: int) -> None:
        key = f"{load(RedisSettings).prefix}:ready:default"
        share = min(500, max(1, protocol.CONCURRENCY // LOOPS))
        redis = Redis.from_url(protocol.REDIS_URL, protocol=2)
        async with await psycopg.AsyncConnection.connect(protocol.POSTGRES_URL, autocommit=True) as connection:
            connection.prepare_threshold = 0
            await connection.execute("; ".join(PLANNER), prepare=False)
            cursor = connection.cursor(binary=True)
            while True:
                reply: Any = await redis.bzmpop(1, 1, [key], min=True, count=share)
                if not reply:
                    continue
                ids = [int(member) for member, _ in reply[1]]
                await cursor.execute(sql.CLAIM, {"worker": worker, "ids": ids})
                claimed = await cursor.fetchall()
                await cursor.execute(
                    sql.COMPLETE,
                    ([row[0] for row in claimed], [row[1] for row in claimed], [None] * len(claimed)),
                )
                await cursor.fetchall()


if __name__ == "__main__":
    protocol.main(Floor())
