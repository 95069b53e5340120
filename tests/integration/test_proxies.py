"""Which parts go through the proxy that the environment names. The table stands in docs/production.md."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiosmtplib
import pytest
from pydantic import SecretStr

from goqueue import exporting
from goqueue.broker import Broker
from goqueue.builtin import SendWebhook
from goqueue.settings import (
    DatabaseSettings,
    OidcSettings,
    PaymentSettings,
    PostgresSettings,
    RedisSettings,
    TracingSettings,
    WebhookSettings,
    load,
)
from goqueue.store.connect import Database, dsn
from goqueue_api.jwks import KeySet
from goqueue_operator.access import Access
from goqueue_worker.handlers.send_webhook import WebhookSender
from goqueue_worker.handlers.stripe_gateway import StripeGateway
from tests.servers.tcp import listen
from tests.unit.handlers.context import Context

HOST = "127.0.0.1"
SERVES = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass
class Noting:
    """A server that notes who connects and gives everybody the same short answer."""

    port: int = 0
    lines: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator["Noting"]:
        async with listen(self._serve) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(self.lines)
        self.lines.append("")
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(1):  # a client of SMTP waits for the server's first word
                self.lines[at] = (await reader.readline()).decode(errors="replace").strip()
        with contextlib.suppress(OSError):
            writer.write(SERVES)
            await writer.drain()


Part = Callable[[int], object]
"""Asks a server at a port of this machine for something; what comes of it does not matter."""


def send_webhook(port: int) -> None:
    async def send() -> None:
        sender = WebhookSender(WebhookSettings(allow_networks=["127.0.0.0/8"]), None)
        payload = {"url": f"http://{HOST}:{port}/", "method": "POST", "body": {}}
        try:
            await sender.send(SendWebhook.model_validate(payload), Context())
        finally:
            await sender.close()

    asyncio.run(send())


def stripe(port: int) -> None:
    settings = PaymentSettings(
        gateway="stripe", stripe_key=SecretStr("sk_test_x"), stripe_url=f"http://{HOST}:{port}", timeout_seconds=5
    )

    async def ask() -> None:
        gateway = StripeGateway(settings)
        try:
            await gateway._client.v1.balance.retrieve_async()
        finally:
            await gateway.close()

    asyncio.run(ask())


def oidc(port: int) -> None:
    url = f"http://{HOST}:{port}"
    KeySet(OidcSettings(issuer=url, audience="goqueue", jwks_url=url))._read()


def traces(port: int, protocol: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{HOST}:{port}")
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        exporter = exporting._exporter(load(TracingSettings))
        try:
            exporter.export([])
        finally:
            exporter.shutdown()


def traces_by_http(port: int) -> None:
    traces(port, "http/protobuf")


def traces_by_grpc(port: int) -> None:
    traces(port, "grpc")


def send_email(port: int) -> None:
    asyncio.run(aiosmtplib.SMTP(hostname=HOST, port=port, timeout=3).connect())


def redis(port: int) -> None:
    async def ping() -> None:
        broker = Broker(RedisSettings(url=SecretStr(f"redis://{HOST}:{port}/0")))
        try:
            await broker.ping()
        finally:
            await broker.close()

    asyncio.run(ping())


def postgresql(port: int) -> None:
    async def connect() -> None:
        settings = DatabaseSettings(max_retries=0)
        await Database(dsn(PostgresSettings(host=HOST, port=port), settings), settings).open(settings)

    asyncio.run(connect())


def kubernetes(port: int) -> None:
    async def get() -> None:
        access = Access(f"http://{HOST}:{port}", ssl.create_default_context(), "default")
        async with access.session() as session, session.get(f"{access.server}/version"):
            pass

    asyncio.run(get())


STRAIGHT: list[Part] = [send_webhook, send_email, redis, postgresql, kubernetes]
BY_PROXY: list[Part] = [stripe, oidc, traces_by_http, traces_by_grpc]


@pytest.fixture(autouse=True)
def _no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "grpc_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def went(part: Part, monkeypatch: pytest.MonkeyPatch, *names: str, excepted: str = "") -> str:
    """The way that the part took: `proxy` or `straight`."""
    async with Noting().run() as proxy, Noting().run() as target:
        for name in names:
            monkeypatch.setenv(name, f"http://{HOST}:{proxy.port}")
        if excepted:
            monkeypatch.setenv("NO_PROXY", excepted)
            monkeypatch.setenv("no_proxy", excepted)
        with contextlib.suppress(Exception):
            await asyncio.to_thread(part, target.port)
        assert bool(proxy.lines) != bool(target.lines), (proxy.lines, target.lines)
        return "proxy" if proxy.lines else "straight"


UPPER, LOWER = NAMES[:2], tuple(name.lower() for name in NAMES[:2])


@pytest.mark.parametrize("part", STRAIGHT)
async def test_webhooks_mail_stores_and_kubernetes_know_no_proxy(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await went(part, monkeypatch, *UPPER, *LOWER, "ALL_PROXY", "all_proxy") == "straight"


@pytest.mark.parametrize("part", BY_PROXY)
async def test_stripe_the_issuer_and_traces_go_through_the_proxy(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await went(part, monkeypatch, *LOWER) == "proxy"


@pytest.mark.parametrize("part", BY_PROXY)
async def test_capital_names_are_known_to_all_but_grpc(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await went(part, monkeypatch, *UPPER) == ("straight" if part is traces_by_grpc else "proxy")


@pytest.mark.parametrize("part", BY_PROXY)
async def test_all_proxy_is_known_to_some(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    known = part in (stripe, traces_by_http)
    assert await went(part, monkeypatch, "ALL_PROXY", "all_proxy") == ("proxy" if known else "straight")


@pytest.mark.parametrize("part", BY_PROXY)
async def test_a_host_in_no_proxy_is_excepted_by_all(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await went(part, monkeypatch, *UPPER, *LOWER, excepted=HOST) == "straight"


@pytest.mark.parametrize("part", BY_PROXY)
async def test_a_network_in_no_proxy_is_excepted_by_traces_alone(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    known = part in (traces_by_http, traces_by_grpc)
    way = await went(part, monkeypatch, *UPPER, *LOWER, excepted="127.0.0.0/8")
    assert way == ("straight" if known else "proxy")
