"""GoQueue's driver, as shipped: `goqueue worker` with the runner's concurrency and `goqueue scheduler` beside it."""

import os
import sys

from benchmarks.peers import protocol
from benchmarks.peers.protocol import AsyncDriver, Payload, become


class GoQueue(AsyncDriver):
    """Enqueues by the client library, works by the command."""

    async def setup(self) -> None:
        become("goqueue", "migrate")

    async def open(self, callers: int) -> None:
        # Here and not at the top: a worker process imports GoQueue once it has become one.
        import benchmarks.goqueue_jobs  # noqa: F401  (the client checks each payload against its type's model)
        from goqueue.client import AsyncClient
        from goqueue.settings import DatabaseSettings, EngineSettings, PostgresSettings, RedisSettings, load
        from goqueue.store.connect import dsn

        conninfo = dsn(load(PostgresSettings), load(DatabaseSettings))
        queues = load(EngineSettings).queues
        self._client = await AsyncClient(conninfo, load(RedisSettings), queues=queues).__aenter__()

    async def one(self, payload: Payload) -> None:
        await self._client.enqueue("bench", payload)

    async def many(self, payloads: list[Payload]) -> None:
        await self._client.enqueue_many("bench", list(payloads))

    async def close(self) -> None:
        # A job is accepted at its commit; the clock runs on until the last is also pushed to Redis.
        await self._client.__aexit__()

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
