"""What the client shows and steers beside enqueueing; and how it finds its stores and job types."""

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from goqueue import AsyncClient, Client, InvalidInput, JobContext, NotFound
from goqueue.lifecycle import JobStatus
from goqueue.overview import QueueState
from goqueue.settings import DatabaseSettings
from goqueue_cli.embedded import free_port
from tests.integration.engine import Engine, eventually
from tests.servers.stores import FreshDatabase, FreshRedis

ONCE = DatabaseSettings(max_retries=0, connect_timeout=2)


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[AsyncClient]:
    async def work(payload: Any, job: JobContext) -> None:
        job.log(f"attempt {job.attempt}")
        raise RuntimeError("no")

    engine.handle("work", work)
    async with AsyncClient(engine.dsn, engine.redis, registry=engine.registry, database=ONCE, queues=[]) as client:
        yield client


async def test_jobs_are_found_by_every_filter_of_a_listing(client: AsyncClient) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    ids = [await client.enqueue("work", {}, queue=queue) for queue in ("default", "email", "email")]
    await client.cancel(ids[1])

    async def found(**wanted: Any) -> list[int]:
        return [job.id for job in await client.find(**wanted)]

    assert await found() == ids
    assert await found(newest_first=True, limit=2) == [ids[2], ids[1]]
    assert await found(newest_first=True, after=ids[1]) == [ids[0]]
    assert await found(queue="email") == ids[1:]
    assert await found(queue="email", status="cancelled") == [ids[1]]
    assert await found(status=JobStatus.PENDING, type="work") == [ids[0], ids[2]]
    assert await found(type="other") == []
    assert await found(created_after=later) == []
    assert await found(created_before=later) == ids
    assert await found(limit=0) == []
    with pytest.raises(InvalidInput, match=r"^invalid status: provided lost; allowed pending, processing,"):
        await client.find(status="lost")


async def test_attempts_and_log_lines_are_shown_with_their_rounds(engine: Engine, client: AsyncClient) -> None:
    job_id = await client.enqueue("work", {}, max_retries=0)
    async with engine.worker():
        await client.wait(job_id, 10)
        await client.retry(job_id)
        await client.wait(job_id, 10)
    assert [(one.round, one.attempt, one.outcome, one.error) for one in await client.attempts(job_id)] == [
        (1, 1, "failed", "RuntimeError: no"),
        (2, 1, "failed", "RuntimeError: no"),
    ]
    lines = await client.logs(job_id)
    assert [(line["attempt"], line["message"]) for line in lines] == [(1, "attempt 1")] * 2
    assert await client.logs(job_id, after=lines[0]["id"]) == lines[1:]
    assert await client.logs(job_id, limit=1) == lines[:1]
    for ask in (client.attempts, client.logs, client.delete):
        with pytest.raises(NotFound):
            await ask(job_id + 1)
    await client.delete(job_id)
    with pytest.raises(NotFound):
        await client.get(job_id)


async def test_queues_are_shown_paused_and_resumed(client: AsyncClient) -> None:
    await client.enqueue("work", {}, queue="email")
    await client.pause("email")
    shown = {queue.name: queue for queue in await client.queues()}
    assert list(shown) == ["default", "email", "webhooks", "payment"]
    assert (shown["email"].paused, shown["email"].depth, shown["email"].in_flight) == (True, 1, 0)
    assert shown["default"] == QueueState("default", False, 0, None, 0, 0)
    await client.resume("email")
    assert not any(queue.paused for queue in await client.queues())


async def test_a_queue_tells_how_many_workers_serve_it(engine: Engine, client: AsyncClient) -> None:
    async def served() -> dict[str, int]:
        return {queue.name: queue.workers for queue in await client.queues()}

    async def only_default_is_served_twice() -> bool:
        return await served() == {"default": 2, "email": 0, "webhooks": 0, "payment": 0}

    async def none_is_served() -> bool:
        return set((await served()).values()) == {0}

    async with engine.worker(queues=["default"]), engine.worker(queues=["default"]):
        await eventually(only_default_is_served_twice)
    await eventually(none_is_served)


async def test_a_queue_that_the_process_does_not_know_is_shown_and_paused_while_it_is_in_use(
    engine: Engine, client: AsyncClient
) -> None:
    async def names() -> list[str]:
        return [queue.name for queue in await client.queues()][4:]

    job_id = await engine.enqueue("squeeze", "lemons")
    done = await engine.enqueue("squeeze", "apples")
    scheduled = await engine.enqueue("squeeze", "pears", available_at=datetime.now(UTC) + timedelta(days=1))
    await client.cancel(done)
    assert await names() == ["lemons", "pears"]
    await client.pause("lemons")
    await client.cancel(job_id)
    await client.cancel(scheduled)
    assert await names() == ["lemons"]  # for its pause
    await client.resume("lemons")
    assert await names() == []
    for steer in (client.pause, client.resume):
        with pytest.raises(InvalidInput, match=r"^invalid queue: provided lemons; allowed default, email, payment,"):
            await steer("lemons")
    assert await engine.rows("SELECT name FROM queues WHERE paused_at IS NOT NULL") == []


