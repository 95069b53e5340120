"""Listings of large tables: what a walk in chunks shows is what one look at the whole table would."""

import dataclasses
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from goqueue.access import Reach
from goqueue.job import JobFilter
from goqueue.lifecycle import JobStatus
from goqueue.store import listing
from goqueue.store.connect import Connection
from tests.integration.engine import Engine

START = datetime(2026, 11, 1, tzinfo=UTC)
COUNT = 240

FILL = """
INSERT INTO jobs (queue, type, payload, tenant, status, created_at, available_at, started_at, finished_at, failed_at,
    dispatch_at, deleted_at)
SELECT CASE WHEN i %% 7 = 0 THEN 'other' ELSE 'default' END, CASE WHEN i %% 90 = 3 THEN 'rare' ELSE 'noop' END, '{}',
    CASE WHEN i %% 11 = 0 THEN 'acme' END, status, made, made,
    CASE WHEN status <> 'pending' THEN ended - interval '1 s' END, CASE WHEN final THEN ended END,
    CASE WHEN status = 'failed' THEN ended END, CASE WHEN NOT final AND i < %(floor)s THEN made END,
    CASE WHEN i %% 50 = 1 THEN ended END
FROM generate_series(1, %(count)s) AS i
    CROSS JOIN LATERAL (SELECT CASE WHEN i > %(floor)s AND i %% 2 = 0 OR i %% 60 = 5 THEN 'pending'
        WHEN i %% 75 = 8 THEN 'processing' WHEN i %% 33 = 2 THEN 'failed' WHEN i %% 120 = 6 THEN 'cancelled'
        ELSE 'completed' END AS status) AS chosen
    CROSS JOIN LATERAL (SELECT status IN ('completed', 'failed', 'cancelled') AS final,
        -- A job of a transaction that was long open has an older time than its neighbours.
        %(start)s + make_interval(mins => CASE WHEN i %% 40 = 7 THEN i / 2 ELSE i END) AS made,
        %(start)s + make_interval(mins => i + 3) AS ended) AS times
ORDER BY i
"""

FILTERS: list[dict[str, Any]] = [
    {},
    *({"status": status} for status in JobStatus),
    {"type": "rare"},
    {"type": "absent"},
    {"created_after": START + timedelta(minutes=190)},
    {"created_after": START + timedelta(minutes=100), "created_before": START + timedelta(minutes=200)},
    {"created_before": START + timedelta(minutes=50)},
    {"created_after": START + timedelta(days=9)},
    {"status": JobStatus.PENDING, "created_after": START + timedelta(minutes=100)},
    {"status": JobStatus.FAILED, "type": "noop"},
    {"status": JobStatus.PENDING, "reach": Reach("acme")},
    {"reach": Reach("acme")},
    {"reach": Reach(None, frozenset({"default"}), frozenset({"noop"}))},
]


@pytest.fixture(params=[0, 180])
async def connection(request: pytest.FixtureRequest, engine: Engine) -> AsyncIterator[Connection]:
    """A table of jobs of all kinds, without statistics, whose floor lies there."""
    async with engine.database.connection() as connection:
        await connection.execute("ALTER SEQUENCE jobs_id_seq RESTART")
        await connection.execute(FILL, {"count": COUNT, "floor": request.param, "start": START})
        await connection.execute("UPDATE dispatch_floor SET id = %s", (request.param,))
        yield connection


@pytest.fixture(params=[3, 1000], ids=["few listed", "many listed"])
def small_chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FIRST_CHUNK", 10)
    monkeypatch.setattr(listing, "LAST_CHUNK", 40)
    monkeypatch.setattr(listing, "LISTED", request.param)


async def reference(connection: Connection, wanted: JobFilter) -> list[int]:
    """The ids by one plain look at all rows."""
    cursor = await connection.execute(
        "SELECT id, queue, type, status, tenant, created_at FROM jobs WHERE deleted_at IS NULL ORDER BY id"
    )
    found = []
    for id, queue, type, status, tenant, created_at in await cursor.fetchall():
        fits = (
            (wanted.queue is None or queue == wanted.queue)
            and (wanted.type is None or type == wanted.type)
            and (wanted.status is None or status == wanted.status)
            and (wanted.reach is None or wanted.reach.covers(tenant, queue, type))
            and (wanted.created_after is None or created_at >= wanted.created_after)
            and (wanted.created_before is None or created_at < wanted.created_before)
        )
        found += [id] * fits
    return found[::-1] if wanted.newest_first else found


@pytest.mark.parametrize("wanted", FILTERS, ids=repr)
async def test_pages_show_every_job_that_fits_once_and_in_order(
    connection: Connection, small_chunks: None, wanted: dict[str, Any]
) -> None:
    for newest_first, seconds in itertools.product((False, True), (None, 0.0)):
        queue = "default" if seconds is None or not newest_first else None
        first = JobFilter(queue=queue, newest_first=newest_first, limit=7, **wanted)
        seen: list[int] = []
        page = await listing.search(connection, first, seconds=seconds)
        for _ in range(COUNT):
            assert len(page.jobs) <= 7
            seen += [job.id for job in page.jobs]
            if page.next is None:
                break
            page = await listing.search(connection, dataclasses.replace(first, after=page.next), seconds=seconds)
        assert seen == await reference(connection, first), first


async def test_without_time_an_answer_looks_at_one_chunk_and_says_where_to_go_on(
    connection: Connection, small_chunks: None
) -> None:
    page = await listing.search(connection, JobFilter(queue="default", type="absent"), seconds=0)
    assert page.jobs == []
    assert page.next == 11
