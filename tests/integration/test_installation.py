"""One Redis, several databases: who has the ready queues keeps them, and nobody else begins to work on them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis.asyncio as aioredis
from pydantic import SecretStr

from goqueue import AsyncClient
from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, ForeignBroker
from goqueue.gauges import watch_stores
from goqueue.job import ReadyJob
from goqueue.settings import DatabaseSettings, RedisSettings
from goqueue.store import installation
from goqueue.store.connect import Database
from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.integration.console import Console
from tests.integration.engine import eventually
from tests.servers.stores import FreshDatabase, FreshRedis, fresh_database

OURS, THEIRS = "6d5b4a3c-0000-4000-8000-000000000001", "6d5b4a3c-0000-4000-8000-000000000002"
KEY = "{goqueue}:installation"
JOB = ReadyJob(1, "default", 1.0)


@contextlib.asynccontextmanager
async def broker_of(valkey: EmbeddedValkey, owner: str | None) -> AsyncIterator[Broker]:
    broker = Broker(RedisSettings(url=SecretStr(valkey.url)))
    broker.installation = owner
    try:
        yield broker
    finally:
        await broker.close()


@pytest.fixture
async def admin(own_valkey: EmbeddedValkey) -> AsyncIterator[Any]:
    async with aioredis.Redis.from_url(own_valkey.url, decode_responses=True) as client:
        yield client


async def test_each_database_has_an_id_of_its_own_that_migrating_again_keeps(bare_database: FreshDatabase) -> None:
    from goqueue.store import migrate

    migrate.upgrade(bare_database.dsn)
    with psycopg.connect(bare_database.dsn, autocommit=True) as connection:
        first = connection.execute("SELECT id FROM installation").fetchall()
        migrate.upgrade(bare_database.dsn)
        assert connection.execute("SELECT id FROM installation").fetchall() == first
        migrate.downgrade(bare_database.dsn, "0004")
        migrate.upgrade(bare_database.dsn)
        again = connection.execute("SELECT id FROM installation").fetchall()
    assert (len(first), len(again)) == (1, 1)
    assert first != again


async def test_the_first_to_come_has_the_ready_queues_and_every_command_of_another_is_refused(
    own_valkey: EmbeddedValkey, admin: Any
) -> None:
    async with broker_of(own_valkey, OURS) as ours, broker_of(own_valkey, THEIRS) as theirs:
        await ours.push([JOB])
        assert await admin.get(KEY) == OURS
        for refused in (theirs.fetch(["default"], 1), theirs.push([JOB]), theirs.check_owner(), theirs.epoch()):
            with pytest.raises(ForeignBroker, match=r"GOQUEUE_REDIS_PREFIX=\{goqueue\}.*database number"):
                await refused
        assert [job.id for job in await ours.fetch(["default"], 1)] == [1]
        assert await admin.get(KEY) == OURS


async def test_a_command_costs_nothing_more_and_a_connection_one_get(own_valkey: EmbeddedValkey, admin: Any) -> None:
    async with broker_of(own_valkey, OURS) as broker:
        for _ in range(2):  # until each kind of command has its connection
            await broker.push([JOB])
            await broker.fetch(["default"], 1)
        await admin.config_resetstat()
        for _ in range(20):
            await broker.push([JOB])
            await broker.fetch(["default"], 1)
        assert "cmdstat_get" not in await admin.info("commandstats")
        before = (await admin.info("stats"))["total_connections_received"]
        async with broker_of(own_valkey, OURS) as another:
            await another.ping()
        stats = await admin.info("all")
        assert stats["total_connections_received"] - before == stats["cmdstat_get"]["calls"] == 1


async def test_after_a_loss_of_its_contents_redis_is_marked_again_by_whom_it_served(
    own_valkey: EmbeddedValkey, admin: Any
) -> None:
    async with broker_of(own_valkey, OURS) as ours:
        await ours.check_owner()
        await admin.flushall()
        await ours.begin_epoch()  # as the dispatcher does where the mark of its epoch is gone
        assert await admin.get(KEY) == OURS
        own_valkey.stop()
        own_valkey.start()
        await ours.ping()  # on a new connection
        async with aioredis.Redis.from_url(own_valkey.url) as fresh:
            assert await fresh.get(KEY) == OURS.encode()


async def test_who_comes_too_late_after_a_loss_ends(
    own_valkey: EmbeddedValkey, admin: Any, database: FreshDatabase
) -> None:
    pool = Database(database.dsn, DatabaseSettings(max_retries=0))
    async with broker_of(own_valkey, OURS) as ours, broker_of(own_valkey, THEIRS) as theirs:
        await ours.push([JOB])
        await admin.flushall()
        await theirs.push([JOB])
        with pytest.raises(ForeignBroker):
            await ours.begin_epoch()
        with pytest.raises(ForeignBroker):
            await asyncio.wait_for(watch_stores(pool, ours), 10)


async def test_a_redis_that_is_full_or_grants_no_get_is_no_strangers(own_valkey: EmbeddedValkey, admin: Any) -> None:
    await admin.zadd("{goqueue}:ready:default", {"000000000007": 1})
    await admin.config_set("maxmemory", "1")
    async with broker_of(own_valkey, OURS) as broker:
        assert [job.id for job in await broker.fetch(["default"], 1)] == [7]
    await admin.config_set("maxmemory", "0")
    await admin.set(KEY, THEIRS)
    await admin.execute_command("ACL", "SETUSER", "jobs", "on", ">secret", "~*", "&*", "+@all", "-get")
    url = SecretStr(f"redis://jobs:secret@{own_valkey.host}:{own_valkey.port}/0")
    broker = Broker(RedisSettings(url=url))
    broker.installation = OURS
    await broker.ping()
    await broker.close()


async def test_a_client_of_another_installation_leaves_its_jobs_to_the_dispatcher(
    own_valkey: EmbeddedValkey, admin: Any, database: FreshDatabase
) -> None:
    await admin.set(KEY, THEIRS)
    settings = RedisSettings(url=SecretStr(own_valkey.url))
    async with AsyncClient(database.dsn, settings, queues=["webhooks"]) as client:
        assert client.service.broker.installation is not None
        job = await client.enqueue("send_webhook", {"url": "https://example.org", "method": "POST", "body": {}})
        assert job > 0
        with pytest.raises(BrokerUnavailable, match="another installation"):
            await client.service.broker.ping()
    assert await admin.keys("{goqueue}:ready:*") == []


@pytest.fixture
def other_database(postgres_server: EmbeddedPostgres) -> Iterator[FreshDatabase]:
    """A second installation's. Copies of one template have one id: this one gets its own."""
    with fresh_database(postgres_server) as fresh:
        with psycopg.connect(fresh.dsn, autocommit=True) as connection:
            connection.execute("UPDATE installation SET id = gen_random_uuid()")
        yield fresh


