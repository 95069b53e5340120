"""The way to PostgreSQL loses answers, breaks, or leads to a standby that lost the newest commits."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from goqueue.service import JobService
from goqueue.settings import DatabaseSettings
from goqueue.store.connect import Database
from tests.chaos.cluster import Cluster
from tests.chaos.test_chaos import assert_nothing_lost
from tests.servers.link import Link
from tests.servers.standby import run_standby

pytestmark = pytest.mark.timeout(150)

LOSSES = 60
JOBS = 15_000


@pytest.fixture
async def link(cluster: Cluster) -> AsyncIterator[Link]:
    """The way to the cluster's PostgreSQL for processes that are started with `POSTGRES_PORT` as its port."""
    async with Link(cluster.database.server.port).run() as link:
        yield link


async def test_lost_answers_run_no_job_twice_in_a_worker_that_lives(cluster: Cluster, link: Link) -> None:
    cluster.start("scheduler")
    # A long lease: on a busy machine no heartbeat may get through between two cuts, and a fenced worker starts anew.
    worker = cluster.start(
        "worker",
        POSTGRES_PORT=str(link.port),
        GOQUEUE_LEASE_SECONDS="300",
        GOQUEUE_WORKER_CONCURRENCY="20",
    )
    await cluster.workers(1)
    made = await cluster.service.enqueue_many([cluster.order() for _ in range(JOBS)])
    cluster.accepted = [one.id for one in made]
    chance = random.Random(8)
    losses = 0
    while (await cluster.counts())["completed"] < JOBS and losses < LOSSES:
        await asyncio.sleep(chance.uniform(0.02, 0.1))
        await link.lose_answers(0.01, cut=0.05)
        losses += 1
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert link.lost > 0, "no answer was lost"
    assert worker.is_alive()
    assert tally.ran_again == 0, str(tally)
    async with cluster.pool.connection() as connection:
        cursor = await connection.execute("SELECT max(attempts), (SELECT count(*) FROM workers) FROM jobs")
        assert await cursor.fetchone() == (1, 1)


async def test_a_claim_whose_answer_vanishes_in_an_outage_longer_than_the_fence_is_run(
    cluster: Cluster, link: Link
) -> None:
    lease = 8.0
    engine = {"GOQUEUE_LEASE_SECONDS": str(lease)}
    cluster.start("scheduler", **engine)
    engine["GOQUEUE_WORKER_CONCURRENCY"] = "1"  # a worker with a free slot would wait for what it gave back itself
    first = cluster.start("worker", **engine, POSTGRES_PORT=str(link.port), GOQUEUE_WORKER_QUEUES="default")
    await cluster.workers(1)
    warm = await cluster.service.enqueue_many([cluster.order() for _ in range(300)])  # it opens several connections
    await cluster.until("SELECT bool_and(status = 'completed') FROM jobs")
    cluster.accepted = [one.id for one in warm]
    cluster.start("worker", **engine)
    await cluster.workers(2)
    # The second worker has no slot until the first is fenced; then it takes what the first gives back to Redis, and
    # leaves it nothing to claim.
    await cluster.post(seconds=3.0, queue="email")
    await cluster.until("SELECT bool_or(status = 'processing') FROM jobs")
    # Beyond the fence (0.7 of the lease) and well short of the lease: nobody buries this worker.
    losing = asyncio.create_task(link.lose_answers(0.3, cut=0.8 * lease - 0.3))
    await asyncio.sleep(0)  # from here on answers vanish
    await cluster.post()
    # Claimed, and the worker does not know.
    await cluster.until("SELECT count(*) = 2 FROM jobs WHERE status = 'processing'", seconds=2)
    await losing
    await cluster.until("SELECT bool_and(status = 'completed') FROM jobs", seconds=30)
    assert first.is_alive()
    assert link.lost > 0, "no answer was lost"
    tally = await cluster.settle()
    assert_nothing_lost(tally)
    assert (tally.completed, tally.accepted, tally.ran_again) == (302, 302, 0)
    async with cluster.pool.connection() as connection:
        cursor = await connection.execute("SELECT max(attempts), (SELECT count(*) FROM workers) FROM jobs")
        assert await cursor.fetchone() == (1, 2), "the worker was buried"


@asynccontextmanager
async def _reached_by(cluster: Cluster, link: Link) -> AsyncIterator[None]:
    """The test's own enqueues and questions go through the link."""
    settings = DatabaseSettings(max_retries=0)
    pool = Database(make_conninfo(cluster.database.dsn, port=link.port), settings)
    await pool.open(settings)
    former, cluster.pool = cluster.pool, pool
    service, cluster.service = cluster.service, JobService(pool, cluster.service.broker)
    try:
        yield
    finally:
        await asyncio.to_thread(cluster.stop_all)
        await cluster.service.close()
        cluster.pool, cluster.service = former, service
        await pool.close()


async def test_after_a_failover_that_lost_a_tail_no_worker_ends_the_job_of_another(
    cluster: Cluster, link: Link, tmp_path: Path
) -> None:
    primary = cluster.database.server
    many, old, new = 60, 4.0, 10.0
    async with asyncio.timeout(120):
        with run_standby(tmp_path / "standby", primary) as standby:
            async with _reached_by(cluster, link):
                slow = {
                    "POSTGRES_PORT": str(link.port),
                    "GOQUEUE_LEASE_SECONDS": "30",  # the failover is quicker: the old worker goes on
                    "GOQUEUE_WORKER_CONCURRENCY": str(many),
                }
                cluster.start("scheduler", POSTGRES_PORT=str(link.port))
                first = cluster.start("worker", **slow)
                await cluster.workers(1)
                await asyncio.to_thread(standby.catch_up)
                await asyncio.to_thread(standby.stop_following)
                lost = await cluster.service.enqueue_many([cluster.order(seconds=old) for _ in range(many)])
                await cluster.until("SELECT count(*) = %s FROM jobs WHERE status = 'processing'", (many,))
                await link.cut()
                await asyncio.to_thread(primary.kill)
                await asyncio.to_thread(standby.promote)
                link.lead_to(standby.server.port)
                second = cluster.start("worker", **slow)
                await cluster.workers(2)
                made = await cluster.service.enqueue_many([cluster.order(seconds=new) for _ in range(many)])
                cluster.accepted = [one.id for one in made]
                again = {one.id for one in lost} & set(cluster.accepted)
                assert len(again) > many // 4, "ids of the lost tail must come again, else this shows nothing"
                # The old worker is full, so the new jobs are the other's.
                await cluster.until("SELECT count(*) = %s FROM jobs WHERE status = 'processing'", (many,))
                await _effects(cluster, first.pid, many)
                name = f"%-{first.pid}"
                await cluster.until("SELECT bool_and(busy = 0) FROM workers WHERE name LIKE %s", (name,))
                counts = await cluster.counts()
                assert counts == Counter(processing=many), f"jobs of the second worker ended by the first: {counts}"
                await _effects(cluster, second.pid, many)
                tally = await cluster.settle()
                assert_nothing_lost(tally)
                assert tally.completed == many


async def _effects(cluster: Cluster, pid: int | None, count: int) -> None:
    """Wait until the handlers of a process have had that many effects."""
    while True:
        lines = [line.split() for line in cluster.sink.read_text().splitlines()]
        if sum(line[2] == str(pid) for line in lines) >= count:
            return
        await asyncio.sleep(0.05)  # a file gives no sign
