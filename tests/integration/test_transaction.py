"""Jobs inside the caller's own SQLAlchemy transaction: there if and only if it commits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.errors import SerializationFailure
from sqlalchemy import URL, Executable, create_engine, text
from sqlalchemy import Engine as SyncEngine
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from goqueue import AsyncClient, InvalidInput, JobContext, enqueue_in, enqueue_in_async
from goqueue.settings import DatabaseSettings
from goqueue.store.schema import JOBS
from goqueue_scheduler import due as due_sweep
from tests.integration.engine import QUEUES, Anything, Engine, eventually
from tests.servers.stores import FreshDatabase

KINDS = ("Session", "Connection", "AsyncSession", "AsyncConnection")
ORDER = text("INSERT INTO orders (customer) VALUES ('ada') RETURNING id")


@dataclass(frozen=True)
class Caller:
    """A transaction of the caller's, whatever SQLAlchemy offers it as."""

    enqueue: Callable[..., Coroutine[Any, Any, int]]
    execute: Callable[[Executable], Awaitable[Any]]
    commit: Callable[[], Awaitable[None]]
    rollback: Callable[[], Awaitable[None]]


async def echo(payload: Anything, job: JobContext) -> dict[str, Any]:
    return payload.model_dump()


@pytest.fixture(autouse=True)
async def setting(engine: Engine) -> None:
    engine.handle("echo", echo)
    await engine.execute("DROP TABLE IF EXISTS orders")
    await engine.execute("CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text)")


@pytest.fixture(params=KINDS)
async def caller(request: pytest.FixtureRequest, engine: Engine, database: FreshDatabase) -> AsyncIterator[Caller]:
    """A transaction that has begun, of each kind."""
    async with begun(request.param, engine, database) as caller:
        yield caller


@contextlib.asynccontextmanager
async def begun(kind: str, engine: Engine, database: FreshDatabase) -> AsyncIterator[Caller]:
    server = database.server
    url = URL.create("postgresql+psycopg", server.user, server.password, server.host, server.port, database.name)
    rules: dict[str, Any] = {"registry": engine.registry, "queues": QUEUES}
    if kind.startswith("Async"):
        async_engine: AsyncEngine = create_async_engine(url, poolclass=NullPool)
        async with AsyncSession(async_engine) if kind == "AsyncSession" else async_engine.connect() as ours:

            async def enqueue(kind: str, payload: Any, **options: Any) -> int:
                return await enqueue_in_async(ours, kind, payload, **rules, **options)

            yield Caller(enqueue, ours.execute, ours.commit, ours.rollback)
        return

    sync_engine: SyncEngine = create_engine(url, poolclass=NullPool)
    with Session(sync_engine) if kind == "Session" else sync_engine.connect() as mine:

        async def enqueue_sync(kind: str, payload: Any, **options: Any) -> int:
            return await asyncio.to_thread(enqueue_in, mine, kind, payload, **rules, **options)

        async def execute(statement: Executable) -> Any:
            return mine.execute(statement)

        async def commit() -> None:
            mine.commit()

        async def rollback() -> None:
            mine.rollback()

        yield Caller(enqueue_sync, execute, commit, rollback)


async def test_the_job_of_a_committed_transaction_is_dispatched_and_runs_at_once(
    engine: Engine, caller: Caller
) -> None:
    async with engine.worker(), engine.scheduler() as scheduler:
        await engine.leads(scheduler)
        order_id = (await caller.execute(ORDER)).scalar()
        job_id = await caller.enqueue("echo", {"order": order_id})
        assert await engine.rows("SELECT 1 FROM jobs") == await engine.rows("SELECT 1 FROM orders") == []
        await caller.commit()
        job = await engine.until(job_id, "completed", seconds=3)
    assert job.result == {"order": order_id}
    assert await engine.rows("SELECT id FROM orders") == [(order_id,)]


async def test_of_a_transaction_rolled_back_no_job_is_left(engine: Engine, caller: Caller) -> None:
    await caller.execute(ORDER)
    await caller.enqueue("echo", {})
    await caller.rollback()
    assert await engine.rows("SELECT 1 FROM jobs") == await engine.rows("SELECT 1 FROM orders") == []


async def test_a_wrong_payload_is_refused_and_the_transaction_goes_on(engine: Engine, caller: Caller) -> None:
    await caller.execute(ORDER)
    wrongs: list[Any] = [{"name": "\0"}, {"name": object()}, [], {"n": 2**70}, {"name": "\ud800"}]
    for wrong in wrongs:
        with pytest.raises(InvalidInput):
            await caller.enqueue("echo", wrong)
    with pytest.raises(InvalidInput):
        await caller.enqueue("send_fax", {})
    with pytest.raises(InvalidInput):
        await caller.enqueue("echo", {}, unique_key="\0")
    right = await caller.enqueue("echo", {"name": "\\u0000 is no NUL"})
    await caller.commit()
    assert len(await engine.rows("SELECT 1 FROM orders")) == 1
    assert await engine.rows("SELECT id, payload FROM jobs") == [(right, {"name": "\\u0000 is no NUL"})]


