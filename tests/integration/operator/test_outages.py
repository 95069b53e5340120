"""Without PostgreSQL, Redis or the API server: said in the status, nothing scaled down, and all made up for later."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.integration.engine import eventually, opened
from tests.integration.operator.apiserver import ApiServer
from tests.integration.operator.conftest import World, a_world
from tests.integration.operator.test_pools import deployment, pool, replicas
from tests.servers.stores import FreshDatabase, FreshRedis

pytestmark = pytest.mark.asyncio


@pytest.fixture
async def fragile(
    kubernetes: ApiServer, own_database: FreshDatabase, own_ready_queues: FreshRedis
) -> AsyncIterator[World]:
    """A world whose stores may be stopped."""
    async with opened(own_database, own_ready_queues) as engine, a_world(kubernetes, engine) as world:
        yield world


async def test_jobs_made_while_postgresql_is_away_say_why_and_run_later(
    fragile: World, own_postgres: EmbeddedPostgres
) -> None:
    async with fragile.operator():
        await fragile.job("before")
        await fragile.state("before", "pending")
        await asyncio.to_thread(own_postgres.stop)
        await fragile.job("during")
        status = await fragile.state("during", "waiting")
        assert status["conditions"][0]["reason"] == "StoreUnavailable"
        await asyncio.to_thread(own_postgres.start)
        async with fragile.engine.worker(), fragile.engine.scheduler():
            for name in ("before", "during"):
                await fragile.state(name, "completed")


async def test_a_job_deleted_while_postgresql_is_away_is_cancelled_later(
    fragile: World, own_postgres: EmbeddedPostgres
) -> None:
    async with fragile.operator():
        await fragile.job("one", availableAt="2099-01-01T00:00:00Z")
        job_id = (await fragile.state("one", "pending"))["jobID"]
        await asyncio.to_thread(own_postgres.stop)
        await fragile.kubectl("delete", "gqj", "one", "--timeout=60s")
        await asyncio.to_thread(own_postgres.start)
        await fragile.engine.until(job_id, "cancelled")


async def test_without_redis_postgresql_counts_and_the_pool_grows(fragile: World, own_valkey: EmbeddedValkey) -> None:
    async with fragile.operator(scale_seconds=0.3):
        await pool(fragile)
        await replicas(fragile, 0)
        await asyncio.to_thread(own_valkey.stop)
        for _ in range(4):
            await fragile.engine.enqueue("echo")
        await replicas(fragile, 2)

        async def said() -> bool:  # after the Deployment has changed
            conditions = (await fragile.get("gqp", "pool"))["status"]["conditions"]
            return [item["reason"] for item in conditions if item["type"] == "ScalingActive"] == ["RedisAway"]

        await eventually(said)
        await asyncio.to_thread(own_valkey.start)


async def test_a_redis_that_lost_all_takes_no_worker_away(fragile: World, own_valkey: EmbeddedValkey) -> None:
    async with fragile.operator(scale_seconds=0.3):
        await pool(fragile, scaling={"scaleDownWindowSeconds": 0})
        for _ in range(4):
            await fragile.engine.enqueue("echo")
        await replicas(fragile, 2)
        await asyncio.to_thread(own_valkey.stop)
        await asyncio.to_thread(own_valkey.start)
        await asyncio.sleep(2)
        assert (await deployment(fragile))["spec"]["replicas"] == 2


async def test_without_both_stores_nothing_changes(
    fragile: World, own_valkey: EmbeddedValkey, own_postgres: EmbeddedPostgres
) -> None:
    async with fragile.operator(scale_seconds=0.3):
        await pool(fragile, scaling={"scaleDownWindowSeconds": 0})
        for _ in range(4):
            await fragile.engine.enqueue("echo")
        await replicas(fragile, 2)
        await asyncio.to_thread(own_valkey.stop)
        await asyncio.to_thread(own_postgres.stop)
        await asyncio.sleep(3)
        assert (await deployment(fragile))["spec"]["replicas"] == 2
        await asyncio.to_thread(own_postgres.start)
        await asyncio.to_thread(own_valkey.start)
