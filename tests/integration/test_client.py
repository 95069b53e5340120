"""The clients for Python programs, on real stores."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field

from goqueue import AsyncClient, Client, Conflict, InvalidInput, JobContext, NotFound, StoreUnavailable
from goqueue.errors import SettingsError
from goqueue.lifecycle import JobStatus
from goqueue.registry import JobType
from goqueue.settings import DatabaseSettings, RedisSettings
from goqueue_cli.embedded import free_port
from tests.integration.engine import QUEUES, Engine, opened
from tests.servers.stores import FreshDatabase, FreshRedis

ONCE = DatabaseSettings(max_retries=0, connect_timeout=2)


class Picture(BaseModel):
    """A payload with all that makes a model differ from its JSON."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: str = Field(alias="fileName")
    taken: datetime
    sizes: set[int] = {1}

    @computed_field
    def largest(self) -> int:
        return max(self.sizes)


PICTURE = {"fileName": "a.png", "taken": "2026-01-31T08:00:00Z", "sizes": [1, 2]}


async def resize(payload: Picture, job: JobContext) -> dict[str, Any]:
    return {"name": payload.name, "taken": payload.taken.isoformat(), "largest": payload.largest}


@pytest.fixture(autouse=True)
def types(engine: Engine) -> None:
    engine.registry.add(JobType("resize", Picture, queue="other", handler=resize))


def made(engine: Engine, redis: RedisSettings | None = None) -> AsyncClient:
    return AsyncClient(engine.dsn, redis or engine.redis, queues=QUEUES, registry=engine.registry, database=ONCE)


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[AsyncClient]:
    async with made(engine) as client:
        yield client


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "goqueue-client"]


# --- async ---------------------------------------------------------------------------------------------------------


async def test_a_job_is_enqueued_by_its_function_or_its_name_and_awaited(engine: Engine, client: AsyncClient) -> None:
    async with engine.worker():
        model = Picture(name="a.png", taken=datetime(2026, 1, 31, 8, tzinfo=UTC), sizes={1, 2})
        by_function = await client.enqueue(resize, model)
        by_name = await client.enqueue("resize", PICTURE)
        for job_id in (by_function, by_name):
            job = await client.wait(job_id, timeout=10)
            assert job.result == {"name": "a.png", "taken": "2026-01-31T08:00:00+00:00", "largest": 2}
            assert (job.queue, job.source) == ("other", "library")


async def test_what_a_caller_says_about_a_job_is_what_it_gets(client: AsyncClient) -> None:
    later = datetime(2100, 1, 1, tzinfo=UTC)
    job_id = await client.enqueue(
        resize, PICTURE, queue="default", max_retries=1, priority=7, available_at=later, timeout=3, unique_key="k"
    )
    job = await client.get(job_id)
    assert (job.queue, job.max_retries, job.priority, job.available_at) == ("default", 1, 7, later)
    assert (job.timeout, job.unique_key, job.payload) == (3.0, "k", PICTURE)


async def test_a_unique_key_gives_the_job_that_holds_it_until_that_is_final(client: AsyncClient) -> None:
    first = await client.enqueue("resize", PICTURE, unique_key="one")
    assert await client.enqueue("resize", PICTURE, unique_key="one") == first
    assert await client.cancel(first) is JobStatus.CANCELLED
    assert await client.enqueue("resize", PICTURE, unique_key="one") != first


async def test_many_jobs_are_enqueued_together_in_order_or_none_of_them(engine: Engine, client: AsyncClient) -> None:
    payloads = [{**PICTURE, "fileName": f"{n}.png"} for n in range(50)]
    ids = await client.enqueue_many("resize", [*payloads])
    rows = await engine.rows("""SELECT id, payload->>'fileName' FROM jobs ORDER BY id""")
    assert rows == [(id, f"{n}.png") for n, id in enumerate(ids)]
    assert len(await engine.rows("SELECT 1 FROM jobs")) == 50


