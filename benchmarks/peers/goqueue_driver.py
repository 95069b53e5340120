"""GoQueue's driver, as shipped: `goqueue worker` with the runner's concurrency and `goqueue scheduler` beside it."""

import os
import sys

from benchmarks.peers import protocol
from benchmarks.peers.protocol import AsyncDriver, Payload, become
from goqueue.broker import Broker
from goqueue.job import NewJob
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings, PostgresSettings, RedisSettings, load
from goqueue.store.connect import Database, dsn


class GoQueue(AsyncDriver):
    """Enqueues by the library, works by the command."""

    async def setup(self) -> None:
        become("goqueue", "migrate")

    async def open(self, callers: int) -> None:
        settings = load(DatabaseSettings)
        database = Database(dsn(load(PostgresSettings), settings), settings)
        await database.open(settings)
        self._service = JobService(database, Broker(load(RedisSettings)))

    async def one(self, payload: Payload) -> None:
        await self._service.enqueue(NewJob("default", "bench", payload))

    async def many(self, payloads: list[Payload]) -> None:
        await self._service.enqueue_many([NewJob("default", "bench", payload) for payload in payloads])

    async def close(self) -> None:
        # A job is accepted at its commit; the clock runs on until the last is also pushed to Redis.
        await self._service.close()
        await self._service.database.close()
        await self._service.broker.close()

    def work(self) -> None:
        os.environ["GOQUEUE_WORKER_CONCURRENCY"] = str(protocol.CONCURRENCY)
        become("goqueue", "worker")


if __name__ == "__main__":
    os.environ.update(
        GOQUEUE_JOBS="benchmarks.goqueue_jobs",
        GOQUEUE_WORKER_HEALTH_PORT="0",
        GOQUEUE_SCHEDULER_HEALTH_PORT="0",
    )
    match sys.argv[1:]:
        case ["schedule"]:
            become("goqueue", "scheduler")
        case ["api"]:
            become("goqueue", "api")
        case _:
            protocol.main(GoQueue())
