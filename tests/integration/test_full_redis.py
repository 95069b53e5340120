"""A Redis that takes no more: one queue's backlog gives way, and the jobs of the others run in time."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from goqueue import JobContext
from goqueue.settings import RedisSettings
from goqueue.store import attempts
from goqueue_cli.embedded import EmbeddedValkey
from tests.integration.engine import Engine, claim, connected, empty, eventually
from tests.servers.stores import FreshDatabase

BACKLOG = 20_000


@pytest.fixture
async def engine(own_valkey: EmbeddedValkey, database: FreshDatabase) -> AsyncIterator[Engine]:
    """An engine with a Valkey of its own."""
    redis = RedisSettings(url=SecretStr(own_valkey.url))
    async with connected(database.dsn, redis) as engine:
        async with engine.database.connection() as connection:
            await empty(connection)
        yield engine


async def fill_with_backlog(engine: Engine) -> None:
    """Jobs of a queue without workers, until nothing else fits."""
    await engine.execute(
        "INSERT INTO jobs (queue, type, payload) SELECT 'other', 'note', '{}' FROM generate_series(1, %s)", BACKLOG
    )
    redis = engine.broker._redis

    async def pushed() -> bool:
        return int(await redis.zcard(engine.broker._ready("other"))) == BACKLOG

    await eventually(pushed)
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", (await redis.info("memory"))["used_memory"])


async def test_scheduled_and_rescued_jobs_of_a_healthy_queue_run_while_a_backlog_fills_redis(engine: Engine) -> None:
    async def note(payload: Any, job: JobContext) -> None: ...

    engine.handle("note", note)
    redis = engine.broker._redis
    async with engine.scheduler(reconcile_seconds=3600) as scheduler:
        await engine.leads(scheduler)
        await fill_with_backlog(engine)
        async with engine.worker(queues=["default"]):
            scheduled = await engine.enqueue("note", available_at=datetime.now(UTC) + timedelta(seconds=1))
            orphan = await engine.enqueue("note", available_at=datetime.now(UTC) + timedelta(hours=1))
            async with engine.database.connection() as connection:
                await connection.execute("UPDATE jobs SET available_at = now() WHERE id = %s", (orphan,))
                dead = await attempts.register(connection, "dead", ["default"], 1)
                assert await claim(connection, dead, [orphan])
            for job_id in (scheduled, orphan):
                await engine.until(job_id, "completed")
        depth = (await engine.broker.depths(["other"]))["other"].depth
        assert await redis.zcard(engine.broker._ready("other")) < BACKLOG
        await redis.config_set("maxmemory", 0)
        async with engine.worker(queues=["other"], concurrency=100):

            async def done() -> bool:
                rows = await engine.rows("SELECT count(*) FROM jobs WHERE status = 'completed'")
                return bool(rows[0][0] == BACKLOG + 2)

            await eventually(done)
        assert depth == BACKLOG
