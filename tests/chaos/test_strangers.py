"""What one row, one handler, one full server does to the jobs of others: nothing."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import redis.asyncio as redis

from tests.chaos.cluster import Cluster
from tests.chaos.test_chaos import assert_nothing_lost, load

pytestmark = pytest.mark.timeout(150)


@asynccontextmanager
async def _locked(cluster: Cluster, job: int) -> AsyncIterator[None]:
    """Somebody's session holds the row of a job."""
    async with await psycopg.AsyncConnection.connect(cluster.database.dsn) as connection:
        await connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (job,))
        yield
        await connection.rollback()


async def test_the_locked_row_of_one_running_job_holds_up_no_other_job(cluster: Cluster) -> None:
    cluster.start("scheduler")
    cluster.start("worker", GOQUEUE_WORKER_CONCURRENCY="50")
    await cluster.workers(1)
    for _ in range(50):
        await cluster.post(seconds=2.0)
    await cluster.until("SELECT count(*) = 50 FROM jobs WHERE status = 'processing'")
    async with _locked(cluster, cluster.accepted[7]):
        await cluster.post(available_at=datetime.now(UTC) + timedelta(seconds=1))
        for _ in range(20):
            await cluster.post()
        await cluster.until("SELECT count(*) = 70 FROM jobs WHERE status = 'completed'", seconds=30)
        assert (await cluster.counts())["processing"] == 1
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert (tally.completed, tally.ran_again) == (71, 0)


async def test_the_locked_row_of_a_job_that_is_due_holds_up_neither_the_others_nor_a_drain(cluster: Cluster) -> None:
    cluster.start("scheduler")
    worker = cluster.start("worker", GOQUEUE_WORKER_GRACE_SECONDS="2")
    await cluster.workers(1)
    for _ in range(3):
        await cluster.post(seconds=60.0)
    locked = await cluster.post(available_at=datetime.now(UTC) + timedelta(seconds=1))
    assert locked is not None
    async with _locked(cluster, locked):
        others = [await cluster.post(available_at=datetime.now(UTC) + timedelta(seconds=1.5)) for _ in range(5)]
        done = "SELECT count(*) = 5 FROM jobs WHERE id = ANY(%s) AND status = 'completed'"
        await cluster.until(done, (others,), seconds=20)
        began = time.monotonic()
        cluster.kill(worker, signal.SIGTERM)
        await asyncio.to_thread(worker.join, 30)
        assert worker.exitcode == 0
        assert time.monotonic() - began < 15, "grace 2 s, and a moment to write"
        assert (await cluster.counts())["processing"] == 0
        async with cluster.pool.connection() as connection:
            cursor = await connection.execute("SELECT count(*) FROM jobs WHERE attempts > 0 AND status = 'pending'")
            assert await cursor.fetchone() == (0,), "jobs handed back are not charged"


async def test_a_handler_that_keeps_the_interpreter_for_longer_than_the_lease_costs_nobody_its_job(
    cluster: Cluster,
) -> None:
    cluster.start("scheduler")
    cluster.start("worker")
    await cluster.workers(1)
    for _ in range(8):
        await cluster.post(seconds=10.0)
    await cluster.until("SELECT count(*) = 8 FROM jobs WHERE status = 'processing'")
    await cluster.post("hold_gil", seconds=8.0)
    tally = await cluster.settle(60)
    assert_nothing_lost(tally)
    assert (tally.completed, tally.ran_again) == (9, 0)
    async with cluster.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT (SELECT max(id) FROM workers), max(attempts), (SELECT count(*) FROM job_attempts) FROM jobs"
        )
        assert await cursor.fetchone() == (1, 1, 0), "the living worker was declared dead"


async def test_a_poison_job_among_fifty_costs_no_innocent_an_attempt(cluster: Cluster) -> None:
    cluster.start("scheduler")
    worker = cluster.start("worker", GOQUEUE_WORKER_CONCURRENCY="50")
    await cluster.workers(1)
    innocents = await cluster.service.enqueue_many([cluster.order(seconds=3.0, max_retries=2) for _ in range(49)])
    cluster.accepted += [one.id for one in innocents]
    await cluster.until("SELECT count(*) = 49 FROM jobs WHERE status = 'processing'")
    poison = await cluster.post("suicide", max_retries=2)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and (await cluster.counts())["failed"] == 0:
        if not worker.is_alive():
            cluster.kills += 1
            worker = cluster.start("worker", GOQUEUE_WORKER_CONCURRENCY="50")
        await asyncio.sleep(0.05)
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == 49, str(tally)
    assert 1 <= tally.kills <= 3, "found out within three deaths"
    async with cluster.pool.connection() as connection:
        cursor = await connection.execute("SELECT id, attempts FROM jobs WHERE status = 'failed'")
        assert await cursor.fetchall() == [(poison, 3)]
        cursor = await connection.execute("SELECT max(attempts) FROM jobs WHERE id <> %s", (poison,))
        assert await cursor.fetchone() == (1,), "an innocent job was charged"


async def test_a_full_redis_holds_up_what_needs_room_in_it_and_loses_nothing(cluster: Cluster) -> None:
    cluster.start("scheduler")
    cluster.start("worker")
    await cluster.workers(1)
    async with redis.Redis.from_url(cluster.ready_queues.url) as admin, load(cluster, each=0.01):
        await cluster.until("SELECT count(*) >= 50 FROM jobs WHERE status = 'completed'")
        used = int((await admin.info("memory"))["used_memory"])
        await admin.config_set("maxmemory-policy", "noeviction")
        await admin.config_set("maxmemory", used // 2)  # full at once
        newest = max(cluster.accepted)
        await cluster.until("SELECT max(id) > %s FROM jobs", (newest + 100,))  # accepted all the same
        await admin.config_set("maxmemory", 0)
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == tally.accepted