async def test_one_wrong_payload_among_many_refuses_all_and_is_named_by_its_index(
    engine: Engine, client: AsyncClient
) -> None:
    wrongs: list[Any] = [{}, {**PICTURE, "fileName": "\0"}, [PICTURE], None, {**PICTURE, "n": object()}, [2**70]]
    for wrong in wrongs:
        with pytest.raises(InvalidInput) as alone:
            await client.enqueue("resize", wrong)
        with pytest.raises(InvalidInput) as caught:
            await client.enqueue_many("resize", [PICTURE, PICTURE, wrong, PICTURE])
        assert (caught.value.message, caught.value.fields) == (alone.value.message, {**alone.value.fields, "index": 2})
    with pytest.raises(InvalidInput, match="invalid queue"):
        await client.enqueue_many("resize", [PICTURE] * 3, queue="nowhere")
    assert await engine.rows("SELECT 1 FROM jobs") == []
    assert await client.enqueue_many("resize", []) == []


async def test_many_jobs_at_once_are_what_they_would_be_one_by_one(engine: Engine, client: AsyncClient) -> None:
    model = Picture(name="é\\u0000✓\t", taken=datetime(2026, 1, 31, 8, tzinfo=UTC), sizes={1, 2})
    deepest = {**PICTURE, "sizes": [1], "fileName": "[" * 100}
    options: dict[str, Any] = {"priority": 7, "available_at": datetime(2100, 1, 1, tzinfo=UTC), "timeout": 3}
    payloads: list[Any] = [model, PICTURE, deepest]
    together = await client.enqueue_many("resize", payloads, **options)
    singly = [await client.enqueue("resize", payload, **options) for payload in payloads]
    columns = "queue, type, payload, priority, available_at, timeout, max_retries, source"
    rows = {row[0]: row[1:] for row in await engine.rows(f"SELECT id, {columns} FROM jobs")}  # noqa: S608 - numbers and names of the test itself
    assert [rows[id] for id in together] == [rows[id] for id in singly]


async def test_no_bulk_is_emptied_by_a_closing_client(engine: Engine) -> None:
    async with made(engine) as client:
        ids = await client.enqueue_many("resize", [PICTURE] * 5000)
    ready = await engine.broker._redis.zrange(engine.broker._ready("other"), 0, -1)
    assert sorted(map(int, ready)) == ids


@pytest.mark.parametrize(
    ("kind", "payload", "options", "error"),
    [
        ("unknown", PICTURE, {}, "invalid job type"),
        (print, PICTURE, {}, "invalid job type"),
        ("resize", {**PICTURE, "fileName": 1}, {}, "payload validation failed"),
        ("resize", {**PICTURE, "fileName": "\0"}, {}, "NUL"),
        ("resize", {**PICTURE, "fileName": "\ud800"}, {}, "invalid payload format"),
        ("resize", {**PICTURE, "taken": object()}, {}, "invalid payload format"),
        ("resize", {**PICTURE, "sizes": [2**70]}, {}, "invalid payload format"),
        ("resize", [PICTURE], {}, "invalid payload format"),
        ("resize", PICTURE, {"queue": "nowhere"}, "invalid queue"),
        ("resize", PICTURE, {"priority": 101}, "validation failed"),
        ("resize", PICTURE, {"available_at": datetime(2030, 1, 1)}, "validation failed"),  # noqa: DTZ001
        ("resize", PICTURE, {"colour": "red"}, "validation failed"),
    ],
)
async def test_a_wrong_order_is_refused_and_hurts_no_other_that_is_under_way(
    engine: Engine, client: AsyncClient, kind: Any, payload: Any, options: Any, error: str
) -> None:
    wrong, right = await asyncio.gather(
        client.enqueue(kind, payload, **options), client.enqueue("resize", PICTURE), return_exceptions=True
    )
    assert isinstance(wrong, InvalidInput)
    assert error in wrong.message
    assert await engine.rows("SELECT id FROM jobs") == [(right,)]


