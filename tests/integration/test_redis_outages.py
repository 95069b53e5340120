"""Redis as it fails: what is logged of it, how often, and what goes on without it."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
from pydantic import SecretStr
from structlog.testing import capture_logs

from goqueue import JobContext
from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable
from goqueue.job import ReadyJob
from goqueue.settings import RedisSettings
from goqueue_api.throttle import AWAY, RedisCounter
from goqueue_cli.embedded import EmbeddedValkey, free_port
from tests.integration.engine import Anything, connected, empty, eventually
from tests.servers.sentinel import MASTER, run_sentinel
from tests.servers.stores import FreshDatabase, FreshRedis


@contextlib.asynccontextmanager
async def broker_of(**settings: Any) -> AsyncIterator[Broker]:
    broker = Broker(RedisSettings(**{**settings, "url": SecretStr(settings["url"])}))
    try:
        yield broker
    finally:
        await broker.close()


@contextlib.contextmanager
def told() -> Iterator[list[Any]]:
    """What is logged of Redis in the block."""
    with capture_logs() as lines:
        yield lines


def events(lines: list[Any]) -> list[str]:
    return [line["event"] for line in lines if line["event"].startswith("redis ")]


# --- the cause, once -------------------------------------------------------------------------------------------------


async def test_an_outage_is_told_once_with_its_cause_and_so_is_its_end(own_valkey: EmbeddedValkey) -> None:
    async with broker_of(url=own_valkey.url) as broker:
        await broker.ping()
        own_valkey.stop()
        with told() as lines:
            for _ in range(3):
                for call in (broker.ping(), broker.fetch(["default"], 1), broker.epoch(), broker.tell("pause")):
                    with pytest.raises(BrokerUnavailable) as caught:
                        await call
            assert events(lines) == ["redis is unavailable"]
            where = f"{own_valkey.host}:{own_valkey.port}"
            assert lines[0]["reason"] == f"ConnectionError: cannot connect to {where}: Connection refused"
            assert own_valkey.password not in str(lines) + str(caught.value)
            assert caught.value.as_dict() == {"error": "redis is unavailable"}
            own_valkey.start()
            await broker.ping()
            await broker.ping()
            assert events(lines) == ["redis is unavailable", "redis is available again"]


async def test_a_command_that_is_refused_is_told_once_while_others_are_answered(own_valkey: EmbeddedValkey) -> None:
    async with aioredis.Redis.from_url(own_valkey.url) as admin, broker_of(url=own_valkey.url) as broker:
        await admin.set("{goqueue}:ready:default", "no sorted set")
        with told() as lines:
            for _ in range(3):
                with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
                    await broker.fetch(["default"], 1)
                await broker.ping()
            assert events(lines) == ["redis refuses a command"]
            assert lines[0]["during"] == "fetch"
            await admin.delete("{goqueue}:ready:default")
            await broker.fetch(["default"], 1, block=0.01)
            assert events(lines)[1:] == ["redis accepts the command again"]


async def test_rate_limits_tell_an_outage_once(own_valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goqueue_api.throttle.AWAY", 0.0)
    assert AWAY > 0
    async with broker_of(url=own_valkey.url) as broker:
        counter = RedisCounter(broker.client, broker.prefix)
        own_valkey.stop()
        with told() as lines:
            assert [await counter.add("caller", 1, 60) for _ in range(3)] == [None] * 3
            own_valkey.start()
            assert await counter.add("caller", 1, 60) == 1
            assert events(lines) == [
                "redis counts no requests; each process limits by itself",
                "redis counts requests again",
            ]
            assert "refused" in lines[0]["reason"]


async def test_redis_is_reached_by_a_socket_file(tmp_path: Path) -> None:
    file = Path("/tmp") / f"goqueue-{secrets.token_hex(4)}.sock"
    server = EmbeddedValkey(tmp_path / "valkey", ephemeral=True, settings={"unixsocket": str(file)})
    with server as valkey:
        async with broker_of(url=f"unix://:{valkey.password}@{file}?db=1") as broker:
            await broker.push([ReadyJob(1, "default", 1.0)])
            assert [job.id for job in await broker.fetch(["default"], 1)] == [1]


# --- Sentinels -------------------------------------------------------------------------------------------------------


async def behind(valkey: EmbeddedValkey, port: int, **settings: Any) -> str:
    """Why the master cannot be asked through the Sentinel; empty where it can."""
    url = f"redis://:{valkey.password}@ignored/0"
    async with broker_of(**{"url": url, "sentinel_hosts": [f"127.0.0.1:{port}"], **settings}) as broker:
        with told() as lines, contextlib.suppress(BrokerUnavailable):
            await broker.ping()
    assert events(lines) == [line["event"] for line in lines] == ["redis is unavailable"] * len(lines)
    return "".join(line["reason"] for line in lines)


async def test_sentinels_that_ask_for_a_password_or_a_user_are_given_it(
    own_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    with run_sentinel(tmp_path, own_valkey, "requirepass s3ntinel", password="s3ntinel") as port:
        assert await behind(own_valkey, port, sentinel_password="s3ntinel") == ""
        assert "Authentication required" in await behind(own_valkey, port)
        wrong = await behind(own_valkey, port, sentinel_password="not-this-one")
        assert "invalid username-password pair" in wrong
        assert "not-this-one" not in wrong
    user = "user jobs on >s3ntinel allchannels +@all"
    with run_sentinel(tmp_path, own_valkey, user) as port:
        right = {"sentinel_username": "jobs", "sentinel_password": "s3ntinel"}
        assert await behind(own_valkey, port, **right) == ""


async def test_what_is_wrong_behind_sentinels_is_told(own_valkey: EmbeddedValkey, tmp_path: Path) -> None:
    nobody = free_port()
    where = f"127.0.0.1:{nobody}"
    refused = f"{where}: ConnectionError: cannot connect to {where}: Connection refused"
    assert refused in await behind(own_valkey, nobody)
    with run_sentinel(tmp_path, own_valkey) as port:
        assert await behind(own_valkey, port) == ""
        assert await behind(own_valkey, port, sentinel_hosts=[f"[::1]:{port}"]) == ""
        unknown = await behind(own_valkey, port, sentinel_master="other")
        assert f"no master 'other' found; 127.0.0.1:{port}: it knows no master of this name" in unknown
        own_password = await behind(own_valkey, port, url="redis://:wrong-password@ignored/0")
        assert "invalid username-password pair" in own_password
        assert MASTER not in own_password


# --- the fetch that a stopping worker wakes --------------------------------------------------------------------------


async def test_after_a_restart_a_worker_wakes_its_own_fetch_and_no_strangers(own_valkey: EmbeddedValkey) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(30):  # so that the restarted server has not yet given our id when the stranger comes
            await _own_connection(stack, own_valkey)
        broker = await stack.enter_async_context(broker_of(url=own_valkey.url))
        await broker.fetch(["default"], 1, block=0.01)
        former = broker._fetcher._id
        assert former is not None
        own_valkey.stop()
        own_valkey.start()
        while True:
            stranger = await _own_connection(stack, own_valkey)
            if (given := await stranger.client_id()) == former:
                break
            assert given < former
        admin = await _own_connection(stack, own_valkey)

        async def blocked(wanted: int) -> bool:
            return bool((await admin.info("clients"))["blocked_clients"] == wanted)

        strangers = asyncio.create_task(stranger.bzmpop(0, 1, ["elsewhere"], min=True))
        await eventually(lambda: blocked(1))
        ours = asyncio.create_task(broker.fetch(["default"], 1, block=3))
        await eventually(lambda: blocked(2))
        assert broker._fetcher._id != former
        await broker.wake_fetch()
        assert await asyncio.wait_for(ours, 2) == []
        assert await blocked(1)
        assert not strangers.done()
        strangers.cancel()


async def _own_connection(stack: contextlib.AsyncExitStack, valkey: EmbeddedValkey) -> Any:
    client: Any = await stack.enter_async_context(aioredis.Redis.from_url(valkey.url, single_connection_client=True))
    return client


@pytest.mark.parametrize(("denied", "missing"), [("-client", "CLIENT ID"), ("-client|unblock", "CLIENT UNBLOCK")])
async def test_a_worker_works_and_stops_without_the_right_to_client_and_says_so_once(
    own_valkey: EmbeddedValkey, database: FreshDatabase, denied: str, missing: str
) -> None:
    async def note(payload: Anything, job: JobContext) -> None: ...

    admin: Any
    async with aioredis.Redis.from_url(own_valkey.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "jobs", "on", ">secret", "~*", "&*", "+@all", denied)
    settings = RedisSettings(url=SecretStr(f"redis://jobs:secret@{own_valkey.host}:{own_valkey.port}/0"))
    async with connected(database.dsn, settings) as engine:
        async with engine.database.connection() as connection:
            await empty(connection)
        engine.handle("note", note)
        with capture_logs() as lines:
            async with engine.worker():
                await engine.until(await engine.enqueue("note"), "completed")
        (line,) = [line for line in lines if "lacks a right" in line["event"]]
        assert line["missing"] == missing
        assert "NoPermissionError" in line["reason"]
        assert not events([line for line in lines if "lacks a right" not in line["event"]])


async def test_a_connection_that_broke_under_a_command_is_an_outage_and_no_error_of_another_kind(
    ready_queues: FreshRedis,
) -> None:
    broker = Broker(RedisSettings(url=SecretStr(ready_queues.url), prefix=ready_queues.prefix))
    jobs = [ReadyJob(1, "default", 1.0)]
    await broker.push(jobs)
    broker._pusher.connection._writer.transport.abort()
    await asyncio.sleep(0.01)  # until the event loop has closed it
    with contextlib.suppress(BrokerUnavailable):  # or it is noticed in time: as the Python's streams have it
        await broker.push(jobs)
    await broker.push(jobs)
    await broker.close()
