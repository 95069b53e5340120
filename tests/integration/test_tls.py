"""TLS to PostgreSQL and Redis: spoken with whom the right CA vouches for, and with nobody else.

The embedded servers are built without TLS. Before each stands a proxy that ends it, as managed databases have one: the
handshake, which is what the settings are about, is between the product's own clients and a real TLS server.
"""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from goqueue.broker import Broker
from goqueue.errors import BrokerUnavailable, SettingsError, StoreUnavailable
from goqueue.settings import DatabaseSettings, PostgresSettings, RedisSettings, load
from goqueue.store.connect import Database, dsn
from tests.servers.stores import FreshDatabase, FreshRedis

SSL_REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])
"""How a client of PostgreSQL asks for TLS."""


@dataclass(frozen=True)
class Authority:
    """A CA of the test's own; what it signs lies beside its certificate."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def made(cls, folder: Path) -> "Authority":
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        unused = dict.fromkeys((*others, "crl_sign", "encipher_only", "decipher_only"), False)
        builder = _builder(name, name, key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, **unused), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = builder.add_extension(own, critical=False).sign(key, hashes.SHA256())
        (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, key, certificate)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, name: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        """A certificate and its key, for a server with these names or for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = _builder(subject, self.certificate.subject, key).add_extension(issuer, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        for path, content in zip(paths, (signed, private), strict=True):
            path.touch(0o600)
            path.write_bytes(content)
        return paths


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
    )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "ours")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "strangers")


class TlsProxy:
    """Ends TLS and forwards to a plain server; who does not speak TLS, or shows no wanted certificate, is cut off."""

    def __init__(self, target: tuple[str, int], context: ssl.SSLContext, *, postgres: bool) -> None:
        self._target = target
        self._context = context
        self._postgres = postgres
        self.port = 0
        self.served = 0
        """Connections over TLS that were forwarded."""

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator["TlsProxy"]:
        tls = None if self._postgres else self._context
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        tasks: list[asyncio.Task[None]] = []
        self._tasks = tasks
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            if self._postgres:
                if await reader.readexactly(8) != SSL_REQUEST:
                    writer.close()
                    return
                writer.write(b"S")
                await writer.start_tls(self._context)
            self.served += 1
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    finally:
        target.close()


def server_context(authority: Authority, *names: x509.GeneralName, clients: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", *names))
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca)
    return context


HERE = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
ELSEWHERE = (x509.DNSName("elsewhere.example"),)


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
