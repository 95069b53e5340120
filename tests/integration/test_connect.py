"""How a process comes to its database, and leaves one that takes no writes."""

import asyncio
import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from goqueue.errors import GoQueueError, StoreUnavailable, UnfitDatabase
from goqueue.settings import DatabaseSettings, EngineSettings, PostgresSettings
from goqueue.store import migrate
from goqueue.store.connect import Database, dsn
from goqueue_cli.embedded import EmbeddedPostgres
from goqueue_cli.keeper import LOOPBACK
from goqueue_worker.membership import Membership
from goqueue_worker.standing import Standing
from tests.integration.engine import eventually
from tests.servers.stores import FreshDatabase

PASSWORD = "wrong-and-secret"


def address(server: EmbeddedPostgres, password: str | None = None, name: str = "goqueue", timeout: int = 5) -> str:
    secret = SecretStr(password or server.password)
    settings = PostgresSettings(host=server.host, port=server.port, user=server.user, password=secret, db=name)
    return dsn(settings, DatabaseSettings(connect_timeout=timeout))


@contextlib.asynccontextmanager
async def opened(conninfo: str, settings: DatabaseSettings) -> AsyncIterator[Database]:
    database = Database(conninfo, settings)
    await database.open(settings)
    try:
        yield database
    finally:
        await database.close()


async def test_a_process_started_before_its_database_waits_for_it(own_postgres: EmbeddedPostgres) -> None:
    own_postgres.stop()
    settings = DatabaseSettings(max_retries=1000, retry_delay=0.05)

    async def ask() -> int:
        async with opened(address(own_postgres), settings) as database, database.connection() as connection:
            row = await (await connection.execute("SELECT 1")).fetchone()
            assert row is not None
            return int(row[0])

    asking = asyncio.create_task(ask())
    await asyncio.to_thread(own_postgres.start)
    assert await asyncio.wait_for(asking, 60) == 1


