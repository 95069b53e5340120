"""A key that another transaction holds, and a value that PostgreSQL refuses, hold up nobody but their own order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any, TypeVar

import pytest

from goqueue import inserts
from goqueue.errors import Conflict, GoQueueError, KeysHeld, StoreContended, StoreRefused, StoreTimeout
from goqueue.idempotency import RequestKey, request_key
from goqueue.job import Enqueued, NewJob, Source
from goqueue.lifecycle import JobStatus
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings
from goqueue.store import enqueue, idempotency
from goqueue.store.connect import Connection, Database
from goqueue_api.errors import status_of
from tests.integration.api.serving import app_on, serving
from tests.integration.engine import WITHIN, Engine, eventually

T = TypeVar("T")


def job(key: str | None = None, **more: Any) -> NewJob:
    return NewJob("default", "t", {}, unique_key=key, **more)


def request(value: str, order: NewJob) -> RequestKey:
    return request_key(value, "anybody", order)


async def in_time(asked: Iterable[Awaitable[T]]) -> list[T]:
    """All answers, which must not wait for the key that is held meanwhile."""
    async with asyncio.timeout(WITHIN):
        return await asyncio.gather(*asked)


@contextlib.asynccontextmanager
async def holding(engine: Engine, *keys: str) -> AsyncIterator[Connection]:
    """A transaction that has made jobs with these unique keys, and is rolled back with the block."""
    async with engine.database.connection() as connection, connection.transaction(force_rollback=True):
        await enqueue.insert(connection, [job(key) for key in keys])
        yield connection


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders wait for a held key until the test has seen what it wants to see."""
    monkeypatch.setattr(inserts, "PATIENCE", 2 * WITHIN)


@pytest.mark.usefixtures("patient")
async def test_nobody_waits_for_a_unique_key_but_the_orders_with_it(engine: Engine) -> None:
    service = JobService(engine.database, engine.broker)
    async with holding(engine, "held"):
        held = [asyncio.create_task(service.enqueue(job("held"))) for _ in range(5)]
        await eventually(engine.lock_awaited)
        plain = await in_time(service.enqueue(job()) for _ in range(50))
        keyed = await in_time(service.enqueue(job(f"other {n}")) for n in range(50))
        ticks = await in_time(service.enqueue(job(source=Source.SCHEDULE, source_key=f"tick {n}")) for n in range(10))
        orders = [job(priority=n) for n in range(50)]
        requests = await in_time(service.enqueue(order, request(f"k{order.priority}", order)) for order in orders)
        both = await in_time(
            service.enqueue(order, request(f"b{n}", order))
            for n, order in enumerate([job(f"both {n}") for n in range(10)])
        )
        assert all(made.created for made in [*plain, *keyed, *ticks, *requests, *both])
        assert not any(task.done() for task in held)
    made = await in_time(held)  # the holder is gone: the first of them makes the job
    assert len({one.id for one in made}) == 1
    assert sum(one.created for one in made) == 1
    await service.close()


@pytest.mark.usefixtures("patient")
async def test_nobody_waits_for_an_idempotency_key_but_the_requests_with_it(engine: Engine) -> None:
    service = JobService(engine.database, engine.broker)
    order = job()
    async with engine.database.connection() as connection, connection.transaction():
        ((first,), _) = await idempotency.insert(connection, [(request("held", order), order)])
        held = [asyncio.create_task(service.enqueue(order, request("held", order))) for _ in range(5)]
        await eventually(engine.lock_awaited)
        others = [service.enqueue(order, request(f"k{n}", order)) for n in range(50)]
        made = await in_time([*others, *(service.enqueue(job()) for _ in range(50))])
        assert all(one.created for one in made)
        assert not any(task.done() for task in held)
    assert isinstance(first, Enqueued)
    assert {one.id for one in await in_time(held)} == {first.id}
    await service.close()


async def test_an_order_whose_key_stays_held_is_refused_in_time_and_never_made(engine: Engine) -> None:
    order = job("held", priority=7)
    plain = job(priority=7)
    async with holding(engine, "held") as connection:
        await idempotency.insert(connection, [(request("held", plain), plain)])
        for key in (None, request("with a header", order)):
            with pytest.raises(Conflict, match="unique key is contended, try again"):
                await engine.service.enqueue(order, key)
        with pytest.raises(Conflict, match="idempotency key is contended, try again"):
            await engine.service.enqueue(plain, request("held", plain))
        with pytest.raises(Conflict, match="unique key is contended, try again"):
            await engine.service.enqueue_many([job(), order, job()])
    assert await engine.rows("SELECT count(*) FROM jobs") == [(0,)]
    assert await engine.rows("SELECT count(*) FROM idempotency_keys") == [(0,)]
    assert (await engine.service.enqueue(order, request("with a header", order))).created
    assert (await engine.service.enqueue(plain, request("held", plain))).created


async def test_a_key_that_was_contended_is_asked_for_apart_from_the_others_from_then_on(engine: Engine) -> None:
    async with holding(engine, "held"):
        with pytest.raises(Conflict):
            await engine.service.enqueue(job("held"))
        contention = engine.service._inserts.contention
        assert contention.is_known(("held", None))
        again = asyncio.create_task(engine.service.enqueue(job("held")))
        await eventually(engine.lock_awaited)
        assert contention.wait_of(("held", None)) is not None  # it is no part of a batch
        with pytest.raises(Conflict):
            await again
    assert (await engine.service.enqueue(job("held"))).created
    assert not engine.service._inserts.contention.is_known(("held", None))