async def test_jobs_of_an_unknown_queue_below_the_floor_are_seen(engine: Engine, client: AsyncClient) -> None:
    await engine.enqueue("squeeze", "lemons")
    async with engine.database.connection() as connection:
        await connection.execute("UPDATE jobs SET dispatch_at = available_at")
        await connection.execute("UPDATE dispatch_floor SET id = (SELECT max(id) + 1 FROM jobs)")
    try:
        assert [queue.name for queue in await client.queues()][4:] == ["lemons"]
    finally:
        await engine.rows("UPDATE dispatch_floor SET id = 0 RETURNING id")


async def test_a_wait_that_runs_out_says_in_which_state_the_job_is(client: AsyncClient) -> None:
    job_id = await client.enqueue("work", {})
    with pytest.raises(TimeoutError, match=rf"^job {job_id} is still pending after 0\.1 s$"):
        await client.wait(job_id, timeout=0.1)


async def test_a_client_is_opened_and_closed_without_a_block_and_may_be_opened_again(engine: Engine) -> None:
    engine.handle("work", lambda payload, job: None)
    client = AsyncClient(engine.dsn, engine.redis, registry=engine.registry, database=ONCE)
    assert await client.open() is client
    job_id = await client.enqueue("work", {})
    await client.close()
    await client.open()
    assert (await client.get(job_id)).id == job_id
    await client.close()

    def program() -> None:
        client = Client(AsyncClient(engine.dsn, engine.redis, registry=engine.registry, database=ONCE))
        for _ in range(2):
            assert client.open().get(job_id).id == job_id
            client.close()
            with pytest.raises(RuntimeError, match="inside its `with` block only, or between `open` and `close`"):
                client.get(job_id)

    await asyncio.to_thread(program)


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, callable)
            if not name.startswith("_") and name not in ("load_types", "in_child")
        }

    assert methods(Client) == methods(AsyncClient)
    for kind in (AsyncClient, Client):
        assert all(getattr(kind, name).__doc__ for name in methods(kind))


# --- how it finds stores and types -----------------------------------------------------------------------------------

MODULE = """
from pydantic import BaseModel
from goqueue import job_type

class Squeeze(BaseModel):
    lemons: int = 1

@job_type("squeeze", payload=Squeeze, queue="lemons")
async def squeeze(payload, job): ...
"""

BY_NAME = "from goqueue import Client\nwith Client() as client: print(client.get(client.enqueue('squeeze', {})).queue)"


def program(code: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A user's program in a folder, with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "GOQUEUE_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "DB_MAX_RETRIES": "0", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def dev_file(folder: Path, **values: str) -> None:
    """What `goqueue dev` leaves there while it runs."""
    (folder / ".goqueue").mkdir()
    path = folder / ".goqueue" / "environment"
    path.touch(0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))


@pytest.mark.timeout(180)
def test_a_program_beside_goqueue_dev_finds_its_stores_and_its_types_by_itself(
    database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    (tmp_path / "lemonade.py").write_text(MODULE)
    dev_file(tmp_path, **database.environment, **ready_queues.environment, GOQUEUE_JOBS="lemonade")
    below = tmp_path / "scripts" / "daily"
    below.mkdir(parents=True)
    for folder in (tmp_path, below):
        done = program(BY_NAME, folder, PYTHONPATH=str(tmp_path), GOQUEUE_REDIS_URL="redis://nowhere")
        assert (done.stdout, done.stderr) == ("lemons\n", "")
    done = program(BY_NAME, tmp_path, PYTHONPATH=str(tmp_path), GOQUEUE_JOBS="no_such_module")
    assert "GOQUEUE_JOBS: cannot import 'no_such_module'" in done.stderr.splitlines()[-1]
    done = program(BY_NAME, tmp_path, PYTHONPATH=str(tmp_path), GOQUEUE_JOBS="")
    assert done.stderr.splitlines()[-1].startswith("goqueue.errors.InvalidInput: invalid job type: provided squeeze; ")


@pytest.mark.timeout(180)
def test_a_program_whose_environment_names_a_database_never_looks_at_goqueue_dev(
    database: FreshDatabase, tmp_path: Path
) -> None:
    dev_file(tmp_path, **database.environment)
    done = program(BY_NAME, tmp_path, POSTGRES_HOST="127.0.0.1", POSTGRES_PORT=str(free_port()))
    assert "database is unavailable" in done.stderr
    assert "goqueue dev" not in done.stderr


@pytest.mark.timeout(180)
def test_the_first_failed_attempt_is_told_on_standard_error_with_the_cure(tmp_path: Path) -> None:
    settings = {"DB_MAX_RETRIES": "2", "DB_RETRY_DELAY": "0.01"}
    done = program(
        "from goqueue.settings import PostgresSettings as P\n"
        f"P.model_fields['port'].default = {free_port()}\nP.model_rebuild(force=True)\n{BY_NAME}",
        tmp_path,
        **settings,
    )
    assert done.stdout == ""
    first, second, *_ = done.stderr.splitlines()
    assert first.startswith("database is unavailable (reason: connection failed: ")
    assert "attempts_left: 2" in first
    assert "hint: no POSTGRES_* is set, and no `goqueue dev` runs in this folder or above it" in first
    assert "attempts_left: 1" in second
    assert "hint" not in second