async def test_waiting_ends_with_the_time_or_without_a_job(client: AsyncClient) -> None:
    job_id = await client.enqueue("resize", PICTURE)
    with pytest.raises(TimeoutError):
        await client.wait(job_id, timeout=0.1)
    with pytest.raises(NotFound):
        await client.wait(job_id + 1, timeout=10)


async def test_a_wait_outlives_a_restart_of_postgresql(own_database: FreshDatabase, ready_queues: FreshRedis) -> None:
    async with opened(own_database, ready_queues) as engine:
        engine.registry.add(JobType("resize", Picture, queue="other", handler=resize))
        async with made(engine) as client:
            job_id = await client.enqueue("resize", PICTURE)
            waiting = asyncio.create_task(client.wait(job_id, timeout=30))
            await asyncio.to_thread(own_database.server.stop, immediate=True)
            with pytest.raises(StoreUnavailable):
                await client.get(job_id)
            await asyncio.to_thread(own_database.server.start)
            async with engine.worker():
                assert (await waiting).status is JobStatus.COMPLETED


async def test_a_failed_job_is_run_again_on_request_and_a_final_one_is_not_cancelled(
    engine: Engine, client: AsyncClient
) -> None:
    fails = True

    async def picky(payload: Any, job: JobContext) -> str:
        if fails:
            raise RuntimeError("not now")
        return "done"

    engine.handle("picky", picky)
    async with engine.worker():
        job_id = await client.enqueue("picky", {}, max_retries=0)
        assert (await client.wait(job_id, timeout=10)).error == "RuntimeError: not now"
        fails = False
        await client.retry(job_id)
        assert (await client.wait(job_id, timeout=10)).result == "done"
        with pytest.raises(Conflict):
            await client.cancel(job_id)


async def test_without_redis_jobs_are_accepted_and_run_later(engine: Engine) -> None:
    nowhere = RedisSettings(url=SecretStr(f"redis://127.0.0.1:{free_port()}/0"))
    async with made(engine, nowhere) as client:
        job_id = await client.enqueue("resize", PICTURE)
        async with engine.worker(), engine.scheduler():
            assert (await client.wait(job_id, timeout=10)).status is JobStatus.COMPLETED


async def test_settings_are_read_once_and_a_wrong_one_is_named(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOQUEUE_QUEUES", "other")
    client = AsyncClient(engine.dsn, engine.redis, registry=engine.registry, database=ONCE)
    monkeypatch.setenv("GOQUEUE_QUEUES", "NOT A NAME")
    async with client:
        await client.enqueue("resize", PICTURE)
    with pytest.raises(SettingsError, match="GOQUEUE_QUEUES"):
        AsyncClient(engine.dsn, engine.redis, registry=engine.registry, database=ONCE)


def test_defining_job_types_needs_neither_database_nor_redis_nor_sqlalchemy() -> None:
    code = "import sys, goqueue.builtin; print(*{'psycopg', 'redis', 'sqlalchemy', 'alembic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"\n"
    code = "import sys, goqueue; goqueue.Client; print(*{'sqlalchemy', 'alembic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"\n"


# --- sync ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(
    monkeypatch: pytest.MonkeyPatch, database: FreshDatabase, ready_queues: FreshRedis
) -> pytest.MonkeyPatch:
    """The settings of this test's stores, as a user's program would have them."""
    for name, value in {**database.environment, **ready_queues.environment, "DB_MAX_RETRIES": "0"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


async def test_code_that_is_not_async_does_all_the_same(engine: Engine) -> None:
    def program() -> Any:
        with Client(made(engine)) as client:
            ids = [client.enqueue(resize, PICTURE), *client.enqueue_many("resize", [PICTURE])]
            cancelled = client.enqueue("resize", PICTURE, available_at=datetime.now(UTC) + timedelta(hours=1))
            assert client.cancel(cancelled) is JobStatus.CANCELLED
            client.retry(cancelled)
            assert client.get(cancelled).status is not JobStatus.CANCELLED
            return [client.wait(job_id, timeout=10).status for job_id in [*ids, cancelled]]

    async with engine.worker():
        assert await asyncio.to_thread(program) == [JobStatus.COMPLETED] * 3
    assert client_threads() == []


def test_a_sync_client_takes_its_settings_from_the_environment(
    database: FreshDatabase, environment: pytest.MonkeyPatch
) -> None:
    mail = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}
    with Client() as client:
        assert client.get(client.enqueue("send_email", mail)).queue == "email"


