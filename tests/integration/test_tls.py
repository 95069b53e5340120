"""TLS to PostgreSQL and Redis: spoken with whom the right CA vouches for, and with nobody else.

The embedded servers are built without TLS. Before each stands a proxy that ends it, as managed databases have one: the
handshake, which is what the settings are about, is between the product's own clients and a real TLS server.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, SettingsError, StoreUnavailable
from goqueue.settings import DatabaseSettings, PostgresSettings, RedisSettings, load
from goqueue.store.connect import Database, dsn
from tests.servers.stores import FreshDatabase, FreshRedis
from tests.servers.tls import ELSEWHERE, HERE, Authority, TlsProxy, server_context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "ours")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "strangers")


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


async def ask_postgres(database: FreshDatabase, port: int, **tls: Any) -> str:
    """The first thing that the database says over a connection as the settings describe it."""
    settings = DatabaseSettings(max_retries=0)
    password = SecretStr(database.server.password)
    postgres = PostgresSettings(
        host="localhost", port=port, user=database.server.user, password=password, db=database.name, **tls
    )
    pool = Database(dsn(postgres, settings), settings)
    await pool.open(settings)
    try:
        async with pool.connection() as connection:
            row = await (await connection.execute("SELECT version_num FROM goqueue_schema")).fetchone()
            assert row is not None
            assert connection.pgconn.ssl_in_use
            return str(row[0])
    finally:
        await pool.close()


@contextlib.asynccontextmanager
async def postgres_behind(database: FreshDatabase, context: ssl.SSLContext) -> AsyncIterator[TlsProxy]:
    async with TlsProxy((database.server.host, database.server.port), context, postgres=True).run() as proxy:
        yield proxy


async def test_postgresql_is_spoken_to_over_tls_when_its_name_and_authority_are_right(
    database: FreshDatabase, authority: Authority
) -> None:
    async with postgres_behind(database, server_context(authority, *HERE)) as proxy:
        assert await ask_postgres(database, proxy.port, sslmode="verify-full", sslrootcert=authority.ca)
        assert proxy.served >= 2


async def test_a_postgresql_of_another_authority_or_name_and_a_plain_one_are_refused(
    database: FreshDatabase, authority: Authority, stranger: Authority
) -> None:
    async with postgres_behind(database, server_context(authority, *HERE)) as proxy:
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            await ask_postgres(database, proxy.port, sslmode="verify-full", sslrootcert=stranger.ca)
    async with postgres_behind(database, server_context(authority, *ELSEWHERE)) as proxy:
        with pytest.raises(StoreUnavailable, match="does not match host name"):
            await ask_postgres(database, proxy.port, sslmode="verify-full", sslrootcert=authority.ca)
        assert await ask_postgres(database, proxy.port, sslmode="verify-ca", sslrootcert=authority.ca)
    with pytest.raises(StoreUnavailable, match="server does not support SSL"):
        await ask_postgres(database, database.server.port, sslmode="verify-full", sslrootcert=authority.ca)


async def test_a_postgresql_that_wants_tls_is_not_spoken_to_in_the_clear(
    database: FreshDatabase, authority: Authority
) -> None:
    async with postgres_behind(database, server_context(authority, *HERE)) as proxy:
        with pytest.raises(StoreUnavailable):
            await ask_postgres(database, proxy.port, sslmode="disable")
        assert proxy.served == 0


async def test_a_client_certificate_is_shown_to_a_postgresql_that_asks_for_one(
    database: FreshDatabase, authority: Authority, stranger: Authority
) -> None:
    full: dict[str, Any] = {"sslmode": "verify-full", "sslrootcert": authority.ca}
    certificate, key = authority.issue("goqueue")
    other_certificate, other_key = stranger.issue("goqueue")
    async with postgres_behind(database, server_context(authority, *HERE, clients=True)) as proxy:
        assert await ask_postgres(database, proxy.port, **full, sslcert=certificate, sslkey=key)
        with pytest.raises(StoreUnavailable):
            await ask_postgres(database, proxy.port, **full)
        with pytest.raises(StoreUnavailable):
            await ask_postgres(database, proxy.port, **full, sslcert=other_certificate, sslkey=other_key)


# --- Redis -----------------------------------------------------------------------------------------------------------


async def ask_redis(queues: FreshRedis, port: int, scheme: str = "rediss", **tls: Any) -> None:
    url = f"{scheme}://:{queues.server.password}@localhost:{port}/{queues.database}"
    broker = Broker(RedisSettings(url=SecretStr(url), prefix=queues.prefix, **tls))
    try:
        await broker.ping()
        await broker.begin_epoch()
        assert await broker.complete_epoch("mark")
        assert await broker.epoch() == "mark"
        assert await broker.fetch(["default"], 1, block=0.01) == []
    finally:
        await broker.close()


@contextlib.asynccontextmanager
async def redis_behind(queues: FreshRedis, context: ssl.SSLContext) -> AsyncIterator[TlsProxy]:
    async with TlsProxy((queues.server.host, queues.server.port), context, postgres=False).run() as proxy:
        yield proxy


async def test_redis_is_spoken_to_over_tls_when_its_name_and_authority_are_right(
    ready_queues: FreshRedis, authority: Authority
) -> None:
    async with redis_behind(ready_queues, server_context(authority, *HERE)) as proxy:
        await ask_redis(ready_queues, proxy.port, tls_ca=authority.ca)
        assert proxy.served >= 1


async def test_a_redis_of_another_authority_or_name_and_a_plain_one_are_refused(
    ready_queues: FreshRedis, authority: Authority, stranger: Authority
) -> None:
    async with redis_behind(ready_queues, server_context(authority, *HERE)) as proxy:
        for ca in (stranger.ca, None):
            with pytest.raises(BrokerUnavailable):
                await ask_redis(ready_queues, proxy.port, tls_ca=ca)
        with pytest.raises(BrokerUnavailable):
            await ask_redis(ready_queues, proxy.port, "redis")
        assert proxy.served == 0
    async with redis_behind(ready_queues, server_context(authority, *ELSEWHERE)) as proxy:
        with pytest.raises(BrokerUnavailable):
            await ask_redis(ready_queues, proxy.port, tls_ca=authority.ca)
    with pytest.raises(BrokerUnavailable):
        await ask_redis(ready_queues, ready_queues.server.port, tls_ca=authority.ca)


async def test_a_client_certificate_is_shown_to_a_redis_that_asks_for_one(
    ready_queues: FreshRedis, authority: Authority
) -> None:
    certificate, key = authority.issue("goqueue")
    async with redis_behind(ready_queues, server_context(authority, *HERE, clients=True)) as proxy:
        await ask_redis(ready_queues, proxy.port, tls_ca=authority.ca, tls_cert=certificate, tls_key=key)
        with pytest.raises(BrokerUnavailable):
            await ask_redis(ready_queues, proxy.port, tls_ca=authority.ca)


async def test_behind_sentinel_master_and_sentinels_are_spoken_to_over_tls(authority: Authority) -> None:
    from redis.asyncio.connection import SSLConnection

    settings = RedisSettings(
        url=SecretStr("rediss://:secret@ignored/0"), sentinel_hosts=["localhost:26379"], tls_ca=authority.ca
    )
    broker = Broker(settings)
    pool = broker._redis.connection_pool
    assert issubclass(pool.connection_class, SSLConnection)
    (sentinel,) = pool.sentinel_manager.sentinels
    assert issubclass(sentinel.connection_pool.connection_class, SSLConnection)
    assert sentinel.connection_pool.connection_kwargs["ssl_ca_certs"] == str(authority.ca)
    await broker.close()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"GOQUEUE_REDIS_TLS_CA": "/ca", "GOQUEUE_REDIS_URL": "redis://here"}, "begins with rediss://"),
        ({"GOQUEUE_REDIS_TLS_CERT": "/c", "GOQUEUE_REDIS_URL": "rediss://here"}, "belong together"),
    ],
)
def test_settings_that_would_not_be_heeded_are_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        load(RedisSettings)
