"""Fixtures for every tier: real servers for the run, fresh databases and queues for each module.

Nothing is started before a test asks for it.
"""

import contextlib
import itertools
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.servers.gotools import (
    MAILPIT,
    STRIPE_MOCK,
    Mailpit,
    StripeMock,
    build,
    is_built,
    run_mailpit,
    run_stripe_mock,
)
from tests.servers.jaeger import Jaeger, build_jaeger, jaeger_is_built, run_jaeger
from tests.servers.stores import FreshDatabase, FreshRedis, fresh_database

_LOGICAL_DATABASES = 1024
_next_database = itertools.count(1)


BUILT: dict[str, tuple[Callable[[], bool], Callable[[], Path]]] = {
    "stripe_mock": (partial(is_built, STRIPE_MOCK), partial(build, STRIPE_MOCK)),
    "mailpit": (partial(is_built, MAILPIT), partial(build, MAILPIT)),
    "jaeger": (jaeger_is_built, build_jaeger),
}
"""Fixtures whose servers are built from source, what takes longest last: whether that is done, and how to."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Build the servers that tests need beside the first tests; those that need them come last and may wait."""
    last: dict[pytest.Item, int] = {}
    missing = []
    for place, (fixture, (is_there, _)) in enumerate(BUILT.items(), 1):
        waiting = [item for item in items if fixture in getattr(item, "fixturenames", ())]
        if waiting and not is_there():
            missing.append(fixture)
            last |= dict.fromkeys(waiting, place)
    if not missing:
        return
    threading.Thread(target=_build, args=(missing,), name="build", daemon=True).start()
    for item in last:
        item.add_marker(pytest.mark.timeout(1200), append=False)  # before a limit of the test's own
    items.sort(key=lambda item: last.get(item, 0))


def _build(fixtures: list[str]) -> None:
    for fixture in fixtures:
        # One that fails does so again, and says why, where a test asks for it.
        with contextlib.suppress(RuntimeError):
            BUILT[fixture][1]()


def _new_folder(name: str) -> Path:
    # Not pytest's own temporary folder, which is closed to `nobody` (PostgreSQL's user where the tests run as root) and
    # would outlive the server.
    return Path(tempfile.mkdtemp(prefix=f"goqueue-{name}-"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for the whole run, durable (fsync on). Do not stop it: `own_postgres` is for that."""
    with EmbeddedPostgres(_new_folder("postgres"), ephemeral=True) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[EmbeddedValkey]:
    """One Valkey for the whole run. Do not stop or FLUSHALL it: `own_valkey` is for that."""
    databases = {"databases": str(_LOGICAL_DATABASES)}
    with EmbeddedValkey(_new_folder("valkey"), ephemeral=True, settings=databases) as server:
        yield server


@pytest.fixture(scope="module")
def database(postgres_server: EmbeddedPostgres) -> Iterator[FreshDatabase]:
    """A database with the newest schema and no rows, for this module; dropped after it."""
    with fresh_database(postgres_server) as fresh:
        yield fresh


@pytest.fixture
def bare_database(postgres_server: EmbeddedPostgres) -> Iterator[FreshDatabase]:
    """A database with nothing in it, for this test; dropped after it. For tests of the migrations."""
    with fresh_database(postgres_server, migrated=False) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def ready_queues(valkey_server: EmbeddedValkey) -> Iterator[FreshRedis]:
    """An empty logical database of Valkey and a prefix of its own, for this module; flushed after it."""
    fresh = FreshRedis(valkey_server, next(_next_database), "{" + f"test-{secrets.token_hex(4)}" + "}")
    yield fresh
    with redis.Redis.from_url(fresh.url) as client:
        client.flushdb()


@pytest.fixture(scope="module")
def redis_prefix(ready_queues: FreshRedis) -> str:
    """The key prefix of this module's ready queues."""
    return ready_queues.prefix


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL for this test alone, to be stopped, killed and started again (about a second to start)."""
    with EmbeddedPostgres(_new_folder("postgres"), ephemeral=True) as server:
        yield server


@pytest.fixture
def own_database(own_postgres: EmbeddedPostgres) -> Iterator[FreshDatabase]:
    """A migrated database on `own_postgres`."""
    with fresh_database(own_postgres) as fresh:
        yield fresh


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey for this test alone, to be flushed, stopped, killed and started again; it forgets all at each stop."""
    with EmbeddedValkey(_new_folder("valkey"), ephemeral=True) as server:
        yield server


@pytest.fixture
def own_ready_queues(own_valkey: EmbeddedValkey) -> FreshRedis:
    """Ready queues on `own_valkey`."""
    return FreshRedis(own_valkey, 0, "{goqueue}")


@pytest.fixture(scope="session")
def mailpit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailpit]:
    """A real SMTP server that shows what it received. Built from source at the first use on a machine (a minute)."""
    with run_mailpit(tmp_path_factory.mktemp("mailpit")) as server:
        yield server


@pytest.fixture(scope="session")
def stripe_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeMock]:
    """Stripe's own mock of its API. Built from source at the first use on a machine (seconds)."""
    with run_stripe_mock(tmp_path_factory.mktemp("stripe-mock")) as server:
        yield server


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A real Jaeger that takes OTLP. Built from source at the first use on a machine (six minutes of a core)."""
    with run_jaeger(tmp_path_factory.mktemp("jaeger")) as server:
        yield server
