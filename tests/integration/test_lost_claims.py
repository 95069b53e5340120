"""The answer to a claim is lost: its jobs run, each once, by the worker that has them without knowing it."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from goqueue import JobContext
from goqueue.job import NewJob
from goqueue.store import attempts
from goqueue.store.connect import fetch_all
from goqueue_worker.worker import Worker
from tests.integration.engine import Engine, claim, connected, eventually
from tests.servers.link import Link

JOBS = 5000
POOLED = 8
"""Connections of an engine's pool."""
OUTAGES = 20


def port_of(dsn: str) -> int:
    return int(str(conninfo_to_dict(dsn)["port"]))


@contextlib.asynccontextmanager
async def linked(engine: Engine, lease: float) -> AsyncIterator[tuple[Link, Engine]]:
    """The same engine with a link before PostgreSQL."""
    async with (
        Link(port_of(engine.dsn)).run() as link,
        connected(make_conninfo(engine.dsn, port=link.port), engine.redis) as behind,
    ):
        behind.registry = engine.registry
        behind.settings.lease_seconds = lease
        async with contextlib.AsyncExitStack() as all_at_once:
            for _ in range(POOLED):
                connection = await all_at_once.enter_async_context(behind.database.connection())
                await claim(connection, 0, [])  # the next one is a single message to the server
        yield link, behind


def count_runs(engine: Engine) -> Counter[int]:
    """Register a job type whose handler does nothing; how often it ran, by job."""
    runs: Counter[int] = Counter()

    async def note(payload: Any, job: JobContext) -> None:
        runs[job.job_id] += 1

    engine.handle("note", note)
    return runs


async def any_processing(engine: Engine) -> bool:
    [[count]] = await engine.rows("SELECT count(*) FROM jobs WHERE status = 'processing'")
    return int(count) > 0


async def idle(engine: Engine, worker: Worker) -> None:
    """Wait until the worker waits for jobs."""
    await engine.until(await engine.enqueue("note"), "completed")
    await engine.service.close()

    async def waiting() -> bool:
        return bool(worker._broker._fetcher.can_be_woken)

    await eventually(waiting)


async def test_after_an_outage_shorter_than_the_fence_they_run_at_once(engine: Engine) -> None:
    runs = count_runs(engine)
    async with linked(engine, lease=30) as (link, behind), behind.worker() as worker:
        await idle(engine, worker)
        async with link.swallowing_answers():
            ids = [one.id for one in await engine.service.enqueue_many([NewJob("default", "note", {})] * 5)]
            await eventually(lambda: any_processing(engine))
        link.lead_to(port_of(engine.dsn))
        jobs = [await engine.until(job_id, "completed") for job_id in ids]
        assert link.lost > 0
    assert [runs[job_id] for job_id in ids] == [1] * 5
    assert [job.attempts for job in jobs] == [1] * 5


async def test_after_an_outage_longer_than_the_fence_they_run_although_another_worker_fetched_their_ids(
    engine: Engine,
) -> None:
    runs = count_runs(engine)

    async def depth() -> int:
        return (await engine.broker.depths(["default"]))["default"].depth

    async def given_back() -> bool:
        return worker._membership.fenced and await depth() == 1

    async def fetched() -> bool:
        return await depth() == 0

    async with linked(engine, lease=3) as (link, behind), behind.worker() as worker:
        await idle(engine, worker)
        async with link.swallowing_answers():
            job_id = await engine.enqueue("note")
            await eventually(lambda: any_processing(engine))
        await eventually(given_back)
        async with engine.worker():
            await eventually(fetched)
            link.lead_to(port_of(engine.dsn))
            job = await engine.until(job_id, "completed")
    assert (runs[job_id], job.attempts, await engine.outcomes(job_id)) == (1, 1, [])


async def test_many_lost_answers_of_two_claim_loops_run_no_job_twice(engine: Engine) -> None:
    runs = count_runs(engine)
    made = await engine.service.enqueue_many([NewJob("default", "note", {})] * JOBS)
    ids = {one.id for one in made}

    async def completed() -> bool:
        [[open_jobs]] = await engine.rows("SELECT count(*) FROM jobs WHERE finished_at IS NULL")
        return int(open_jobs) == 0

    async with linked(engine, lease=60) as (link, behind), engine.scheduler(), behind.worker(concurrency=20):
        for _ in range(OUTAGES):
            await link.lose_answers(0.01, cut=0.05)
            await asyncio.sleep(0.05)  # some are to be completed, too
        await eventually(completed)
        assert link.lost > 0
    assert {job_id: count for job_id, count in runs.items() if count != 1} == {}
    assert runs.keys() == ids


async def test_jobs_of_a_claim_that_takes_them_after_its_connection_broke_run_once(engine: Engine) -> None:
    runs = count_runs(engine)
    job_id = await engine.enqueue("note")
    await engine.service.close()
    async with linked(engine, lease=30) as (link, behind), await psycopg.AsyncConnection.connect(engine.dsn) as other:
        await other.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (job_id,))
        async with behind.worker():
            await eventually(engine.lock_awaited)
            await link.cut()
            await other.rollback()
            await eventually(lambda: any_processing(engine))
            link.lead_to(port_of(engine.dsn))
            await engine.until(job_id, "completed")
    assert runs == Counter([job_id])


async def test_what_is_held_under_another_lease_or_by_another_worker_is_not_found(engine: Engine) -> None:
    ids = [await engine.enqueue("note") for _ in range(3)]
    async with engine.database.connection() as connection:
        one = await attempts.register(connection, "one", ["default"], 1)
        two = await attempts.register(connection, "two", ["default"], 1)
        [mine] = await claim(connection, one, ids[:1])
        [later] = await claim(connection, one, ids[1:2])
        [theirs] = await claim(connection, two, ids[2:])
        assert await attempts.held(connection, one, ids, [mine.lease, theirs.lease]) == [mine]
        assert await attempts.held(connection, one, ids[:1], [later.lease]) == []
        assert len(await fetch_all(connection, "SELECT FROM jobs WHERE status = 'processing'")) == 3
