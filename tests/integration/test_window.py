"""Bounded ready sets: Redis holds a window of each queue, PostgreSQL the rest; order, depth and age stay right."""

import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from goqueue import JobContext
from goqueue.broker import Broker
from goqueue.job import NewJob
from goqueue.overview import overview
from goqueue.settings import RedisSettings
from goqueue.store import overflow
from goqueue_operator.load import Looker
from goqueue_scheduler.census import Census
from goqueue_scheduler.counts import Counts
from goqueue_scheduler.refill import Refill
from tests.integration.engine import Engine, connected, empty, eventually
from tests.servers.stores import FreshDatabase, FreshRedis

SIZE = 100
SLACK = SIZE // 20


@pytest.fixture
def redis(ready_queues: FreshRedis) -> RedisSettings:
    return RedisSettings(url=SecretStr(ready_queues.url), prefix=ready_queues.prefix, window=SIZE)


@pytest.fixture
async def engine(database: FreshDatabase, redis: RedisSettings) -> AsyncIterator[Engine]:
    """An engine whose ready sets hold 100 members."""
    async with connected(database.dsn, redis) as engine:
        async with engine.database.connection() as connection:
            await empty(connection)
        await engine.broker._redis.flushdb()
        yield engine


@pytest.fixture
def ran(engine: Engine) -> list[int]:
    """Ids of jobs in the order in which they ran."""
    order: list[int] = []

    async def note(payload: Any, job: JobContext) -> None:
        order.append(job.job_id)

    engine.handle("note", note)
    return order


@contextlib.asynccontextmanager
async def refilling(engine: Engine) -> AsyncIterator[Refill]:
    """A refill duty that looks when the test says so."""
    refill = Refill(engine.database, engine.broker, ["default", "other"])
    refill.begin()
    yield refill
    refill.end()


async def members(engine: Engine, queue: str = "default") -> list[int]:
    """Ids in the ready set, in order."""
    return [int(one) for one in await engine.broker._redis.zrange(engine.broker._ready(queue), 0, -1)]


async def trimmed(engine: Engine) -> bool:
    """Whether the ready set holds a window's jobs."""
    return SIZE <= len(await members(engine)) <= SIZE + SLACK


async def make(engine: Engine, count: int, queue: str = "default", **more: Any) -> list[int]:
    """Jobs by one bulk, and their pushes done."""
    made = await engine.service.enqueue_many([NewJob(queue, "note", {}, **more)] * count)
    await engine.service.close()
    return [one.id for one in made]


async def insert(engine: Engine, count: int, queue: str = "default", priority: int = 0) -> None:
    """Jobs that nobody pushed."""
    await engine.execute(
        "INSERT INTO jobs (queue, type, payload, priority) SELECT %s, 'note', '{}', %s FROM generate_series(1, %s)",
        queue,
        priority,
        count,
    )


async def drain(engine: Engine, refill: Refill, queue: str = "default", at_once: int = 10) -> list[int]:
    """Everything of a queue in the order in which workers get it, with a look of the leader after each fetch."""
    got: list[int] = []
    while True:
        await refill.look()
        jobs = await engine.broker.fetch([queue], at_once, block=0.05)
        if not jobs:
            return got
        got += [job.id for job in jobs]
        await engine.execute("UPDATE jobs SET status = 'processing' WHERE id = ANY(%s)", [job.id for job in jobs])


async def test_a_backlog_takes_a_window_in_redis_and_all_of_it_runs_in_order(engine: Engine, ran: list[int]) -> None:
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        ids = []
        for _ in range(20):
            ids += await make(engine, SIZE)
        await eventually(lambda: trimmed(engine))
        async with engine.worker(concurrency=1, fetch_ahead=0):

            async def done() -> bool:
                return len(ran) == len(ids)

            await eventually(done)
    assert ran == ids
    assert (await engine.broker.overflow.sizes(["default"]))["default"].beyond == 0


