"""What this machine lets anything have, GoQueue or not: `python -m benchmarks.physics`.

Times of what a lone job waits for, in a loop and after pauses, in which an idle CPU falls asleep; the statements also
where PostgreSQL plans each time anew; and what part of `slots / 5 ms` an event loop reaches that does nothing else.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import uvloop

from benchmarks.bench import Options
from benchmarks.peers.floor_driver import Stores
from benchmarks.peers.protocol import payload
from benchmarks.servers import Servers
from goqueue.store import attempts, migrate

RUNS, WARM, PAUSE = 120, 20, 0.02
AWAIT, SECONDS = 0.005, 4.0

Call = Callable[[], Awaitable[Any]]


async def _median_ms(prepare: Callable[[], Awaitable[Call]], pause: float) -> float:
    """The median time of the calls that `prepare` makes, each `pause` seconds after it was made."""
    times = []
    for _ in range(RUNS):
        call = await prepare()
        await asyncio.sleep(pause)
        begin = time.perf_counter()
        await call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[WARM:]) * 1e3


async def _show(name: str, prepare: Callable[[], Awaitable[Call]]) -> None:
    loop, idle = await _median_ms(prepare, 0), await _median_ms(prepare, PAUSE)
    print(f"{name:<32} {loop:>14.2f} {idle:>14.2f}")


async def _waits(servers: Servers) -> None:
    urls = {"postgres": servers.postgres_url, "redis": servers.valkey.url}
    async with await psycopg.AsyncConnection.connect(servers.postgres_url, autocommit=True) as connection:
        worker = await attempts.register(connection, "physics", ["default"], 1)

        async def select() -> Call:
            return lambda: connection.execute("SELECT 1")

        await _show("SELECT 1", select)
    for setting, note in (("generic", ""), ("custom", ", planned each time")):
        stores = await Stores.connect(worker, **urls)
        await stores.execute("SET plan_cache_mode = force_" + setting + "_plan")

        async def insert(stores: Stores = stores) -> Call:
            return lambda: stores.insert(payload())

        async def claim(stores: Stores = stores) -> Call:
            job, _ = await stores.insert(payload())
            return lambda: stores.claim_ids([job])

        async def complete(stores: Stores = stores) -> Call:
            job, _ = await stores.insert(payload())
            jobs = await stores.claim_ids([job])
            return lambda: stores.complete(jobs)

        for prepare in (insert, claim, complete):
            await _show(prepare.__name__ + note, prepare)


async def _sync() -> None:
    with tempfile.TemporaryFile(dir=".") as file:
        os.pwrite(file.fileno(), bytes(1 << 20), 0)

        async def call() -> None:
            os.fdatasync(file.fileno())

        async def write() -> Call:
            os.pwrite(file.fileno(), os.urandom(8192), 0)
            return call

        await _show("fdatasync of 8 KiB", write)


async def _bare_loop() -> None:
    slots, done = Options.realistic_concurrency, 0
    until = time.monotonic() + SECONDS

    async def slot() -> None:
        nonlocal done
        while time.monotonic() < until:
            await asyncio.create_task(asyncio.sleep(AWAIT))
            done += 1

    await asyncio.gather(*(slot() for _ in range(slots)))
    print(f"{slots} slots of an event loop, a task a job: {done / SECONDS / (slots / AWAIT):.2f} of the ideal")


async def _measure(servers: Servers) -> None:
    print(f"{'median, ms':<32} {'in a loop':>14} {f'after {PAUSE:g} s':>14}")
    await _sync()
    await _waits(servers)
    await _bare_loop()


def main() -> None:
    """Print the table."""
    with Servers() as servers:
        servers.fresh("physics")
        migrate.upgrade(servers.postgres_url)
        uvloop.run(_measure(servers))


if __name__ == "__main__":
    main()
