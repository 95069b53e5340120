"""What a job costs in transactions, Redis commands and write-ahead log: counts that do not depend on the machine.

The bounds are about twice what was seen when they were set, so they break on a change of kind, not on noise.
"""

from dataclasses import dataclass
from typing import Any

from goqueue import JobContext
from goqueue.job import NewJob
from tests.integration.engine import Engine, eventually

JOBS = 5000


@dataclass
class Spent:
    """Totals so far."""

    transactions: int
    commands: int
    wal_bytes: int


async def spent(engine: Engine) -> Spent:
    await engine.execute("SELECT pg_stat_force_next_flush()")
    rows = await engine.rows(
        "SELECT xact_commit, pg_current_wal_lsn() - '0/0' FROM pg_stat_database WHERE datname = current_database()"
    )
    statistics = await engine.broker._redis.info("commandstats")
    return Spent(int(rows[0][0]), sum(command["calls"] for command in statistics.values()), int(rows[0][1]))


def since(before: Spent, after: Spent) -> Spent:
    return Spent(
        after.transactions - before.transactions,
        after.commands - before.commands,
        (after.wal_bytes - before.wal_bytes) // JOBS,
    )


async def test_a_job_of_a_bulk_costs_a_two_hundredth_of_a_statement_and_five_hundred_bytes_of_log(
    engine: Engine,
) -> None:
    order = NewJob("default", "nothing", {"pad": "x" * 200})
    await engine.service.enqueue_many([order] * 1000)  # connects, and extends the table
    await engine.service.close()
    await engine.execute("CHECKPOINT")
    before = await spent(engine)
    for _ in range(JOBS // 1000):
        await engine.service.enqueue_many([order] * 1000)
    await engine.service.close()
    per_job = since(before, await spent(engine))
    print(f"{JOBS} jobs: {per_job}")
    assert per_job.transactions < JOBS / 200
    assert per_job.commands < JOBS / 200
    assert per_job.wal_bytes < 900


async def test_a_drained_job_costs_a_hundredth_of_a_statement_and_eight_hundred_bytes_of_log(engine: Engine) -> None:
    async def nothing(payload: Any, job: JobContext) -> None: ...

    engine.handle("nothing", nothing)
    order = NewJob("default", "nothing", {"pad": "x" * 200})
    ids = [made.id for _ in range(JOBS // 1000) for made in await engine.service.enqueue_many([order] * 1000)]
    await engine.service.close()
    # Full-page images after a checkpoint would count as the jobs' own; write them before the count begins.
    await engine.execute("CHECKPOINT")
    await engine.execute("UPDATE jobs SET updated_at = updated_at")
    before = await spent(engine)
    async with engine.worker(concurrency=500):

        async def done() -> bool:
            rows = await engine.rows("SELECT count(*) FROM jobs WHERE status = 'completed'")
            return bool(rows[0][0] == len(ids))

        await eventually(done, 30)
        after = await spent(engine)
    per_job = since(before, after)
    print(f"{JOBS} jobs: {per_job}")
    assert per_job.transactions < JOBS / 100
    assert per_job.commands < JOBS / 100
    assert per_job.wal_bytes < 800
