"""`python -m benchmarks.listings [JOBS]`: how long a list takes by each filter, in a table of 4 million jobs.

The table is measured as a bulk load leaves it, without statistics, and again after ANALYZE;
docs/decisions/0001-indexes.md has the figures.
"""

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from goqueue.job import JobFilter
from goqueue.lifecycle import JobStatus
from goqueue.settings import DatabaseSettings
from goqueue.store import listing, migrate
from goqueue.store.connect import Database
from goqueue_cli.embedded import EmbeddedPostgres

JOBS: Final = 4_000_000
PENDING: Final = 20_000
STEP: Final = 250_000
START: Final = datetime(2026, 11, 1, tzinfo=UTC)
EVERY: Final = 0.1
"""Seconds between two jobs."""

_FILL: Final = """
INSERT INTO jobs (queue, type, payload, status, created_at, available_at, started_at, finished_at, failed_at)
SELECT CASE WHEN i %% 10 = 0 THEN 'email' ELSE 'default' END, CASE WHEN i %% 100000 = 7 THEN 'rare' ELSE 'noop' END,
    jsonb_build_object('pad', repeat('x', 200)), status, made, made, ended, ended,
    CASE WHEN status = 'failed' THEN ended END
FROM generate_series(%(first)s, %(last)s) AS i
    CROSS JOIN LATERAL (SELECT CASE WHEN i > %(pending)s THEN 'pending' WHEN i %% 200000 = 13 THEN 'cancelled'
        WHEN i %% 1000 = 5 THEN 'failed' ELSE 'completed' END AS status) AS chosen
    CROSS JOIN LATERAL (SELECT %(start)s + make_interval(secs => i * %(every)s) AS made) AS times
    CROSS JOIN LATERAL (SELECT CASE WHEN status <> 'pending' THEN made + interval '2 s' END AS ended) AS ends
ORDER BY i
"""


def _filters(jobs: int) -> dict[str, dict[str, Any]]:
    end = START + timedelta(seconds=jobs * EVERY)
    return {
        "queue": {},
        **{f"status={status}": {"status": status} for status in JobStatus},
        "type, one of 100,000": {"type": "rare"},
        "created_after, the last hour": {"created_after": end - timedelta(hours=1)},
        "created_after, in the future": {"created_after": end + timedelta(days=1)},
        "created_before, newest first": {"created_before": START + timedelta(minutes=1), "newest_first": True},
    }


def _fill(dsn: str, jobs: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for first in range(1, jobs + 1, STEP):
            last = min(first + STEP - 1, jobs)
            values = {"first": first, "last": last, "pending": jobs - PENDING, "start": START, "every": EVERY}
            connection.execute(_FILL, values)
        connection.execute("UPDATE dispatch_floor SET id = %s", (jobs - PENDING,))


async def _measure(dsn: str, jobs: int) -> None:
    settings = DatabaseSettings(max_retries=0)
    database = Database(dsn, settings)
    await database.open(settings)
    async with database.connection() as connection:
        for name, more in _filters(jobs).items():
            began = time.monotonic()
            page = await listing.search(connection, JobFilter(queue="default", **more), seconds=1.5)
            short = page.next is not None and len(page.jobs) < 100
            print(f"{name:30} {time.monotonic() - began:6.2f} s{', goes on' if short else ''}", flush=True)
    await database.close()


def main() -> None:
    """Fill, and measure twice."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    settings = {"autovacuum": "off", "shared_buffers": "512MB", "max_wal_size": "8GB"}
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "pg", ephemeral=True, fsync=False, settings=settings) as postgres,
    ):
        migrate.upgrade(postgres.dsn)
        _fill(postgres.dsn, jobs)
        for title, statement in (("never analyzed", "SELECT"), ("analyzed", "ANALYZE jobs")):
            with psycopg.connect(postgres.dsn, autocommit=True) as connection:
                connection.execute(statement)
            print(f"--- {title}")
            asyncio.run(_measure(postgres.dsn, jobs))


if __name__ == "__main__":
    main()
