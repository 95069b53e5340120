"""GoQueue's user in Redis: all of its work goes with the commands on the list, and nothing else does."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
from pydantic import SecretStr
from redis.exceptions import NoPermissionError

from goqueue import JobContext
from goqueue.broker import acl
from goqueue.job import NewJob, ReadyJob
from goqueue.settings import RedisSettings
from goqueue_api.throttle import RedisCounter
from goqueue_cli.embedded import EmbeddedValkey
from tests.integration.console import Console
from tests.integration.engine import QUEUES, Anything, Engine, connected, empty, eventually
from tests.servers.stores import FreshDatabase

PREFIX = "{goqueue}"
PASSWORD = "of-the-user"


@pytest.fixture
async def admin(own_valkey: EmbeddedValkey) -> AsyncIterator[Any]:
    """The server's administrator, who made the user by the line of `goqueue redis acl`."""
    client: Any
    async with aioredis.Redis.from_url(own_valkey.url) as client:
        _, name, *rules = acl.user("goqueue", PREFIX).split()
        assert await client.execute_command("ACL", "SETUSER", name, *rules, f">{PASSWORD}")
        yield client


@pytest.fixture
def url(own_valkey: EmbeddedValkey, admin: Any) -> str:
    return f"redis://goqueue:{PASSWORD}@{own_valkey.host}:{own_valkey.port}/0"


@pytest.fixture
async def engine(url: str, database: FreshDatabase) -> AsyncIterator[Engine]:
    """An engine whose Redis user is the restricted one."""
    redis = RedisSettings(url=SecretStr(url), prefix=PREFIX, window=100)
    async with connected(database.dsn, redis) as engine:
        async with engine.database.connection() as connection:
            await empty(connection)
        yield engine


async def counted(admin: Any) -> set[str]:
    """The commands that the server has been sent, subcommands as `client|id`."""
    return {name.removeprefix("cmdstat_") for name in await admin.info("commandstats")}


async def work(engine: Engine) -> None:
    """Everything that any process ever asks of Redis."""
    ran = asyncio.Event()
    started = asyncio.Event()

    async def note(payload: Anything, job: JobContext) -> None:
        ran.set()

    async def hold(payload: Anything, job: JobContext) -> None:
        started.set()
        await asyncio.Event().wait()

    engine.handle("note", note)
    engine.handle("hold", hold)
    broker, service = engine.broker, engine.service
    later = datetime.now(UTC) + timedelta(hours=1)
    waiting = await engine.enqueue("note", available_at=later)
    unserved = await engine.enqueue("note")
    for _ in range(2):  # more than the window holds
        await service.enqueue_many([NewJob("default", "note", {})] * 200)
        await service.close()
    await service.cancel(unserved)
    assert await broker.noted(0)
    counter = RedisCounter(broker._redis, PREFIX)
    assert [await counter.add("caller", 2, 60), await counter.add("caller", 1, 60)] == [2, 3]
    async with engine.worker(), engine.scheduler(reconcile_seconds=0.2):
        await asyncio.wait_for(ran.wait(), 60)
        held = await engine.enqueue("hold")
        await asyncio.wait_for(started.wait(), 60)
        await service.pause("other")
        await service.resume("other")
        await service.cancel(held)
        await engine.until(held, "cancelled")
        await eventually(broker.epoch)
        await broker.ping()
        await broker.push([ReadyJob(waiting, "other", 1.0)])
        await broker.depths(QUEUES)
        await broker.overflow.forget("other")
        assert (await broker.arrived())["default"] > 200

        async def drained() -> bool:
            return (await broker.depths(["default"]))["default"].depth == 0

        await eventually(drained)


async def test_all_of_the_work_goes_with_the_user_and_needs_every_command_on_the_list(
    engine: Engine, admin: Any
) -> None:
    before = await counted(admin)
    await admin.config_resetstat()
    await work(engine)
    used = await counted(admin) - {"info", "config|resetstat", "auth"}
    assert before
    assert used - set(acl.COMMANDS) == set()
    optional = {"select", "client|setinfo", "unsubscribe", "client|unblock"}  # as the client and the moment have it
    assert set(acl.COMMANDS) - used <= optional
    denied = await admin.execute_command("ACL", "LOG")
    assert denied == []


@pytest.mark.parametrize(
    "command",
    [
        ["FLUSHALL"],
        ["FLUSHDB"],
        ["KEYS", "*"],
        ["SCAN", "0"],
        ["CONFIG", "GET", "requirepass"],
        ["SHUTDOWN"],
        ["ACL", "LIST"],
        ["CLIENT", "LIST"],
        ["CLIENT", "KILL", "ID", "1"],
        ["EVAL", "return 1", "0"],
        ["MONITOR"],
        ["REPLICAOF", "NO", "ONE"],
        ["DEL", "{goqueue}:ready:default"],
        ["GET", "other"],
        ["SET", "{goqueue}x", "1"],
        ["ZADD", "{other}:ready:default", "1", "1"],
        ["HGETALL", "session:1"],
        ["PUBLISH", "other", "1"],
        ["SUBSCRIBE", "other"],
    ],
)
async def test_everything_else_is_refused(url: str, command: list[str]) -> None:
    client: Any
    async with aioredis.Redis.from_url(url) as client:
        assert await client.set("{goqueue}:epoch", "1")
        with pytest.raises(NoPermissionError):
            await client.execute_command(*command)


async def test_the_command_prints_the_user_for_the_prefix_and_needs_no_server(tmp_path: Path) -> None:
    said = await Console(tmp_path)("redis", "acl", "--user", "jobs", GOQUEUE_REDIS_PREFIX="{mine}[1]")
    assert said.out.startswith("user jobs on resetkeys ~{mine}\\[1\\]:* resetchannels &{mine}\\[1\\]:* -@all +zadd ")
    assert (await Console(tmp_path)("redis", "acl", "--user", "two words")).code == 1