async def test_many_threads_share_one_client(engine: Engine) -> None:
    def program() -> list[int]:
        with Client(made(engine)) as client, ThreadPoolExecutor(8) as threads:
            return list(threads.map(lambda n: client.enqueue("resize", {**PICTURE, "sizes": [n]}), range(200)))

    ids = await asyncio.to_thread(program)
    assert len(set(ids)) == 200
    rows = dict(await engine.rows("SELECT id, (payload->'sizes'->>0)::int FROM jobs"))
    assert [rows[id] for id in ids] == list(range(200))


def test_a_sync_client_that_cannot_connect_says_so_and_leaves_no_thread(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("POSTGRES_PORT", str(free_port()))
    environment.setenv("POSTGRES_HOST", "127.0.0.1")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable), Client():
        pytest.fail("there is nothing to connect to")
    assert time.monotonic() - began < 15  # ten tries would take twenty seconds
    assert client_threads() == []
    environment.setenv("GOQUEUE_REDIS_PREFIX", "")
    with pytest.raises(SettingsError, match="GOQUEUE_REDIS_PREFIX"):
        Client()


async def test_a_thread_that_still_waits_when_the_client_closes_is_let_go(engine: Engine) -> None:
    began = threading.Event()

    def wait(client: Client, job_id: int) -> None:
        began.set()
        client.wait(job_id, timeout=60)

    def program() -> BaseException | None:
        with ThreadPoolExecutor(1) as threads:
            with Client(made(engine)) as client:
                waiting = threads.submit(wait, client, client.enqueue("resize", PICTURE))
                began.wait()
            return waiting.exception(timeout=50)

    # Cancelled while it waited; or, where it came just too late, told that the client is closed.
    assert isinstance(await asyncio.to_thread(program), CancelledError | RuntimeError)
    assert client_threads() == []


async def test_an_error_in_the_block_closes_the_client_and_after_it_nothing_works(engine: Engine) -> None:
    client = Client(made(engine))

    def program() -> None:
        with pytest.raises(RuntimeError, match="inside its `with` block"):
            client.get(1)
        with pytest.raises(ZeroDivisionError), client:
            raise ZeroDivisionError
        with pytest.raises(RuntimeError, match="inside its `with` block"):
            client.get(1)

    await asyncio.to_thread(program)
    assert client_threads() == []


def test_ctrl_c_interrupts_a_wait_and_closes_the_client(database: FreshDatabase, ready_queues: FreshRedis) -> None:
    code = (
        "import os, signal, threading\n"
        "from goqueue import Client\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever runs the tests may ignore it
        "with Client() as client:\n"
        "    mail = {'to': 'ada@example.org', 'subject': 'Hi', 'body': 'Hello'}\n"
        "    job_id = client.enqueue('send_email', mail)\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    client.wait(job_id, timeout=60)\n"
    )
    settings = {**os.environ, **database.environment, **ready_queues.environment}
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-Wd", "-c", code], env=settings, capture_output=True, text=True)
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")
    assert "Warning" not in ended.stderr
    assert "destroyed" not in ended.stderr
    assert time.monotonic() - began < 60  # that is how long it would wait