async def test_a_unique_key_gives_the_job_that_holds_it(engine: Engine, caller: Caller) -> None:
    theirs = await engine.enqueue("echo", unique_key="theirs")
    assert await caller.enqueue("echo", {}, unique_key="theirs") == theirs
    mine = await caller.enqueue("echo", {}, unique_key="mine")
    assert await caller.enqueue("echo", {}, unique_key="mine") == mine
    await caller.commit()
    assert await engine.rows("SELECT id FROM jobs ORDER BY id") == [(theirs,), (mine,)]


async def test_two_transactions_with_one_key_make_one_job(engine: Engine, database: FreshDatabase) -> None:
    async with begun("AsyncSession", engine, database) as first, begun("Session", engine, database) as second:
        mine = await first.enqueue("echo", {}, unique_key="k")
        waiting = asyncio.create_task(second.enqueue("echo", {}, unique_key="k"))

        async def blocked() -> Any:
            return await engine.rows("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")

        await eventually(blocked)
        await first.commit()
        assert await waiting == mine
        await second.rollback()
    assert await engine.rows("SELECT id FROM jobs") == [(mine,)]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_key_taken_after_the_snapshot_is_a_serialization_failure_and_the_transaction_run_again_finds_the_job(
    engine: Engine, database: FreshDatabase, level: str
) -> None:
    async with begun("Connection", engine, database) as one, begun("Connection", engine, database) as other:
        for caller in (one, other):
            await caller.execute(text(f"SET TRANSACTION ISOLATION LEVEL {level}"))
            await caller.execute(ORDER)  # takes the snapshot
        first = await one.enqueue("echo", {}, unique_key="k")
        await one.commit()
        with pytest.raises(OperationalError) as refused:
            await other.enqueue("echo", {}, unique_key="k")
        assert isinstance(refused.value.orig, SerializationFailure)
        assert refused.value.orig.sqlstate == "40001"
        await other.rollback()
        await other.execute(text(f"SET TRANSACTION ISOLATION LEVEL {level}"))
        await other.execute(ORDER)
        assert await other.enqueue("echo", {}, unique_key="k") == first
        await other.enqueue("echo", {})
        await other.commit()
    assert await engine.rows("SELECT count(*) FROM jobs") == await engine.rows("SELECT count(*) FROM orders") == [(2,)]


async def test_a_job_for_later_waits_for_its_time(engine: Engine, caller: Caller) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.7)
    job_id = await caller.enqueue("echo", {}, available_at=due)
    await caller.commit()
    async with engine.worker(), engine.scheduler():
        job = await engine.until(job_id, "completed")
    assert job.started_at is not None
    assert job.started_at >= due


async def test_a_transaction_that_took_long_to_commit_has_its_job_dispatched_within_seconds(
    engine: Engine, database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_sweep, "OVERLAP", timedelta(0))  # "long" is now any time
    async with engine.worker(), engine.scheduler() as scheduler, begun("AsyncSession", engine, database) as slow:
        await engine.leads(scheduler)
        late = await slow.enqueue("echo", {})
        async with begun("AsyncSession", engine, database) as quick:
            other = await quick.enqueue("echo", {})
            await quick.commit()
        await engine.until(other, "completed")
        await slow.commit()
        await engine.until(late, "completed")


async def test_a_job_made_in_a_transaction_is_like_one_made_by_a_client(engine: Engine, caller: Caller) -> None:
    options: dict[str, Any] = {"max_retries": 2, "priority": -3, "timeout": 1.5, "queue": "other"}
    payload = {"text": "Ã ✓ \\", "nested": [{"n": 1.5, "none": None, "big": 2**63}]}
    await caller.enqueue("echo", payload, **options)
    await caller.commit()
    settings = DatabaseSettings(max_retries=0)
    async with AsyncClient(
        engine.dsn, engine.redis, queues=QUEUES, registry=engine.registry, database=settings
    ) as client:
        await client.enqueue("echo", payload, **options)
    own, clients = await engine.rows(
        "SELECT to_jsonb(jobs) - '{id,created_at,updated_at,available_at,dispatch_at}'::text[] FROM jobs ORDER BY id"
    )
    assert own == clients


async def test_the_table_that_sqlalchemy_sees_is_the_migrated_one(engine: Engine) -> None:
    rows = await engine.rows(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = 'jobs'"
    )
    described = {
        (column.name, column.type.compile(postgresql.dialect()).lower(), "YES" if column.nullable else "NO")  # type: ignore[no-untyped-call]
        for column in JOBS.columns
    }
    assert described == set(rows)
