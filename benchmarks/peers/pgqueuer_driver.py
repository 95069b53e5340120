# mypy: disable-error-code="import-not-found,untyped-decorator"
"""PgQueuer's driver: asyncpg, every table logged (its default), batches as large as its rule allows.

Its docs name the batch size as the lever for throughput; `max_concurrent_tasks`, our slots, has to be at least twice
the batch. Heartbeats, statistics and notifications stay as they are by default. A finished job's row moves from
`pgqueuer` to `pgqueuer_log` in one statement, so what is left in `pgqueuer` is what is not done.
"""

import asyncio
import json
import signal

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

from benchmarks.peers import protocol
from benchmarks.peers.protocol import AsyncDriver, Payload


class PgQueuerDriver(AsyncDriver):
    """Jobs by `Queries.enqueue`, in bulk by its list form."""

    async def setup(self) -> None:
        connection = await asyncpg.connect(protocol.POSTGRES_URL)
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    async def open(self, callers: int) -> None:
        pool = await asyncpg.create_pool(protocol.POSTGRES_URL, min_size=callers, max_size=callers)
        self._queries = Queries(AsyncpgPoolDriver(pool))

    async def one(self, payload: Payload) -> None:
        await self._queries.enqueue("bench", json.dumps(payload).encode())

    async def many(self, payloads: list[Payload]) -> None:
        count = len(payloads)
        encoded = [json.dumps(payload).encode() for payload in payloads]
        await self._queries.enqueue(["bench"] * count, encoded, [0] * count)

    def work(self) -> None:
        protocol.run_loop(self._work())

    async def _work(self) -> None:
        manager = PgQueuer(AsyncpgDriver(await asyncpg.connect(protocol.POSTGRES_URL)))

        @manager.entrypoint("bench")
        async def bench(job: object) -> None:
            await protocol.async_job(json.loads(job.payload)["sent"])  # type: ignore[attr-defined]

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, manager.shutdown.set)
        slots = protocol.CONCURRENCY
        await manager.run(batch_size=max(1, slots // 2), max_concurrent_tasks=slots)


if __name__ == "__main__":
    protocol.main(PgQueuerDriver())