@pytest.mark.usefixtures("patient")
async def test_orders_that_wait_for_their_keys_leave_connections_for_everybody_else(engine: Engine) -> None:
    settings = DatabaseSettings(max_retries=0)
    pool = Database(engine.dsn, settings, maximum=4)
    await pool.open(settings)
    service = JobService(pool, engine.broker)
    keys = [f"held {n}" for n in range(20)]
    try:
        async with holding(engine, *keys):
            held: list[asyncio.Task[Any]] = [asyncio.create_task(service.enqueue(job(key))) for key in keys]
            held += [asyncio.create_task(service.enqueue_many([job(key)])) for key in keys]
            await eventually(engine.lock_awaited)
            made = await in_time(service.enqueue(job()) for _ in range(50))
            found = await in_time(service.get(one.id) for one in made)
            assert [one.id for one in found] == [one.id for one in made]
            assert not any(task.done() for task in held)
        await in_time(held)
    finally:
        await service.close()
        await pool.close()


@pytest.mark.usefixtures("patient")
async def test_a_caller_that_gives_up_while_its_key_is_held_leaves_no_job_behind(engine: Engine) -> None:
    async with holding(engine, "held"):
        order = asyncio.create_task(engine.service.enqueue(job("held")))
        other = asyncio.create_task(engine.service.enqueue(job("held")))
        await eventually(engine.lock_awaited)
        await eventually(lambda: _is_alone(engine))
        order.cancel()
        with pytest.raises(asyncio.CancelledError):
            await order
        other.cancel()
        await asyncio.wait([other])
    await engine.service.close()
    assert await engine.rows("SELECT count(*) FROM jobs") == [(0,)]
    assert (await engine.service.enqueue(job("held"))).created


async def _is_alone(engine: Engine) -> bool:
    return engine.service._inserts.contention.wait_of(("held", None)) is not None


async def test_the_orders_of_a_bulk_that_others_insert_in_another_order_are_made_by_one_of_them(engine: Engine) -> None:
    keys = [f"k{n}" for n in range(200)]
    forth = [job(key) for key in keys]
    made, again = await asyncio.gather(
        engine.service.enqueue_many(forth), engine.service.enqueue_many(list(reversed(forth)))
    )
    assert [one.id for one in made] == [one.id for one in reversed(again)]
    assert len({one.created for one in made}) == 1
    assert await engine.rows("SELECT count(*) FROM jobs") == [(200,)]
    rows = await engine.rows("SELECT unique_key FROM jobs ORDER BY id")
    assert [key for (key,) in rows] in (keys, keys[::-1])  # the ids are in the order of the request


async def test_one_refused_value_costs_its_batch_a_few_statements(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    insert = enqueue.insert

    async def counted(connection: Connection, jobs: Any, *more: Any, **named: Any) -> Any:
        sizes.append(len(jobs))
        return await insert(connection, jobs, *more, **named)

    monkeypatch.setattr(enqueue, "insert", counted)
    orders = [job(timeout=1e-300 if n == 77 else None) for n in range(256)]  # no validation lets it through
    answers = await asyncio.gather(*map(engine.service.enqueue, orders), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, StoreRefused)] == [77]
    assert await engine.rows("SELECT count(*) FROM jobs") == [(255,)]
    assert len(sizes) == 1 + 2 * 8  # log2(256)


async def test_the_api_answers_409_in_time_and_everybody_else_as_ever(engine: Engine) -> None:
    mail = {"queue": "email", "payload": {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}}
    async with serving(app_on(engine, auth="off")) as client:

        async def post(**more: Any) -> tuple[int, Any]:
            answer = await client.post("/jobs/create", json={**mail, **more})
            return answer.status_code, answer.json()

        async with holding(engine, "held", "other"):
            refused = asyncio.create_task(post(unique_key="held"))
            await eventually(engine.lock_awaited)
            assert [status for status, _ in await asyncio.gather(*(post() for _ in range(20)))] == [201] * 20
            assert await refused == (409, {"error": "unique key is contended, try again"})
            bulk = await client.post("/jobs/bulk", json=[mail, {**mail, "unique_key": "other"}])
            assert (bulk.status_code, bulk.json()) == (409, {"error": "unique key is contended, try again"})
        assert await engine.rows("SELECT count(*) FROM jobs") == [(20,)]
        assert (await post(unique_key="held"))[0] == 201


async def test_a_job_is_not_opened_again_while_another_transaction_holds_its_key(engine: Engine) -> None:
    job_id = await engine.enqueue("t", unique_key="held")
    await engine.service.set_status(job_id, JobStatus.FAILED)
    async with holding(engine, "held"):
        for act in (engine.service.retry(job_id), engine.service.set_status(job_id, JobStatus.PENDING)):
            with pytest.raises(Conflict, match="holds this job or its unique key, try again"):
                await act
    await engine.service.retry(job_id)


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreContended("a row is locked"), 503), (KeysHeld("a key is held"), 409), (StoreTimeout("late"), 408)],
)
def test_an_error_has_the_status_of_its_nearest_kind(error: GoQueueError, status: int) -> None:
    assert status_of(error) == status
