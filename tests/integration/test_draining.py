"""A worker that is asked to drain begins nothing, finishes what it runs, says so, and works again when it may."""

import asyncio
from typing import Any

from goqueue import JobContext
from goqueue.job import NewJob
from goqueue.store import dispatch, draining
from goqueue.store.dispatch import WorkerRow
from goqueue_worker.worker import Worker
from tests.integration.engine import Engine, connected, eventually


async def row_of(engine: Engine, name: str) -> WorkerRow | None:
    async with engine.database.connection() as connection:
        rows = [row for row in await dispatch.workers(connection) if row.name == name]
    return rows[0] if rows else None


async def drain(engine: Engine, name: str, seconds: float = 60.0) -> None:
    """Ask the worker of that name to drain, and tell it."""
    row = await eventually(lambda: row_of(engine, name))
    async with engine.database.connection() as connection:
        await draining.drain(connection, [row.id], seconds)
    await engine.broker.tell("drain")


async def release(engine: Engine, name: str) -> None:
    row = await row_of(engine, name)
    assert row is not None
    async with engine.database.connection() as connection:
        await draining.release(connection, [row.id])
    await engine.broker.tell("drain")


async def drained(engine: Engine, name: str) -> bool:
    row = await row_of(engine, name)
    return row is not None and row.draining and row.busy == 0


async def waits_for_jobs(worker: Worker) -> bool:
    return bool(worker._broker._fetcher.can_be_woken)


async def test_a_draining_worker_finishes_its_job_leaves_the_next_to_others_and_says_so(engine: Engine) -> None:
    go, ran = asyncio.Event(), []

    async def waits(payload: Any, job: JobContext) -> None:
        await go.wait()
        ran.append(job.job_id)

    async def note(payload: Any, job: JobContext) -> None:
        ran.append(job.job_id)

    engine.handle("waits", waits)
    engine.handle("note", note)
    async with engine.worker("one") as one:
        long = await engine.enqueue("waits")
        await engine.until(long, "processing")
        await eventually(lambda: waits_for_jobs(one))
        await drain(engine, "one")

        async def asked() -> bool:
            return one._requests.draining and not await waits_for_jobs(one)

        await eventually(asked)
        assert one.unready() == {}  # or Kubernetes would remove its pod before idle ones
        next_one = await engine.enqueue("note")
        row = await row_of(engine, "one")
        assert row is not None
        assert row.drain_seconds > 50
        go.set()
        await engine.until(long, "completed")
        await eventually(lambda: drained(engine, "one"))
        job = await engine.service.get(next_one)
        assert (job.status, job.attempts) == ("pending", 0)
        async with connected(engine.dsn, engine.redis) as own:  # as in a process of its own
            own.registry, own.settings = engine.registry, engine.settings
            async with own.worker("two"):
                await engine.until(next_one, "completed")
    assert await engine.rows("SELECT outcome FROM job_attempts WHERE outcome <> 'completed'") == []
    assert ran == [long, next_one]


async def test_what_a_draining_worker_has_claimed_and_not_begun_goes_back_uncharged(engine: Engine) -> None:
    go = asyncio.Event()

    def blocks(payload: Any, job: JobContext) -> None:
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()

    loop = asyncio.get_running_loop()
    engine.handle("blocks", blocks)
    async with engine.worker("one", concurrency=4, threads=1) as one:
        made = await engine.service.enqueue_many([NewJob("default", "blocks", {})] * 4)

        async def all_claimed() -> bool:
            return len(one._running) == 4

        await eventually(all_claimed)
        await drain(engine, "one")

        async def three_are_back() -> bool:
            jobs = [await engine.service.get(each.id) for each in made]
            return sorted((job.status.value, job.attempts) for job in jobs) == [("pending", 0)] * 3 + [
                ("processing", 1)
            ]

        await eventually(three_are_back)
        go.set()
        await eventually(lambda: drained(engine, "one"))
        states = [(await engine.service.get(each.id)).status.value for each in made]
        assert sorted(states) == ["completed", "pending", "pending", "pending"]
        await release(engine, "one")
        async with engine.scheduler():  # which pushes what went back
            for each in made:
                await engine.until(each.id, "completed")


async def test_a_request_to_drain_ends_by_itself_where_nobody_renews_it(engine: Engine) -> None:
    async def note(payload: Any, job: JobContext) -> None: ...

    engine.handle("note", note)
    async with engine.worker("one") as one:
        await eventually(lambda: waits_for_jobs(one))
        await drain(engine, "one", 2.0)
        await eventually(lambda: drained(engine, "one"))
        await engine.until(await engine.enqueue("note"), "completed")
        row = await row_of(engine, "one")
        assert row is not None
        assert row.drain_seconds <= 0


async def test_a_worker_that_hears_nothing_of_redis_learns_of_it_with_its_next_look(engine: Engine) -> None:
    async with engine.worker("one"):
        row = await eventually(lambda: row_of(engine, "one"))
        async with engine.database.connection() as connection:
            await draining.drain(connection, [row.id], 60.0)
        await eventually(lambda: drained(engine, "one"))
