"""How a process comes to its database, and leaves one that takes no writes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import psycopg
import pytest
from pydantic import SecretStr

from goqueue.errors import StoreUnavailable
from goqueue.settings import DatabaseSettings, PostgresSettings
from goqueue.store.connect import Database, dsn
from goqueue_cli.embedded import EmbeddedPostgres
from tests.integration.engine import eventually
from tests.servers.stores import FreshDatabase

PASSWORD = "wrong-and-secret"


def address(server: EmbeddedPostgres, password: str | None = None, name: str = "goqueue") -> str:
    secret = SecretStr(password or server.password)
    settings = PostgresSettings(host=server.host, port=server.port, user=server.user, password=secret, db=name)
    return dsn(settings, DatabaseSettings())


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