@pytest.mark.parametrize("process", ["worker", "scheduler", "api"])
async def test_a_process_of_another_installation_ends_with_one_line(
    own_ready_queues: FreshRedis, database: FreshDatabase, other_database: FreshDatabase, tmp_path: Path, process: str
) -> None:
    pool = Database(database.dsn, DatabaseSettings(max_retries=0))
    await pool.open(DatabaseSettings(max_retries=0))
    async with pool.connection() as connection:
        owner = await installation.read(connection)
    await pool.close()
    async with broker_of(own_ready_queues.server, owner) as ours:
        await ours.push([JOB])
        console = Console(tmp_path)
        environment = {
            **other_database.environment,
            **own_ready_queues.environment,
            f"GOQUEUE_{process.upper()}_HEALTH_PORT": "0",
            "GOQUEUE_API_AUTH": "off",
            "GOQUEUE_API_PORT": "0",
        }
        ended = await asyncio.wait_for(console(process, **environment), 30)
        assert ended.code == 1
        assert "GOQUEUE_REDIS_PREFIX" in ended.err
        assert "Traceback" not in ended.err
        assert [job.id for job in await ours.fetch(["default"], 1)] == [1]


@pytest.mark.parametrize(("process", "code"), [("worker", 1), ("api", 0)])
async def test_a_process_whose_ready_queues_become_anothers_ends_and_says_why(
    own_ready_queues: FreshRedis, database: FreshDatabase, admin: Any, tmp_path: Path, process: str, code: int
) -> None:
    environment = {
        **database.environment,
        **own_ready_queues.environment,
        f"GOQUEUE_{process.upper()}_HEALTH_PORT": "0",
        "GOQUEUE_API_AUTH": "off",
        "GOQUEUE_API_PORT": "0",
    }
    running = await Console(tmp_path).start(process, **environment)

    async def marked() -> bool:
        assert running.returncode is None
        return await admin.get(KEY) is not None

    await eventually(marked, 40)
    await admin.set(KEY, THEIRS)
    out, err = await asyncio.wait_for(running.communicate(), 40)
    assert running.returncode == code
    assert "GOQUEUE_REDIS_PREFIX" in (out + err).decode()
    assert "Traceback" not in (out + err).decode()


async def test_queues_that_nobody_uses_any_more_can_be_adopted(
    own_ready_queues: FreshRedis, database: FreshDatabase, admin: Any, tmp_path: Path
) -> None:
    await admin.set(KEY, THEIRS)
    environment = {**database.environment, **own_ready_queues.environment}
    console = Console(tmp_path)
    first = await console("redis", "adopt", **environment)
    assert (first.code, f"before: {THEIRS}" in first.out) == (0, True)
    assert (await admin.get(KEY)) in first.out
    assert (await console("redis", "adopt", **environment)).out.strip() == "unchanged"