async def test_jobs_that_nobody_pushed_fill_no_more_than_the_window(engine: Engine, ran: list[int]) -> None:
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        await insert(engine, 10 * SIZE)

        async def counted() -> bool:
            return (await engine.broker.depths(["default"]))["default"].depth == 10 * SIZE

        await eventually(counted)
        await eventually(lambda: trimmed(engine))
        async with engine.worker():

            async def done() -> bool:
                return len(ran) == 10 * SIZE

            await eventually(done)


async def test_after_redis_lost_everything_a_backlog_comes_back_as_a_window(
    engine: Engine, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goqueue.store.dispatch.CHUNK", SIZE)
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        ids = await make(engine, 10 * SIZE)
        await engine.broker._redis.flushdb()

        async def back() -> bool:
            return await engine.broker.epoch() is not None and len(await members(engine)) >= SIZE

        await eventually(back)
        assert len(await members(engine)) <= 3 * SIZE
        async with engine.worker(concurrency=1, fetch_ahead=0):

            async def done() -> bool:
                return len(ran) == len(ids)

            await eventually(done)
    assert ran == ids


async def test_a_higher_priority_always_gets_in_and_pushes_out_the_tail(engine: Engine) -> None:
    async with refilling(engine) as refill:
        low = await make(engine, 3 * SIZE)
        await refill.look()
        high = await make(engine, 50, priority=5)
        assert (await members(engine))[:50] == high
        await refill.look()
        assert await members(engine) == high + low[: SIZE - 50]
        assert await drain(engine, refill) == high + low


async def test_the_higher_priority_beyond_the_window_comes_back_before_the_lower(engine: Engine) -> None:
    async with refilling(engine) as refill:
        low: list[int] = []
        high: list[int] = []
        for _ in range(10):
            low += await make(engine, 30)
            high += await make(engine, 30, priority=5)
            await refill.look()
        assert await drain(engine, refill) == high + low


async def test_retries_beyond_the_window_come_back_by_their_time_and_no_row_before_them_is_read_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []
    walk = overflow.walk

    async def noting(connection: Any, level: Any, start: int) -> Any:
        starts.append(start)
        return await walk(connection, level, start)

    monkeypatch.setattr(overflow, "walk", noting)
    retried = await make(engine, 20)
    await engine.broker._redis.flushdb()
    await engine.execute("UPDATE jobs SET status = 'processing'")
    rest = await make(engine, 3 * SIZE)
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        await engine.execute(
            "UPDATE jobs SET status = 'pending', available_at = now(), dispatch_at = now() WHERE id = ANY(%s)", retried
        )

        async def left_out() -> bool:
            return bool(engine.broker.left_out and engine.broker.left_out.listed)

        await eventually(left_out)
    async with refilling(engine) as refill:
        refill._left_out.listed |= scheduler.refill._left_out.listed
        assert await drain(engine, refill) == rest + retried
    assert min(starts) > max(retried)


async def test_what_an_enqueuer_marks_after_the_leaders_snapshot_is_not_passed_over(
    engine: Engine, redis: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk to the end of the queue and a job that is committed and left out behind its back."""
    async with refilling(engine) as refill:
        ids = await make(engine, 2 * SIZE)
        await refill.look()
        walk = overflow.walk
        enqueuer = Broker(redis)
        enqueuer.window.saw("default", SIZE, (0.0, 0), 1)  # knows a full set whose last member has the lowest score

        async def overtaken(connection: Any, level: Any, start: int) -> Any:
            walked = await walk(connection, level, start)
            if walked.next is None and len(late) == 0:
                (made,) = await engine.rows(
                    "INSERT INTO jobs (queue, type, payload) VALUES ('default', 'note', '{}') RETURNING id, now()"
                )
                late.append(made[0])
                await enqueuer.push([ReadyJobAt(made[0], made[1])])
            return walked

        late: list[int] = []
        monkeypatch.setattr(overflow, "walk", overtaken)
        assert await drain(engine, refill) == ids + late
        assert late
        await enqueuer.close()


def ReadyJobAt(job_id: int, at: datetime) -> Any:  # noqa: N802 - makes one
    from goqueue.job import ReadyJob, ready_score

    return ReadyJob(job_id, "default", ready_score(0, int(at.timestamp() * 1000)))


async def test_what_a_reconciliation_finds_in_a_full_set_marks_nothing_that_is_there(engine: Engine) -> None:
    """Jobs of one statement have one score: only their ids say which of them are in the set."""
    async with refilling(engine) as refill:
        ids = await make(engine, 3 * SIZE)
        await refill.look()
        (at,) = (await engine.rows("SELECT max(available_at) FROM jobs"))[0]
        walked = [ReadyJobAt(job_id, at) for job_id in ids]
        await engine.broker.push(walked, arrived=False)  # to know that the set is full
        await engine.broker.push(walked, arrived=False)
        await refill.look()
        marks = await engine.broker.overflow.take({})
        assert [mark.id for mark in marks.values()] == [ids[SIZE]]
        assert await members(engine) == ids[:SIZE]


async def test_depth_counts_what_is_beyond_the_window_and_what_was_cancelled_there_no_more(
    engine: Engine, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goqueue_scheduler.beyond.COUNTED", 0.2)
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        ids = await make(engine, 5 * SIZE)
        [state] = [one for one in (await overview(engine.service, ["default"])).queues if one.name == "default"]
        assert state.depth == 5 * SIZE
        facts = await Looker(engine.service, ["default"]).look()
        assert facts.waiting is not None
        assert facts.waiting["default"][0] == 5 * SIZE
        for job_id in ids[-50:]:
            await engine.service.cancel(job_id)

        async def corrected() -> bool:
            return (await engine.broker.depths(["default"]))["default"].depth == 5 * SIZE - 50

        await eventually(corrected)


async def test_the_oldest_is_the_longest_waiting_job_of_any_priority(engine: Engine) -> None:
    first = datetime.now(UTC) - timedelta(seconds=60)
    await make(engine, 1, available_at=first)
    await make(engine, 1, priority=-3)
    await make(engine, 3, priority=7)
    depth = (await engine.broker.depths(["default", "other"]))["default"]
    assert depth.depth == 5
    assert depth.oldest_ms == int(first.timestamp() * 1000)
    [state] = [one for one in (await overview(engine.service, ["default"])).queues if one.name == "default"]
    assert state.oldest_seconds is not None
    assert state.oldest_seconds >= 60
    assert (await engine.broker.depths(["other"]))["other"].oldest_ms == 0
    facts = await Looker(engine.service, ["default"]).look()  # as the autoscaler sees it
    assert facts.waiting is not None
    assert facts.waiting["default"][0] == 5
    assert facts.waiting["default"][1] >= 60
    counts = Counts(engine.database, ["default"])
    shown = await Census(engine.database, engine.broker, ["default"], counts)._waiting()  # as the gauges show it
    assert shown["default"][0] == 5
    assert shown["default"][1] >= 60


async def test_members_with_infinite_scores_hide_no_job(engine: Engine) -> None:
    first = datetime.now(UTC) - timedelta(seconds=60)
    await make(engine, 1, available_at=first)
    await make(engine, 1, priority=7)
    await engine.broker._redis.zadd(engine.broker._ready("default"), {"odd": "-inf", "odder": "+inf"})
    assert (await engine.broker.depths(["default"]))["default"].oldest_ms == int(first.timestamp() * 1000)


async def test_a_low_priority_that_is_all_beyond_the_window_counts_for_the_oldest(engine: Engine) -> None:
    async with refilling(engine) as refill:
        before = time.time() * 1000
        await make(engine, 2, priority=-1)
        after = time.time() * 1000
        await make(engine, 2 * SIZE, priority=1)
        await refill.look()
        depth = (await engine.broker.depths(["default"]))["default"]
        assert len(await members(engine)) == SIZE
        assert depth.depth == 2 * SIZE + 2
        assert before - 1 <= depth.oldest_ms <= after


async def test_what_redis_refuses_of_one_queue_holds_up_no_other(engine: Engine) -> None:
    await engine.broker._redis.set(engine.broker._ready("default"), "of another kind")
    async with refilling(engine) as refill:
        ids = await make(engine, 3) + await make(engine, 3, "other")
        assert await members(engine, "other") == ids[3:]
        await engine.broker._redis.delete(engine.broker._ready("default"))
        assert await drain(engine, refill) == ids[:3]