@pytest.mark.parametrize("retries", [0, 3])
async def test_it_gives_up_after_as_many_attempts_as_the_setting_says_and_tells_the_reason(
    own_postgres: EmbeddedPostgres, retries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_postgres.stop()
    attempts = 0
    connect = psycopg.AsyncConnection.connect

    async def counted(conninfo: str) -> psycopg.AsyncConnection:
        nonlocal attempts
        attempts += 1
        return await connect(conninfo)

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", counted)
    with pytest.raises(StoreUnavailable, match="Connection refused"):
        async with opened(address(own_postgres), DatabaseSettings(max_retries=retries, retry_delay=0.01)):
            pass
    assert attempts == retries + 1


async def test_libpqs_own_variables_lead_to_no_other_server(
    own_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.2")  # where nobody listens
    named = PostgresSettings(
        user=own_postgres.user,
        password=SecretStr(own_postgres.password),
        db=own_postgres.database,
        host=f" {own_postgres.host} ,{own_postgres.host}",
        port=own_postgres.port,
    )
    settings = DatabaseSettings(max_retries=0)
    database = Database(dsn(named, settings), settings)
    await database.open(settings)
    async with database.connection() as connection:
        assert connection.info.hostaddr == own_postgres.host
    await database.close()


async def test_a_refused_password_is_the_reason_and_is_not_shown(own_postgres: EmbeddedPostgres) -> None:
    with pytest.raises(StoreUnavailable, match="password authentication failed") as caught:
        async with opened(address(own_postgres, PASSWORD), DatabaseSettings(max_retries=0)):
            pass
    assert PASSWORD not in str(caught.value)


async def test_a_server_that_became_read_only_is_left_until_one_takes_writes(own_database: FreshDatabase) -> None:
    server = own_database.server
    with psycopg.connect(own_database.dsn, autocommit=True) as admin:
        admin.execute("SET default_transaction_read_only = off")

        def read_only(value: str) -> None:
            admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            admin.execute("SELECT pg_reload_conf()")

        settings = DatabaseSettings(max_retries=0, connect_timeout=1)
        async with opened(address(server, name=own_database.name), settings) as database:

            async def writes() -> bool:
                try:
                    async with database.connection() as connection:
                        await connection.execute("UPDATE jobs SET priority = 0")
                except StoreUnavailable:
                    return False
                return True

            async def refuses() -> bool:
                return not await writes()

            assert await writes()
            read_only("on")
            await eventually(refuses)
            assert not await writes()  # a new connection is no way around it
            read_only("off")
            await eventually(writes)


@contextlib.contextmanager
def mute_host() -> Iterator[int]:
    """The port of a server that accepts connections and says nothing."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


async def test_a_mute_host_costs_its_own_timeout_and_the_next_one_is_used(own_postgres: EmbeddedPostgres) -> None:
    settings = DatabaseSettings(max_retries=0, connect_timeout=2)
    with mute_host() as port:
        hosts = make_conninfo(
            address(own_postgres, timeout=2), host=f"localhost,{LOOPBACK}", port=f"{port},{own_postgres.port}"
        )
        async with opened(hosts, settings) as database:
            began = time.monotonic()
            # New connections know which host answers: not one of them waits for the mute one.
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(4):
                    connection = await stack.enter_async_context(database.connection())
                    assert connection.info.port == own_postgres.port
            assert time.monotonic() - began < 2


async def test_a_client_with_an_address_of_its_own_gives_each_host_the_time_of_the_setting(
    own_postgres: EmbeddedPostgres,
) -> None:
    with mute_host() as port:
        hosts = make_conninfo(own_postgres.dsn, host=f"localhost,{LOOPBACK}", port=f"{port},{own_postgres.port}")
        settings = DatabaseSettings(max_retries=0, connect_timeout=2)
        async with opened(hosts, settings) as database, database.connection() as connection:
            assert connection.info.port == own_postgres.port


def test_a_heartbeat_passes_by_a_mute_host(own_database: FreshDatabase) -> None:
    joined = threading.Event()
    with mute_host() as port:
        server = own_database.server
        hosts = make_conninfo(own_database.dsn, host=f"localhost,{LOOPBACK}", port=f"{port},{server.port}")
        engine = EngineSettings(lease_seconds=9, heartbeat_seconds=1)
        standing = Standing(0, False, {})
        membership = Membership(
            hosts, engine, "w", ["default"], 1, lambda: standing, lambda _: joined.set(), lambda: None
        )
        membership.start()
        assert joined.wait(20)
        membership.leave(empty=True)


async def test_of_a_list_of_hosts_the_one_that_takes_writes_is_used(own_postgres: EmbeddedPostgres) -> None:
    with EmbeddedPostgres(Path(tempfile.mkdtemp(prefix="goqueue-read-only-")), ephemeral=True) as standby:
        with psycopg.connect(standby.dsn, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            admin.execute("SELECT pg_reload_conf()")
        password = f"'{standby.password}'"
        with psycopg.connect(own_postgres.dsn, autocommit=True) as admin:
            admin.execute(f"ALTER ROLE goqueue PASSWORD {password}".encode())
        hosts = make_conninfo(
            address(standby), host=f"{LOOPBACK},{LOOPBACK}", port=f"{standby.port},{own_postgres.port}"
        )
        async with opened(hosts, DatabaseSettings(max_retries=0)) as database, database.connection() as connection:
            assert connection.info.port == own_postgres.port
        alone = make_conninfo(address(standby))
        with pytest.raises(StoreUnavailable, match="needs a server that takes writes"):
            async with opened(alone, DatabaseSettings(max_retries=0)):
                pass


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_is_not_utf8_is_refused_with_the_cure(
    postgres_server: EmbeddedPostgres, encoding: str
) -> None:
    name = f"test_{encoding.lower()}"
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'".encode()
        )
        try:
            cure = f"is encoded in {encoding}, .* ENCODING 'UTF8'"
            with pytest.raises(UnfitDatabase, match=cure):
                async with opened(postgres_server.dsn_for(name), DatabaseSettings(max_retries=3)):
                    pass
            with pytest.raises(UnfitDatabase, match=cure):
                migrate.upgrade(postgres_server.dsn_for(name))
        finally:
            admin.execute(f"DROP DATABASE {name}".encode())


async def test_a_host_name_that_cannot_be_one_is_one_line() -> None:
    with pytest.raises(GoQueueError, match=r"POSTGRES_\*|unavailable"):
        async with opened("host=a..b dbname=x", DatabaseSettings(max_retries=0)):
            pass
