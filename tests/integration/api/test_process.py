"""The server process: how it starts, refuses to start, and stops."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from goqueue.keys import Token
from goqueue.store import migrate
from goqueue_cli.embedded import free_port
from tests.integration.console import Console
from tests.integration.engine import eventually
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

ORDER = {"queue": "email", "payload": {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}}


@pytest.fixture
def environment(database: FreshDatabase, ready_queues: FreshRedis) -> dict[str, str]:
    ports = {"GOQUEUE_API_PORT": str(free_port()), "GOQUEUE_API_HEALTH_PORT": "0"}
    return {**database.environment, **ready_queues.environment, **ports}


@contextlib.contextmanager
def running(environment: dict[str, str], log: Path) -> Iterator[Process]:
    with Process([GOQUEUE, "api"], log=log, environment=environment) as process:
        process.wait_for_port(int(environment["GOQUEUE_API_PORT"]))
        yield process


@contextlib.asynccontextmanager
async def jobs_locked(database: FreshDatabase) -> AsyncIterator[psycopg.AsyncConnection]:
    """Nobody gets at `jobs` until the connection rolls back."""
    async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
        await connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        yield connection


async def wait_for_waiting(connection: psycopg.AsyncConnection) -> None:
    """Until another connection waits for a lock."""

    async def one_waits() -> bool:
        cursor = await connection.execute("SELECT FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass")
        return cursor.rowcount > 0

    await eventually(one_waits)


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_sigterm_finishes_the_request_in_flight_and_ends_with_0(
    environment: dict[str, str], database: FreshDatabase, tmp_path: Path, processes: str
) -> None:
    environment |= {"GOQUEUE_API_PROCESSES": processes, "GOQUEUE_API_REQUEST_TIMEOUT": "60"}
    url = f"http://127.0.0.1:{environment['GOQUEUE_API_PORT']}"

    async def stopping() -> bool:
        return "Shutting down" in (tmp_path / "log").read_text()

    with running(environment, tmp_path / "log") as process:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client, jobs_locked(database) as blocker:
            posting = asyncio.create_task(client.post("/jobs/create", json=ORDER))
            await wait_for_waiting(blocker)
            process.send(signal.SIGTERM)
            await eventually(stopping)
            await blocker.rollback()
            assert (await posting).status_code == 201
        assert await asyncio.to_thread(process.wait, 60) == 0


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"POSTGRES_PORT": "many"}, "POSTGRES_PORT"),
        ({"GOQUEUE_REDIS_CLUSTER": "perhaps"}, "GOQUEUE_REDIS_CLUSTER"),
        ({"GOQUEUE_API_HOST": "0.0.0.0"}, "GOQUEUE_API_HOST is 0.0.0.0, and there is no API key"),
        ({"GOQUEUE_API_BOOTSTRAP_KEY": "gq_short"}, "GOQUEUE_API_BOOTSTRAP_KEY"),
        ({"GOQUEUE_API_REQUEST_TIMEOUT": "-1"}, "GOQUEUE_API_REQUEST_TIMEOUT"),
        ({"POSTGRES_PORT": "1", "DB_MAX_RETRIES": "0", "DB_CONNECT_TIMEOUT": "1"}, "database is unavailable"),
    ],
)
def test_what_is_wrong_ends_the_process_with_one_line(
    environment: dict[str, str], tmp_path: Path, wrong: dict[str, str], line: str
) -> None:
    log = tmp_path / "log"
    environment |= {"GOQUEUE_API_PROCESSES": "2", "GOQUEUE_LOG_LEVEL": "error", **wrong}
    with Process([GOQUEUE, "api"], log=log, environment=environment) as process:
        assert process.wait(60) == 1
    said = log.read_text().splitlines()
    assert len(said) == 1, said
    assert line in said[0]


def test_an_old_schema_is_refused_with_the_command_that_helps(
    bare_database: FreshDatabase, ready_queues: FreshRedis, tmp_path: Path
) -> None:
    migrate.upgrade(bare_database.dsn, "0001")
    environment = {**bare_database.environment, **ready_queues.environment, "GOQUEUE_API_PROCESSES": "2"}
    with Process([GOQUEUE, "api"], log=tmp_path / "log", environment=environment) as process:
        assert process.wait(60) == 1
    assert "run `goqueue migrate`" in (tmp_path / "log").read_text()


async def test_a_client_that_sends_its_body_too_slowly_gets_408_and_one_that_leaves_is_no_error(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment["GOQUEUE_API_REQUEST_TIMEOUT"] = "500ms"
    port = int(environment["GOQUEUE_API_PORT"])
    begun = b"POST /jobs/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    with running(environment, tmp_path / "log"):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        await writer.drain()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'{"error":"request timeout"}' in answer
    assert '"level": "error"' not in (tmp_path / "log").read_text()


async def test_a_body_declared_too_large_is_refused_before_it_is_sent(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with running(environment, tmp_path / "log"):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(environment["GOQUEUE_API_PORT"]))
        writer.write(b"POST /jobs/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        answer = await reader.readuntil(b"}}")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_with_a_first_key_others_may_reach_it_and_its_secret_is_in_no_log(
    environment: dict[str, str], database: FreshDatabase, tmp_path: Path
) -> None:
    key = Token.new()
    environment |= {"GOQUEUE_API_HOST": "0.0.0.0", "GOQUEUE_API_BOOTSTRAP_KEY": key.text, "GOQUEUE_LOG_LEVEL": "debug"}
    url = f"http://127.0.0.1:{environment['GOQUEUE_API_PORT']}"
    for _ in range(2):  # the second time it is known already
        with running(environment, tmp_path / "log"):
            async with httpx.AsyncClient(base_url=url, timeout=15) as client:
                assert (await client.post("/jobs/create", json=ORDER)).status_code == 401
                client.headers["Authorization"] = f"Bearer {key.text}"
                assert (await client.post("/jobs/create", json=ORDER)).status_code == 201
        assert key.secret not in (tmp_path / "log").read_text()
    async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
        rows = await (await connection.execute("SELECT name, last_used_at IS NOT NULL FROM api_keys")).fetchall()
    assert rows == [("bootstrap", True)]


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_on_the_any_address_of_ipv6_both_families_are_served(
    environment: dict[str, str], tmp_path: Path, processes: str
) -> None:
    environment |= {"GOQUEUE_API_HOST": "::", "GOQUEUE_API_HEALTH_HOST": "::1", "GOQUEUE_API_AUTH": "off"}
    environment |= {"GOQUEUE_API_PROCESSES": processes, "GOQUEUE_API_HEALTH_PORT": str(free_port())}
    with running(environment, tmp_path / "log"):
        async with httpx.AsyncClient() as client:
            for host in ("127.0.0.1", "[::1]"):
                port = environment["GOQUEUE_API_PORT"]
                assert (await client.get(f"http://{host}:{port}/health")).status_code == 200
            assert (await client.get(f"http://[::1]:{environment['GOQUEUE_API_HEALTH_PORT']}/livez")).status_code == 200


async def test_an_ipv6_address_that_is_taken_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    environment |= {"GOQUEUE_API_HOST": "::1", "GOQUEUE_API_AUTH": "off"}
    with socket.create_server(("::1", int(environment["GOQUEUE_API_PORT"])), family=socket.AF_INET6):
        said = await Console(tmp_path, environment)("api")
    *logged, last = said.err.splitlines()
    assert said.code == 1
    assert all(line.startswith("{") for line in logged), said.err
    assert last.startswith("goqueue: ")
    assert "ddress already in use" in last
