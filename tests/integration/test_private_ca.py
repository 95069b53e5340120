"""Which client takes which private CA: from Python 3.13 on Python's own contexts want more of one than OpenSSL does.

The table stands in docs/security.md, and so does the command that makes a CA for all of them.
"""

import asyncio
import contextlib
import re
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import aiosmtplib
import grpc  # type: ignore[import-untyped]
import httpx
import psycopg
import pytest
import requests
from pydantic import SecretStr

from goqueue.broker import Broker
from goqueue.settings import RedisSettings
from goqueue_cli.embedded import free_port
from tests.servers.tls import HERE, Authority, TlsProxy, server_context

STRICT = sys.version_info >= (3, 13)
"""Whether `ssl.create_default_context` sets VERIFY_X509_STRICT."""

NO_KEY_USAGE = "CA cert does not include key usage extension"
NO_AUTHORITY = "Missing Authority Key Identifier"

Client = Callable[[int, Path], object]
"""Connects to a port of localhost and believes a CA file; raises where it does not."""


def libpq(port: int, ca: Path) -> None:
    psycopg.connect(host="localhost", port=port, sslmode="verify-full", sslrootcert=str(ca), connect_timeout=5)


def redis_py(port: int, ca: Path) -> None:
    async def ping() -> None:
        broker = Broker(RedisSettings(url=SecretStr(f"rediss://localhost:{port}/0"), tls_ca=ca))
        try:
            await broker.ping()
        finally:
            await broker.close()

    asyncio.run(ping())


def urllib_of_oidc(port: int, ca: Path) -> None:
    context = ssl.create_default_context(cafile=ca)
    urllib.request.urlopen(f"https://localhost:{port}/", context=context, timeout=5)


def httpx_of_webhooks(port: int, ca: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(ca))
        httpx.get(f"https://localhost:{port}/", verify=httpx.create_ssl_context(), timeout=5)


def requests_of_otlp(port: int, ca: Path) -> None:
    requests.get(f"https://localhost:{port}/", verify=str(ca), timeout=5)


def grpc_of_otlp(port: int, ca: Path) -> None:
    with grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(ca.read_bytes())) as channel:
        grpc.channel_ready_future(channel).result(timeout=2)


def aiohttp_of_the_operator(port: int, ca: Path) -> None:
    async def get() -> None:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca))
        async with aiohttp.ClientSession(connector=connector) as session, session.get(f"https://localhost:{port}/"):
            pass

    asyncio.run(get())


def aiosmtplib_of_mail(port: int, ca: Path) -> None:
    context = ssl.create_default_context(cafile=ca)
    client = aiosmtplib.SMTP(hostname="localhost", port=port, use_tls=True, tls_context=context, timeout=2)
    asyncio.run(client.connect())


PYTHONS: list[Client] = [
    redis_py,
    urllib_of_oidc,
    httpx_of_webhooks,
    requests_of_otlp,
    aiohttp_of_the_operator,
    aiosmtplib_of_mail,
]
OPENSSLS: list[Client] = [libpq, grpc_of_otlp]


@contextlib.asynccontextmanager
async def served(context: ssl.SSLContext, *, postgres: bool) -> AsyncIterator[TlsProxy]:
    """A server that ends each connection after the handshake."""
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with TlsProxy(("127.0.0.1", free_port()), context, postgres=postgres).run() as server:
        yield server


async def refusal(client: Client, context: ssl.SSLContext, ca: Path) -> str:
    """Why the client broke off the handshake; empty where it did not."""
    async with served(context, postgres=client is libpq) as server:
        said = ""
        try:
            await asyncio.to_thread(client, server.port, ca)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        return "" if server.served else said


@pytest.fixture(params=["key_usage", "names_itself"])
def lacking(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Authority, str]:
    """A CA that lacks something, and the words for it."""
    authority = Authority.made(tmp_path / "lacking", **{request.param: False})
    return authority, NO_KEY_USAGE if request.param == "key_usage" else NO_AUTHORITY


@pytest.mark.parametrize("client", [*PYTHONS, *OPENSSLS])
async def test_a_whole_ca_is_taken_by_every_client_and_another_ca_by_none(client: Client, tmp_path: Path) -> None:
    authority, other = Authority.made(tmp_path / "ours"), Authority.made(tmp_path / "other")
    assert await refusal(client, server_context(authority, *HERE), authority.ca) == ""
    assert await refusal(client, server_context(authority, *HERE), other.ca) != ""


@pytest.mark.parametrize("client", PYTHONS)
async def test_a_ca_that_lacks_something_is_refused_by_clients_of_python_from_3_13_on(
    client: Client, lacking: tuple[Authority, str]
) -> None:
    authority, words = lacking
    said = await refusal(client, server_context(authority, *HERE), authority.ca)
    assert (words in said) == STRICT, said
    assert bool(said) == STRICT


@pytest.mark.parametrize("client", OPENSSLS)
async def test_libpq_and_grpc_take_it_all_the_same(client: Client, lacking: tuple[Authority, str]) -> None:
    authority, _ = lacking
    assert await refusal(client, server_context(authority, *HERE), authority.ca) == ""


async def test_the_documented_commands_make_a_ca_that_every_client_takes(tmp_path: Path) -> None:
    documented = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    (block,) = re.findall(r"<!-- private-ca -->\n+((?:    .*\n)+)", documented)
    commands = block.replace("DNS:valkey.example.com", "DNS:localhost,IP:127.0.0.1")
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-euc", commands], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for client in (*PYTHONS, *OPENSSLS):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
        assert await refusal(client, context, tmp_path / "ca.crt") == "", client.__name__
