"""Bulk enqueue by COPY: the same rows as an INSERT makes, all or none, and the dispatcher misses nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from goqueue.broker import Broker
from goqueue.errors import StoreRefused, StoreTimeout, StoreUnavailable
from goqueue.job import Enqueued, NewJob, ReadyJob, Source
from goqueue.service import JobService
from goqueue.settings import DatabaseSettings, RedisSettings
from goqueue.store import copy, dispatch
from goqueue.store.connect import Connection, Database
from goqueue.store.enqueue import insert
from goqueue_cli.embedded import free_port
from tests.integration.engine import Engine, eventually

BATCH = 5 * copy.WORTH

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.sampled_from(
    ["", "\\", "\\N", "\\.", "\t\n\r", "{}", '"', "NULL", "é✓😀", "'; --"]
)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=True, allow_infinity=True)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
moments = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2199, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
orders = st.builds(
    NewJob,
    queue=texts,
    type=texts,
    payload=st.dictionaries(texts, values, max_size=4),
    max_retries=st.integers(0, 20),
    priority=st.integers(-100, 100),
    available_at=st.none() | moments,
    timeout=st.none() | st.floats(1e-40, 86_400),
    source=st.sampled_from(Source),
    trace_context=st.none() | texts,
)


async def stored(connection: Connection, ids: list[int]) -> list[Any]:
    cursor = await connection.execute(
        "SELECT to_jsonb(jobs) - 'id', payload::text, timeout::text FROM jobs WHERE id = ANY(%s) ORDER BY id", (ids,)
    )
    return await cursor.fetchall()


async def outcome(
    connection: Connection, jobs: list[NewJob], by_copy: bool
) -> tuple[list[Any], list[Enqueued], list[ReadyJob]] | None:
    """What is stored and returned (ids left out), or None if it is refused."""
    try:
        async with connection.transaction():
            made, ready = await (copy.insert if by_copy else insert)(connection, jobs)
        ids = [one.id for one in made]
        assert ids == sorted(set(ids))
        assert {one.id for one in ready} <= set(ids)
        rows = await stored(connection, ids)
        for one in made:
            one.id = 0
        for job in ready:
            job.id = 0
        return rows, made, ready
    except psycopg.DataError:
        return None


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(jobs=st.lists(orders, min_size=1, max_size=8))
async def test_copy_makes_the_rows_that_insert_makes(engine: Engine, jobs: list[NewJob]) -> None:
    # One transaction has one now(), so that even the times must be equal.
    async with engine.database.connection() as connection, connection.transaction(force_rollback=True):
        made = await outcome(connection, jobs, True)
        assert made is not None
        assert made == await outcome(connection, jobs, False)


@pytest.mark.parametrize(
    ("order", "accepted"),
    [
        ({"payload": {"a": 2**64 - 1, "b": -(2**63), "c": 1e308, "d": 5e-324}}, True),
        ({"payload": {"deep": orjson.loads("[" * 60 + "]" * 60)}}, True),
        ({"payload": {"a" * 500: "\\u0000", "b": "x" * 300_000}}, True),
        ({"payload": {"a": "\0"}}, False),
        ({"type": "\0"}, False),
        ({"trace_context": "\0"}, False),
        ({"timeout": 1e-300}, False),
    ],
)
async def test_what_is_extreme_is_kept_or_refused_as_by_insert(
    engine: Engine, order: dict[str, Any], accepted: bool
) -> None:
    jobs = [NewJob(**{"queue": "default", "type": "t", "payload": {}, **order})]
    async with engine.database.connection() as connection, connection.transaction(force_rollback=True):
        made = await outcome(connection, jobs, True)
        assert (made is not None) == accepted
        assert made == await outcome(connection, jobs, False)


async def test_callers_at_once_each_get_ids_in_the_order_of_their_jobs(engine: Engine) -> None:
    batches = [[NewJob("default", "t", {"caller": caller, "n": n}) for n in range(BATCH)] for caller in range(8)]
    single = [engine.service.enqueue(NewJob("default", "t", {"caller": -1, "n": n})) for n in range(50)]
    answers = await asyncio.gather(*(engine.service.enqueue_many(batch) for batch in batches), *single)
    rows = dict(await engine.rows("SELECT id, payload FROM jobs"))
    assert len(rows) == 8 * BATCH + 50
    for caller, made in enumerate(answers[:8]):
        assert isinstance(made, list)
        ids = [one.id for one in made]
        assert ids == sorted(ids)
        assert [rows[id] for id in ids] == [{"caller": caller, "n": n} for n in range(BATCH)]


async def test_jobs_with_and_without_keys_in_one_batch(engine: Engine) -> None:
    batch = [NewJob("default", "t", {"n": n}, unique_key=f"k{n % 7}" if n % 2 else None) for n in range(BATCH)]
    made = await engine.service.enqueue_many(batch)
    assert sum(one.created for one in made) == BATCH // 2 + 7
    found = dict(await engine.rows("SELECT id, (payload->>'n')::int FROM jobs"))
    assert all(found[one.id] == n for n, one in enumerate(made) if one.created)
    assert {one.id for one in await engine.service.enqueue_many(batch)} & found.keys() == {
        one.id for n, one in enumerate(made) if n % 2
    }


async def test_one_refused_job_refuses_all_and_the_connection_goes_on(engine: Engine) -> None:
    jobs = [NewJob("default", "t", {"n": n}) for n in range(BATCH)]
    for wrong in ({"n": "\0"}, {"n": "\ud800"}, {"n": object()}):
        with pytest.raises((StoreRefused, TypeError)):
            await engine.service.enqueue_many([*jobs, NewJob("default", "t", wrong), *jobs])
    assert await engine.rows("SELECT 1 FROM jobs") == []
    assert len(await engine.service.enqueue_many(jobs)) == BATCH
    await engine.service.close()
    assert await engine.broker._redis.zcard(engine.broker._ready("default")) == BATCH


@contextlib.asynccontextmanager
async def halfway(engine: Engine, service: JobService) -> AsyncIterator[tuple[asyncio.Task[list[Enqueued]], int]]:
    """A COPY that waits in its middle: for a transaction that holds one of its ids. The task and its backend's pid."""
    ((next_id,),) = await engine.rows("SELECT nextval('jobs_id_seq') + 1")
    async with engine.database.connection() as blocker, blocker.transaction(force_rollback=True):
        await blocker.execute(
            "INSERT INTO jobs (id, queue, type, payload) VALUES (%s, 'default', 't', '{}')", (next_id + BATCH // 2,)
        )
        task = asyncio.create_task(service.enqueue_many([NewJob("default", "t", {"n": n}) for n in range(BATCH)]))

        async def waits() -> int:
            rows = await engine.rows("SELECT pid FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted")
            return int(rows[0][0]) if rows else 0

        yield task, await eventually(waits)


async def test_a_connection_that_dies_in_the_middle_leaves_nothing(engine: Engine) -> None:
    async with halfway(engine, engine.service) as (task, pid):
        await engine.rows("SELECT pg_terminate_backend(%s)", pid)
        with pytest.raises(StoreUnavailable):
            await task
    assert await engine.rows("SELECT 1 FROM jobs") == []
    assert len(await engine.service.enqueue_many([NewJob("default", "t", {})] * BATCH)) == BATCH


async def test_a_caller_that_gives_up_in_the_middle_leaves_nothing(engine: Engine) -> None:
    async with halfway(engine, engine.service) as (task, _):
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await engine.rows("SELECT 1 FROM jobs") == []
    assert len(await engine.service.enqueue_many([NewJob("default", "t", {})] * BATCH)) == BATCH


async def test_the_statement_timeout_ends_a_copy_and_leaves_nothing(engine: Engine) -> None:
    hasty = Database(engine.dsn, DatabaseSettings(max_retries=0), statement_timeout=0.5)
    await hasty.open(DatabaseSettings(max_retries=0))
    service = JobService(hasty, engine.broker)
    async with halfway(engine, service) as (task, _):
        with pytest.raises(StoreTimeout):
            await task
    async with engine.database.connection() as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE jobs IN SHARE MODE")
        with pytest.raises(StoreTimeout):
            await service.enqueue_many([NewJob("default", "t", {})] * BATCH)
    assert await engine.rows("SELECT 1 FROM jobs") == []
    assert len(await service.enqueue_many([NewJob("default", "t", {})] * BATCH)) == BATCH
    await service.close()
    await hasty.close()


async def test_a_copy_has_its_lock_before_it_draws_ids_and_the_dispatcher_waits_for_it(engine: Engine) -> None:
    jobs = [NewJob("default", "t", {})] * BATCH
    async with engine.database.connection() as blocker, engine.database.connection() as looker:
        next_id = (await dispatch.boundary(looker)).next_id
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE jobs IN SHARE MODE")
            task = asyncio.create_task(engine.service.enqueue_many(jobs))

            async def waits() -> bool:
                rows = await engine.rows("SELECT FROM pg_locks WHERE mode = 'RowExclusiveLock' AND NOT granted")
                return bool(rows)

            await eventually(waits)
            assert (await dispatch.boundary(looker)).next_id == next_id
        await task
        async with halfway(engine, engine.service) as (task, _):
            edge = await dispatch.boundary(looker)
            assert edge.next_id > next_id + BATCH
            assert not await dispatch.settled(looker, edge)
        made = await task
        assert await dispatch.settled(looker, edge)
        assert edge.next_id == made[-1].id + 1


async def test_without_redis_a_bulk_is_accepted_and_found_by_the_dispatcher(engine: Engine) -> None:
    nowhere = Broker(RedisSettings(url=SecretStr(f"redis://127.0.0.1:{free_port()}/0")))
    service = JobService(engine.database, nowhere)
    async with engine.scheduler() as scheduler:
        await engine.leads(scheduler)  # from then on it does not reconcile: only the sweep can find the jobs
        made = await service.enqueue_many([NewJob("default", "t", {"n": n}) for n in range(BATCH)])
        await service.close()
        assert service.unpushed == BATCH

        async def repaired() -> bool:  # counted after the push, so Redis has them by then
            return scheduler.dispatcher.strays.repaired >= BATCH

        await eventually(repaired)
        assert scheduler.dispatcher.strays.repaired == BATCH
        assert await engine.broker._redis.zcard(engine.broker._ready("default")) == BATCH
    fetched = await engine.broker.fetch(["default"], BATCH)
    # All became ready at the same time; some ids are longer than others.
    assert [job.id for job in fetched] == [one.id for one in made]
    await nowhere.close()
