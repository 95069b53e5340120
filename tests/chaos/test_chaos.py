"""Break every part under load. Nothing accepted is lost, stuck or completed twice."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from goqueue_cli.embedded import free_port
from tests.chaos.cluster import Cluster, Tally

pytestmark = pytest.mark.timeout(150)

WORKER_KILLS = 100


def assert_nothing_lost(tally: Tally) -> None:
    assert (tally.lost, tally.stuck, tally.completed_twice) == (0, 0, 0), str(tally)


@contextlib.asynccontextmanager
async def load(cluster: Cluster, each: float = 0.004, seconds: float = 0.01) -> AsyncIterator[None]:
    """Jobs are posted for as long as the block lasts."""
    stop = asyncio.Event()
    posting = asyncio.create_task(cluster.post_until(stop, each, seconds))
    try:
        yield
    finally:
        stop.set()
        await posting


async def test_workers_killed_a_hundred_times(cluster: Cluster) -> None:
    cluster.start("scheduler")
    workers = [cluster.start("worker") for _ in range(4)]
    await cluster.workers(4)
    chance = random.Random(20)
    async with load(cluster, each=0.015, seconds=0.02):
        while cluster.kills < WORKER_KILLS:
            await asyncio.sleep(chance.uniform(0.05, 0.3))
            victim = chance.randrange(len(workers))
            await asyncio.to_thread(cluster.kill, workers[victim])
            workers[victim] = cluster.start("worker")
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == tally.accepted


async def test_a_frozen_worker_that_wakes_after_its_lease_writes_nothing(cluster: Cluster) -> None:
    cluster.start("scheduler")
    frozen = cluster.start("worker")
    await cluster.workers(1)
    async with load(cluster, each=0.01, seconds=0.3):
        await cluster.until("SELECT count(*) >= 5 FROM jobs WHERE status = 'processing'")
        cluster.kill(frozen, signal.SIGSTOP)
        cluster.start("worker")
        # Buried: only the new one is left.
        await cluster.until("SELECT count(*) = 1 AND min(id) > 1 FROM workers")
        await cluster.until("SELECT count(*) >= 5 FROM job_attempts WHERE outcome = 'rescued'")
        cluster.kill(frozen, signal.SIGCONT)
        await cluster.workers(2)  # it registered anew, and serves again
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == tally.accepted


async def test_redis_flushed_killed_and_away_for_twenty_seconds(cluster: Cluster) -> None:
    valkey = cluster.ready_queues.server
    cluster.start("scheduler")
    cluster.start("worker")
    await cluster.workers(1)
    async with load(cluster, each=0.02):
        for _ in range(3):
            await cluster.until("SELECT count(*) >= 20 FROM jobs WHERE status = 'completed'")
            await cluster.service.broker._redis.flushall()
            await asyncio.sleep(0.5)
        await asyncio.to_thread(valkey.kill)
        await asyncio.to_thread(valkey.start)
        await asyncio.sleep(1)
        await asyncio.to_thread(valkey.kill)
        before = len(cluster.accepted)
        await asyncio.sleep(20)  # the outage itself
        assert len(cluster.accepted) > before + 20, "jobs are accepted while Redis is away"
        await asyncio.to_thread(valkey.start)
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == tally.accepted


async def test_postgres_shut_down_at_once_and_restarted(cluster: Cluster) -> None:
    postgres = cluster.database.server
    cluster.start("scheduler")
    cluster.start("worker")
    cluster.start("worker")
    await cluster.workers(2)
    async with load(cluster, seconds=0.05):
        for _ in range(3):
            await cluster.until("SELECT count(*) >= 20 FROM jobs WHERE status = 'completed'")
            await asyncio.sleep(0.5)
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == tally.accepted


async def test_the_api_dies_between_commit_and_push(cluster: Cluster) -> None:
    cluster.start("scheduler")
    cluster.start("worker")
    await cluster.workers(1)
    for _ in range(3):
        port = free_port()
        api = cluster.start("api", GOQUEUE_API_PORT=str(port), GOQUEUE_API_HEALTH_PORT="0", CHAOS_DIE_BEFORE_PUSH="1")
        order = {"queue": "default", "type": "work", "payload": {"seconds": 0}}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and api.is_alive():
                try:
                    await client.get("/livez")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
            with contextlib.suppress(httpx.TransportError):
                await client.post("/jobs/create", json=order)
        await asyncio.to_thread(api.join, 60)
        assert api.exitcode == -signal.SIGKILL, "it did not die before its push"
        cluster.kills += 1
    async with cluster.pool.connection() as connection:
        cursor = await connection.execute("SELECT id FROM jobs")
        cluster.accepted = [row[0] for row in await cursor.fetchall()]
    assert len(cluster.accepted) == 3, "every commit stood before its death"
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == 3


async def test_the_leading_scheduler_is_killed_again_and_again(cluster: Cluster) -> None:
    schedulers = [cluster.start("scheduler") for _ in range(2)]
    cluster.start("worker")
    await cluster.workers(1)
    async with load(cluster, each=0.02):
        for _ in range(4):
            await cluster.until("SELECT count(*) = 1 FROM leaders WHERE renewed_at > now() - interval '2 seconds'")
            async with cluster.pool.connection() as connection:
                cursor = await connection.execute("SELECT holder FROM leaders")
                row = await cursor.fetchone()
            leader = next(s for s in schedulers if row and f"-{s.pid}-" in row[0])
            await cluster.post(available_at=datetime.now(UTC) + timedelta(seconds=0.5))
            await asyncio.to_thread(cluster.kill, leader)
            schedulers.remove(leader)
            schedulers.append(cluster.start("scheduler"))
            pid = f"%-{leader.pid}-%"
            await cluster.until("SELECT count(*) = 1 FROM leaders WHERE holder NOT LIKE %s", (pid,))
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == tally.accepted


async def test_a_job_that_kills_its_worker_ends_in_failed(cluster: Cluster) -> None:
    cluster.start("scheduler")
    workers = [cluster.start("worker")]
    await cluster.workers(1)
    poison = await cluster.post("suicide", max_retries=2)
    for _ in range(40):
        await cluster.post()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (await cluster.counts())["failed"] == 0:
        for index, worker in enumerate(workers):
            if not worker.is_alive():
                cluster.kills += 1
                workers[index] = cluster.start("worker")
        await asyncio.sleep(0.05)
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == tally.accepted - 1
    async with cluster.pool.connection() as connection:
        cursor = await connection.execute("SELECT id, status, attempts FROM jobs WHERE status = 'failed'")
        assert await cursor.fetchall() == [(poison, "failed", 3)]


async def test_sigterm_during_long_jobs_costs_no_job_an_attempt(cluster: Cluster) -> None:
    cluster.start("scheduler")
    first = cluster.start("worker", GOQUEUE_WORKER_GRACE_SECONDS="3")
    await cluster.workers(1)
    for seconds in (10.0, 10.0, 10.0, 0.5, 0.5, 0.5):  # the long ones outlast the grace, the short ones do not
        await cluster.post(seconds=seconds, max_retries=0)
    # All have begun; on a busy machine a short one may have ended before the others began.
    await cluster.until("SELECT count(*) = 0 FROM jobs WHERE status = 'pending'")
    cluster.kill(first, signal.SIGTERM)
    await asyncio.to_thread(first.join, 60)
    assert first.exitcode == 0
    async with cluster.pool.connection() as connection:
        cursor = await connection.execute("SELECT status, attempts, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1")
        assert await cursor.fetchall() == [("completed", 1, 3), ("pending", 0, 3)]
    cluster.start("worker")
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert tally.completed == tally.accepted == 6
    async with cluster.pool.connection() as connection:
        cursor = await connection.execute("SELECT max(attempts) FROM jobs")
        assert await cursor.fetchone() == (1,)
