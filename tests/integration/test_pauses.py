"""A paused queue: from the moment that its pause is acknowledged none of its jobs starts, on no worker."""

import contextlib
from typing import Any

import pytest

from goqueue import JobContext
from goqueue.job import NewJob
from goqueue.store import queues
from tests.integration.engine import Engine, connected, eventually

JOBS = 30


@pytest.mark.parametrize("told", [True, False], ids=["workers-are-told", "workers-hear-nothing"])
async def test_jobs_enqueued_after_the_pause_start_on_no_worker_and_run_in_order_after_it(
    engine: Engine, told: bool
) -> None:
    started: list[int] = []

    async def note(payload: Any, job: JobContext) -> None:
        started.append(job.job_id)

    async def all_wait(worker: Any) -> bool:
        return bool(worker._broker._fetcher.can_be_woken)

    engine.handle("note", note)
    engine.settings.heartbeat_seconds, engine.settings.lease_seconds = 60.0, 300.0  # what they ask by themselves
    async with contextlib.AsyncExitStack() as stack:
        workers = []
        for number in range(3):  # each as in a process of its own
            own = await stack.enter_async_context(connected(engine.dsn, engine.redis))
            own.registry, own.settings = engine.registry, engine.settings
            workers.append(await stack.enter_async_context(own.worker(f"w{number}")))
        await engine.until(await engine.enqueue("note", queue="other"), "completed")
        for worker in workers:
            await eventually(lambda worker=worker: all_wait(worker))  # type: ignore[misc]
        started.clear()
        if told:
            await engine.service.pause("other")
        else:
            async with engine.database.connection() as connection:
                await queues.pause(connection, "other")
        made = await engine.service.enqueue_many([NewJob("other", "note", {})] * JOBS)

        async def all_are_back() -> bool:
            depth = (await engine.broker.depths(["other"]))["other"].depth
            return depth == JOBS and (not told or all("other" in worker._requests.paused for worker in workers))

        await eventually(all_are_back)
        await engine.until(await engine.enqueue("note"), "completed")  # other queues go on
        assert len(started) == 1
        started.clear()
    assert await engine.rows("SELECT count(*) FROM jobs WHERE status <> 'completed' AND attempts > 0") == [(0,)]
    await engine.service.resume("other")
    async with engine.worker(concurrency=1):
        for one in made:
            await engine.until(one.id, "completed")
    assert started == [one.id for one in made]


async def test_a_fetch_that_waits_for_a_queue_is_made_again_without_it_once_it_is_paused(engine: Engine) -> None:
    async with engine.worker(queues="other") as worker:

        async def waits() -> bool:
            return bool(worker._broker._fetcher.can_be_woken)

        async def waits_no_more() -> bool:
            return "other" in worker._requests.paused and not worker._broker._fetcher.can_be_woken

        await eventually(waits)
        await engine.service.pause("other")
        await eventually(waits_no_more)
