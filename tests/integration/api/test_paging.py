"""Pages of jobs while transactions commit in another order than their ids were drawn in."""

import asyncio
import random
from collections.abc import AsyncIterator

import httpx
import pytest

from goqueue.store.connect import Connection
from tests.integration.api.serving import app_on, serving
from tests.integration.engine import Engine

INSERT = "INSERT INTO jobs (queue, type, payload) VALUES ('email', 'send_email', '{}') RETURNING id"


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an open API."""
    async with serving(app_on(engine, auth="off")) as client:
        yield client


async def insert(connection: Connection) -> int:
    row = await (await connection.execute(INSERT)).fetchone()
    assert row is not None
    return int(row[0])


async def page(client: httpx.AsyncClient, after: int = 0, **more: object) -> list[int]:
    answer = await client.get("/jobs", params={"queue": "email", "after": after, "limit": 10, **more})  # type: ignore[dict-item]
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()]


async def test_a_job_that_is_committed_late_is_skipped_by_after_and_not_by_settled_pages(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    async with engine.database.connection() as late, engine.database.connection() as other:
        first = await insert(other)
        assert await page(client, settled=True) == [first]
        async with late.transaction():
            second = await insert(late)
            third = await insert(other)
            assert await page(client) == [first, third]  # as the documentation says
            assert await page(client, settled=True) == [first]
        assert await page(client, third) == []
        assert await page(client, first, settled=True) == [second, third]


async def test_a_transaction_that_stays_open_holds_back_only_what_came_after_it_began(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    """Also where the API process meets it before it ever saw the list settled: then nothing is vouched for."""
    async with engine.database.connection() as late, engine.database.connection() as other:
        before = [await insert(other) for _ in range(3)]
        async with late.transaction():
            await insert(late)
            await insert(other)
            assert await page(client, settled=True) == []
        everything = await page(client, settled=True)
        async with late.transaction():
            await insert(late)
            await insert(other)
            assert await page(client, settled=True) == everything
            assert await page(client, everything[-1], settled=True) == []
    assert everything[:3] == before


async def test_whoever_follows_settled_pages_sees_every_job_once_while_many_write_out_of_order(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    made: list[int] = []
    shuffled = random.Random(7)

    async def write() -> None:
        for _ in range(20):
            async with engine.database.connection() as connection, connection.transaction() as transaction:
                drawn = [await insert(connection) for _ in range(shuffled.randint(1, 3))]
                await asyncio.sleep(shuffled.random() / 50)  # so that others draw and commit meanwhile
                if shuffled.random() < 0.2:
                    transaction.force_rollback = True
                    drawn = []
            made.extend(drawn)

    writing = [asyncio.create_task(write()) for _ in range(6)]
    seen: list[int] = []

    async def follow() -> bool:
        found = await page(client, seen[-1] if seen else 0, settled=True)
        seen.extend(found)
        return bool(found)

    while not all(task.done() for task in writing):
        await follow()
    await asyncio.gather(*writing)
    while await follow():
        pass
    assert seen == sorted(made)
    assert made != sorted(made)  # they were committed in another order


async def test_after_a_failover_that_lost_the_newest_jobs_none_of_those_made_then_is_skipped(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    async with engine.database.connection() as late, engine.database.connection() as other:
        kept, *_ = [await insert(other) for _ in range(5)]
        assert len(await page(client, settled=True)) == 5
        await engine.execute("DELETE FROM jobs WHERE id > %s", kept)
        await engine.execute("SELECT setval('jobs_id_seq', %s)", kept)
        async with late.transaction():
            hidden = await insert(late)
            shown = await insert(other)
            assert await page(client, kept, settled=True) == []
        assert await page(client, kept, settled=True) == [hidden, shown]


async def test_many_readers_at_once_share_what_is_settled(client: httpx.AsyncClient, engine: Engine) -> None:
    async with engine.database.connection() as late, engine.database.connection() as other:
        first = await insert(other)
        assert await page(client, settled=True) == [first]
        async with late.transaction():
            await insert(late)
            await insert(other)
            assert await asyncio.gather(*(page(client, settled=True) for _ in range(20))) == [[first]] * 20
        assert (
            await asyncio.gather(*(page(client, settled=True) for _ in range(20)))
            == [[first, first + 1, first + 2]] * 20
        )
