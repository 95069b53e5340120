"""A real API server process for each module, and a client for it."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from goqueue_cli.embedded import free_port
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis


@contextlib.contextmanager
def running_api(database: FreshDatabase, ready_queues: FreshRedis, folder: Path, **settings: str) -> Iterator[str]:
    """The address of a `goqueue api` with two server processes."""
    port = free_port()
    environment = {
        **database.environment,
        **ready_queues.environment,
        "GOQUEUE_API_PORT": str(port),
        "GOQUEUE_API_HEALTH_PORT": "0",
        "GOQUEUE_API_PROCESSES": "2",
        "GOQUEUE_QUEUES": "default,email,webhooks,payment,images",
        **settings,
    }
    with Process([GOQUEUE, "api"], log=folder / "log", environment=environment) as process:
        process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def api_url(
    database: FreshDatabase, ready_queues: FreshRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An API that is open, as no key was made and nobody else reaches it."""
    with running_api(database, ready_queues, tmp_path_factory.mktemp("api")) as url:
        yield url


@pytest.fixture
async def client(api_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API."""
    async with httpx.AsyncClient(base_url=api_url, timeout=10) as client:
        yield client
