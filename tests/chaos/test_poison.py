"""A job that kills its worker, among fifty that do not."""

import asyncio

import pytest

from tests.chaos.cluster import Cluster

pytestmark = pytest.mark.timeout(420)

INNOCENT = 50


async def test_a_poison_job_is_known_after_two_deaths_and_costs_its_neighbours_nothing(cluster: Cluster) -> None:
    cluster.start("scheduler")
    orders = [cluster.order(seconds=0.5, max_retries=0) for _ in range(INNOCENT)]
    orders.insert(INNOCENT // 2, cluster.order("suicide", max_retries=0))
    made = await cluster.service.enqueue_many(orders)
    poison = made[INNOCENT // 2].id
    deaths = 0
    while deaths < 2:
        worker = cluster.start("worker", GOQUEUE_WORKER_CONCURRENCY="60")
        await asyncio.to_thread(worker.join, 60)
        assert worker.exitcode == -9
        deaths += 1
        await cluster.until("SELECT deaths = %s AND status = 'pending' FROM jobs WHERE id = %s", (deaths, poison))
    # What it has become clear of: a worker that knows suspects runs it in a process of its own from here on.
    await cluster.service.cancel(poison)
    cluster.start("worker", GOQUEUE_WORKER_CONCURRENCY="60")
    # The neighbours are suspects, too: fifty processes start, each with its imports.
    await cluster.until("SELECT bool_and(finished_at IS NOT NULL) FROM jobs", seconds=240)
    async with cluster.pool.connection() as connection:
        rows = await (
            await connection.execute(
                "SELECT status, attempts, max(deaths), count(*) FROM jobs WHERE id <> %s GROUP BY 1, 2", (poison,)
            )
        ).fetchall()
    [[status, attempts, most, count]] = rows
    assert (status, attempts, count) == ("completed", 1, INNOCENT)
    assert most <= 2
