"""No secret and nothing of a payload gets into logs, spans or metrics, whether a job succeeds or fails."""

import asyncio
import base64
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from goqueue_cli.embedded import free_port
from tests.integration.engine import Engine, eventually
from tests.integration.handlers.receiver import Answer, Receiver, receiver
from tests.integration.scraping import Processes, client_of
from tests.servers.gotools import Mailpit
from tests.servers.jaeger import Jaeger
from tests.servers.stores import FreshDatabase, FreshRedis

MARK = "marked4secrecy"
"""In every secret and every payload of these tests."""

WEBHOOK_KEY = base64.b64encode(f"{MARK}-webhook-signing-key".encode()).decode()

MODULE = """
from pydantic import BaseModel

from goqueue import JobContext, job_type


class Anything(BaseModel):
    words: str


@job_type("loose", payload=Anything)
async def loose(payload: Anything, job: JobContext) -> None:
    raise ValueError(f"cannot do {payload.words}")
"""
"""A handler whose error quotes its payload."""


@pytest.fixture
def target() -> Iterator[Receiver]:
    """A receiver of webhooks, and Stripe's stand-in: refuses everything, and quotes what it got."""
    with receiver() as running:
        running.script = lambda request: Answer(402, request.body or b"{}")
        yield running


@pytest.fixture
def stores(
    database: FreshDatabase,
    ready_queues: FreshRedis,
    tmp_path: Path,
    engine: Engine,
    mailpit: Mailpit,
    target: Receiver,
) -> Processes:
    """Starts processes whose secrets all are marked but for the stores' own, which are drawn by their servers."""
    (tmp_path / "loose.py").write_text(MODULE)
    own = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])),
        "GOQUEUE_JOBS": "loose",
        "GOQUEUE_LOG_LEVEL": "debug",
        "GOQUEUE_LOG_FORMAT": "json",
        "GOQUEUE_SMTP_HOST": mailpit.host,
        "GOQUEUE_SMTP_PORT": str(mailpit.smtp_port),
        "GOQUEUE_SMTP_TLS": "none",
        "GOQUEUE_SMTP_PASSWORD": f"{MARK}-smtp",
        "GOQUEUE_PAYMENT_GATEWAY": "stripe",
        "GOQUEUE_PAYMENT_STRIPE_KEY": f"sk_test_{MARK}",
        "GOQUEUE_PAYMENT_STRIPE_URL": target.url,
        "GOQUEUE_WEBHOOK_SECRETS": f"whsec_{WEBHOOK_KEY}",
        "GOQUEUE_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "GOQUEUE_SCHEDULER_LEADER_SECONDS": "1",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-token={MARK}-token",
    }
    return Processes(tmp_path, {**database.environment, **ready_queues.environment, **own})


def orders(target: Receiver) -> list[dict[str, Any]]:
    """Jobs that succeed, and jobs that fail in every way, all of them marked."""
    email = {"to": f"{MARK}@example.org", "subject": f"{MARK} subject", "body": f"{MARK} body"}
    webhook = {
        "url": f"{target.url}/{MARK}?token={MARK}",
        "method": "POST",
        "headers": {"authorization": f"Bearer {MARK}"},
        "body": {"secret": MARK},
        "timeout": 5,
    }
    payment = {
        "payment_id": f"{MARK}-order",
        "user_id": f"{MARK}-user",
        "amount": 12.5,
        "currency": "USD",
        "method": "card",
        "payment_method": f"pm_{MARK}",
    }
    unreachable = {**webhook, "url": f"http://127.0.0.1:{free_port()}/{MARK}"}
    return [
        {"queue": "email", "payload": email},
        {"queue": "webhooks", "type": "send_webhook", "payload": webhook},
        {"queue": "webhooks", "type": "send_webhook", "payload": unreachable, "max_retries": 0},
        {"queue": "payment", "payload": payment, "max_retries": 0},
        {"queue": "default", "type": "loose", "payload": {"words": MARK}, "max_retries": 0},
    ]


async def test_secrets_and_payloads_are_in_no_log_no_span_and_no_metric(
    stores: Processes, jaeger: Jaeger, target: Receiver, database: FreshDatabase, ready_queues: FreshRedis
) -> None:
    stores.environment |= jaeger.environment()
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(stores.start(part)) for part in ("api", "worker", "scheduler")]
        async with client_of(parts[0]) as client:
            jobs = [await made(client, order) for order in orders(target)]
            refused = {"queue": "email", "payload": {"to": MARK, "subject": MARK, "body": ""}}
            assert (await client.post(f"/jobs/create?token={MARK}", json=refused)).status_code == 400
            assert (await client.get(f"/{MARK}")).status_code == 404
            ends = [await end(client, job["id"]) for job in jobs]
        assert ends == ["completed", "failed", "failed", "failed", "failed"]
        spans = ""
        for job in jobs:
            await asyncio.to_thread(jaeger.until, job["trace_id"], lambda found: len(found) >= 4)
            spans += await asyncio.to_thread(jaeger.text, job["trace_id"])
        await asyncio.to_thread(jaeger.search, "goqueue-api", "GET")
        spans += await asyncio.to_thread(jaeger.all_text, "goqueue-api")
        metrics = "".join([(await part.scrape()).text for part in parts])
    logs = "".join(part.process.log.read_text() for part in parts)
    secrets = [MARK, WEBHOOK_KEY, database.server.password, ready_queues.server.password]
    for where, text in (("logs", logs), ("spans", spans), ("metrics", metrics)):
        assert len(text) > 1000, f"there are no {where}"
        for secret in secrets:
            at = text.find(secret)
            assert at < 0, f"in the {where}: {text[max(0, at - 200) : at + 100]}"


async def made(client: httpx.AsyncClient, order: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/jobs/create", json=order)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


async def end(client: httpx.AsyncClient, job_id: int) -> str:
    async def there() -> str | None:
        status: str = (await client.get(f"/jobs/{job_id}")).json()["status"]
        return status if status in ("completed", "failed") else None

    status: str = await eventually(there)
    return status
