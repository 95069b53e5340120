"""Values that somebody else wrote to Redis, or a later version: they harm nobody who reads them."""

import asyncio
import math
from typing import Any

import pytest
from structlog.testing import capture_logs

from goqueue import JobContext
from goqueue.broker.overflow import member
from goqueue.broker.redis import NOTED
from goqueue.errors import ForeignBroker
from goqueue.job import ReadyJob
from goqueue.window import Level, Mark
from tests.integration.engine import Engine, eventually

ODD_MEMBERS = [b"no number", b"-1", b"0", b"9223372036854775808", b"1" * 400, b"1.5", b"\xff\xfe", b"", "٣".encode()]

MESSAGES = [
    b"cancel all",
    b"cancel",
    b"cancel ",
    b"cancel 9223372036854775808",
    b"cancel -5",
    b"cancel \xff",
    b"\xff\xfe",
    b"drain {}",
    b"pause everything now",
    b"x" * 100_000,
]


async def test_no_message_on_the_control_channel_ends_a_worker_and_the_next_one_is_heard(engine: Engine) -> None:
    async def waits(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    engine.handle("waits", waits)
    channel = engine.broker.control_channel
    with capture_logs() as lines:
        async with engine.worker():
            job_id = await engine.enqueue("waits")
            await engine.until(job_id, "processing")
            await eventually(lambda: engine.broker.client.execute_command("PUBLISH", channel, b"cancel all"))
            for message in MESSAGES:
                assert await engine.broker.client.publish(channel, message) == 1
            # The worker's own look would cancel it after a heartbeat as well: only the message can, without a row.
            assert await engine.broker.client.publish(channel, f"cancel {job_id} because") == 1
            await engine.until(job_id, "cancelled")
    assert [line["request"] for line in lines if line["event"] == "request to cancel not understood"] == ["all"]


async def test_members_that_are_no_ids_cost_the_jobs_beside_them_nothing(engine: Engine) -> None:
    runs: list[int] = []

    async def note(payload: Any, job: JobContext) -> None:
        runs.append(job.job_id)

    engine.handle("note", note)
    ids = [await engine.enqueue("note") for _ in range(10)]
    ready = engine.broker._ready("default")
    # Of one score with the jobs, so that they are popped together, and beyond.
    score = await engine.broker.client.zscore(ready, member(ids[4]))
    odd = dict.fromkeys(ODD_MEMBERS[:4], score) | dict.fromkeys(ODD_MEMBERS[4:], -math.inf)
    await engine.broker.client.zadd(ready, odd)
    with capture_logs() as lines:
        async with engine.worker():
            for job_id in ids:
                await engine.until(job_id, "completed")
    assert sorted(runs) == ids
    assert await engine.broker.client.zcard(ready) == 0
    assert len([line for line in lines if line["event"] == "unknown value in redis dropped"]) == 1


async def test_what_others_read_from_redis_may_hold_anything(engine: Engine) -> None:
    broker, prefix = engine.broker, engine.broker.prefix
    ready = broker._ready("default")
    await broker.client.zadd(ready, {"odd": math.inf})
    assert (await broker.depths(["default"]))["default"].depth == 1
    await broker.client.zadd(ready, {"odd": -math.inf})
    assert (await broker.depths(["default"]))["default"].oldest_ms == 0

    marks = {"odd": 7, "a b c d": 7, b"\xff": 7, "default 0": 9, "default 0 since": math.inf}
    await broker.client.zadd(f"{prefix}:overflow", marks)
    await broker.client.hset(f"{prefix}:beyond", mapping={"default": "many", "email": "-3"})
    assert (await broker.depths(["default", "email"]))["default"].depth == 1
    assert await broker.overflow.take({}) == {Level("default", 0): Mark(9, 0)}
    assert await broker.overflow.tail("default", 5) == []
    assert await broker.client.zcard(ready) == 0, "what is no id is thrown away"

    await broker.client.hset(f"{prefix}:arrived", mapping={"default": "many", b"\xff": "1", "other": "7"})
    assert await broker.arrived() == {"�": 1, "other": 7}

    runs = {b"1-": 1, b"odd": 1, b"9-3": 1, b"3-9": 9, b"-": 1, b"1-99999999999999999999": 1, b"\xff-\xff": 1}
    await broker.client.zadd(f"{prefix}:pushed", runs)
    assert await broker.noted(0) == [(3, 9)]

    await broker.client.set(f"{prefix}:epoch", b"\xff")
    assert await broker.epoch() == "�"

    broker.installation = "mine"
    await broker.client.set(f"{prefix}:installation", b"\xff")
    with pytest.raises(ForeignBroker):
        await broker.check_owner()
    assert await broker.adopt("mine") == "�"


async def test_a_counter_that_holds_no_number_does_not_make_a_push_fail(engine: Engine) -> None:
    broker, prefix = engine.broker, engine.broker.prefix
    await broker.client.hset(f"{prefix}:arrived", "default", "many")
    await broker.client.set(f"{prefix}:pushed", "no set")
    jobs = [ReadyJob(id, "default", float(id)) for id in range(1, NOTED + 10)]
    with capture_logs() as lines:
        await broker.push(jobs)
        await broker.push(jobs)
    assert await broker.client.zcard(broker._ready("default")) == len(jobs)
    assert [line["during"] for line in lines] == ["count", "note"]


async def test_listeners_take_any_bytes(engine: Engine) -> None:
    channel = engine.broker.arrivals_channel
    messages = engine.broker.listen(channel)
    assert await anext(messages) == ""
    await engine.broker.client.publish(channel, b"\xff\xfe")
    assert await anext(messages) == "��"
    await messages.aclose()  # type: ignore[attr-defined]
