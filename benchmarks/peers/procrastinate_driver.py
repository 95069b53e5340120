# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Procrastinate's driver: psycopg 3 with its C-accelerated wheel and a pool, an async task, LISTEN/NOTIFY.

Its docs have `concurrency` for async jobs, our slots; a fetch takes one job by its design. Jobs are kept after
their end (`delete_jobs="never"`, the default).
"""

import logging

import procrastinate

from benchmarks.peers import protocol
from benchmarks.peers.protocol import AsyncDriver, Payload

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=protocol.POSTGRES_URL, min_size=4, max_size=20)
)


@app.task(name="bench")
async def bench(sent: int, pad: str) -> None:
    """The job."""
    await protocol.async_job(sent)


class Procrastinate(AsyncDriver):
    """Jobs by `defer_async`, in bulk by `batch_defer_async`."""

    async def setup(self) -> None:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    async def open(self, callers: int) -> None:
        await app.open_async()

    async def one(self, payload: Payload) -> None:
        await bench.defer_async(**payload)

    async def many(self, payloads: list[Payload]) -> None:
        await bench.batch_defer_async(*payloads)

    async def close(self) -> None:
        await app.close_async()

    def work(self) -> None:
        protocol.run_loop(self._work())

    async def _work(self) -> None:
        async with app.open_async():
            await app.run_worker_async(concurrency=protocol.CONCURRENCY)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    protocol.main(Procrastinate())
