"""A burst is shared by the workers that are idle."""

import asyncio
import contextlib
from typing import Any

from goqueue import JobContext
from goqueue.job import NewJob
from goqueue.store import attempts, draining
from goqueue_worker.worker import Worker
from tests.integration.engine import Engine, connected, eventually

WORKERS = 5
JOBS = 50


async def test_a_bulk_that_fits_one_worker_is_spread_over_all_that_wait(engine: Engine) -> None:
    go = asyncio.Event()

    async def waits(payload: Any, job: JobContext) -> None:
        await go.wait()

    async def ready(worker: Worker) -> bool:
        return not worker._requests.alone and not worker._share.alone and bool(worker._broker._fetcher.can_be_woken)

    async def all_run() -> bool:
        return sum(len(worker._running) for worker in workers) == JOBS

    engine.handle("waits", waits)
    async with contextlib.AsyncExitStack() as stack:
        workers = []
        for number in range(WORKERS):  # each as in a process of its own
            own = await stack.enter_async_context(connected(engine.dsn, engine.redis))
            own.registry = engine.registry
            workers.append(await stack.enter_async_context(own.worker(f"w{number}", concurrency=JOBS)))
        for worker in workers:
            await eventually(lambda worker=worker: ready(worker))  # type: ignore[misc]
        await engine.service.enqueue_many([NewJob("default", "waits", {})] * JOBS)
        await eventually(all_run)
        shares = [len(worker._running) for worker in workers]
        go.set()
    # How much more than one each gets depends on how fast it is; none stays idle.
    assert min(shares) > 0, shares


async def test_a_worker_is_alone_unless_another_one_that_stays_serves_one_of_its_queues(engine: Engine) -> None:
    async with engine.database.connection() as connection:
        await attempts.register(connection, "me", ["default", "other"], 1)
        await attempts.register(connection, "me", ["default", "other"], 1)  # before it was declared dead
        await attempts.register(connection, "elsewhere", ["email"], 1)
        assert not (await draining.standing(connection, "me", ["default", "other"]))[0]
        leaves = await attempts.register(connection, "leaves", ["other"], 1)
        assert (await draining.standing(connection, "me", ["default", "other"]))[0]
        await attempts.heartbeat(connection, leaves, 0, True, {})
        assert not (await draining.standing(connection, "me", ["default", "other"]))[0]
        asked = await attempts.register(connection, "asked", ["other"], 1)
        await draining.drain(connection, [asked], 60)
        assert not (await draining.standing(connection, "me", ["default", "other"]))[0]
        assert (await draining.standing(connection, "asked", ["other"]))[1] > 50
        await draining.release(connection, [asked])
        assert await draining.standing(connection, "asked", ["other"]) == (True, 0)
        assert (await draining.standing(connection, "me", ["default", "other"]))[0]
