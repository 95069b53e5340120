"""The API while one of its stores is away."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from tests.integration.engine import eventually
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

ORDER = {"queue": "email", "payload": {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}}


@pytest.fixture
def address(own_database: FreshDatabase, own_ready_queues: FreshRedis, tmp_path: Path) -> Iterator[str]:
    """An API on stores of its own."""
    port = free_port()
    environment = {
        **own_database.environment,
        **own_ready_queues.environment,
        "GOQUEUE_API_PORT": str(port),
        "GOQUEUE_API_HEALTH_PORT": "0",
    }
    with Process([GOQUEUE, "api"], log=tmp_path / "log", environment=environment) as process:
        process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def silent(server: EmbeddedValkey) -> Iterator[None]:
    """The server keeps its connections and says nothing, like a host that vanished."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_without_redis_jobs_are_still_accepted_and_the_api_says_it_is_degraded(
    address: str, own_valkey: EmbeddedValkey
) -> None:
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        own_valkey.kill()
        for _ in range(5):
            assert (await client.post("/jobs/create", json=ORDER)).status_code == 201
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        shown = (await client.get("/queues")).json()
        assert shown["degraded"] is True
        assert next(queue["depth"] for queue in shown["queues"] if queue["name"] == "email") == 5
        job = (await client.post("/jobs/create", json=ORDER)).json()
        assert (await client.post(f"/jobs/{job['id']}/cancel")).json() == {"status": "cancelled"}


async def test_a_silent_redis_holds_nobody_up_and_is_found_again(address: str, own_valkey: EmbeddedValkey) -> None:
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        jobs = [(await client.post("/jobs/create", json=ORDER)).json()["id"] for _ in range(10)]
        took: list[float] = []
        with silent(own_valkey):
            for _ in range(3):
                assert (await client.post("/jobs/create", json=ORDER)).status_code == 201
            while jobs and min(took, default=4.0) >= 4:  # other processes can only make it slower
                ready, queues, cancel, pause, delete = answers = await asyncio.gather(
                    client.get("/readyz"),
                    client.get("/queues"),
                    client.post(f"/jobs/{jobs.pop()}/cancel"),
                    client.post("/queues/email/pause"),
                    client.delete(f"/jobs/{jobs.pop()}"),
                )
                assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
                assert (queues.status_code, queues.json()["degraded"]) == (200, True)
                assert (cancel.status_code, pause.status_code, delete.status_code) == (200, 204, 204)
                took.append(max(answer.elapsed.total_seconds() for answer in answers))
        assert min(took) < 4, took  # a second each; without that patience it would be the four of the socket
        assert (await client.get("/readyz")).json() == {"status": "ok"}
        shown = (await client.get("/queues")).json()
        assert shown["degraded"] is False


async def test_without_postgres_every_answer_is_an_error_in_the_one_shape_and_it_recovers(
    address: str, own_postgres: EmbeddedPostgres
) -> None:
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        assert (await client.post("/jobs/create", json=ORDER)).status_code == 201
        own_postgres.kill()
        health = await client.get("/health/db")
        assert (health.status_code, health.json()) == (503, {"error": "database is unavailable"})
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200
        create = await client.post("/jobs/create", json=ORDER)
        assert (create.status_code, create.json()) == (500, {"error": "failed to add job to database"})
        assert (await client.get("/jobs/1")).status_code == 503
        own_postgres.start()

        async def is_ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await eventually(is_ready)
        assert (await client.post("/jobs/create", json=ORDER)).status_code == 201


async def test_a_request_that_waits_too_long_is_408(address: str, own_database: FreshDatabase) -> None:
    with psycopg.connect(own_database.dsn) as blocker:
        blocker.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            answer = await client.get("/jobs/1")  # waits for a lock no longer than any other session
            locked = {"error": "a row or table is locked by another transaction"}
            assert (answer.status_code, answer.json()) == (503, locked)
            answer = await client.post("/jobs/create", json=ORDER)
            assert (answer.status_code, answer.json()) == (408, {"error": "request timeout"})


async def test_a_failure_of_the_database_that_nobody_foresaw_is_500_in_the_one_shape(
    address: str, own_database: FreshDatabase
) -> None:
    with psycopg.connect(own_database.dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE jobs RENAME TO elsewhere")
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        create = await client.post("/jobs/create", json=ORDER)
        assert (create.status_code, create.json()) == (500, {"error": "failed to add job to database"})
        get = await client.get("/jobs/1", headers={"X-Request-ID": "me"})
        assert (get.status_code, get.json()) == (500, {"error": "internal server error"})
        assert get.headers["x-request-id"] == "me"
