"""The example shop, run as its README says: by `goqueue` processes that know it by GOQUEUE_JOBS alone."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from goqueue.job import Job
from goqueue_cli.embedded import free_port
from tests.integration.engine import Engine, eventually, opened
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase, FreshRedis

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Shop:
    """The shop's counter, and what goes on behind it."""

    environment: dict[str, str]
    engine: Engine
    receipts: Path

    async def say(self, *arguments: str, code: int = 0) -> str:
        """Run `python -m examples.shop …`; what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "examples.shop", *arguments),
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == code, output.decode()
        return output.decode()

    async def job(self, type: str, order: int) -> Job:
        """The job of that type for an order."""
        rows = await self.engine.rows(
            "SELECT id FROM jobs WHERE type = %s AND payload->>'order_id' = %s", type, str(order)
        )
        return await self.engine.service.get(rows[0][0])


@pytest.fixture(scope="module")
def environment(
    database: FreshDatabase, ready_queues: FreshRedis, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    return {
        **database.environment,
        **ready_queues.environment,
        "GOQUEUE_JOBS": "examples.shop.jobs",
        "GOQUEUE_WORKER_QUEUES": "default",
        "GOQUEUE_WORKER_HEALTH_PORT": "0",
        "GOQUEUE_SCHEDULER_HEALTH_PORT": "0",
        "GOQUEUE_API_PORT": str(free_port()),
        "GOQUEUE_API_HEALTH_PORT": "0",
        "SHOP_RECEIPTS": str(tmp_path_factory.mktemp("receipts")),
        "SHOP_LOOK_AGAIN_SECONDS": "0.3",
    }


@pytest.fixture(scope="module")
async def engine(database: FreshDatabase, ready_queues: FreshRedis) -> AsyncIterator[Engine]:
    """Stores that are not emptied between the tests, since the processes go on."""
    async with opened(database, ready_queues) as engine:
        yield engine


@pytest.fixture(scope="module")
def shop(engine: Engine, environment: dict[str, str]) -> Shop:
    return Shop(environment, engine, Path(environment["SHOP_RECEIPTS"]))


@pytest.fixture(scope="module", autouse=True)
def processes(
    engine: Engine, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Process]]:
    """A worker, a scheduler and an API."""
    logs = tmp_path_factory.mktemp("logs")
    parts = {
        part: Process([GOQUEUE, part], log=logs / part, environment=environment, cwd=ROOT)
        for part in ("worker", "scheduler", "api")
    }
    try:
        yield parts
    finally:
        for process in parts.values():
            process.stop()
    assert [process.returncode for process in parts.values()] == [0, 0, 0]
    assert not any("Traceback" in process.log.read_text() for process in parts.values())


@pytest.fixture
async def api(processes: dict[str, Process], environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    port = int(environment["GOQUEUE_API_PORT"])
    await asyncio.to_thread(processes["api"].wait_for_port, port)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def test_an_order_waits_for_its_goods_ships_and_gets_its_receipt(shop: Shop) -> None:
    await shop.say("stock", "tea", "0")
    assert "order 1, shipped by job" in await shop.say("order", "ada@example.org", "tea", "2")
    shipping = await shop.job("ship_order", 1)

    async def snoozed_twice() -> bool:
        return (await shop.engine.outcomes(shipping.id))[:2] == ["snoozed", "snoozed"]

    await eventually(snoozed_twice)
    await shop.say("stock", "tea", "5")
    assert "completed: {'again': False, 'order': 1}" in await shop.say("wait", "1", "20")
    assert "1: 2 x tea for ada@example.org, shipped" in await shop.say("orders")
    assert await shop.engine.rows("SELECT stock FROM shop_items") == [(3,)]
    done = await shop.engine.service.get(shipping.id)
    assert done.attempts == 1  # waiting was free

    async def all_lines() -> list[str] | None:  # the last ones are written some time after the job's end
        lines = [line for (line,) in await shop.engine.rows("SELECT message FROM job_logs ORDER BY id")]
        return lines if "shipped, 3 left" in lines else None

    assert (await eventually(all_lines))[0] == "2 × tea not there yet"

    await shop.engine.until((await shop.job("write_receipt", 1)).id, "completed")
    assert (shop.receipts / "1.txt").read_text() == "RECEIPT\norder 1\n2 x tea\nfor ada@example.org\n"
    # The mail is left to a worker that serves its queue.
    assert await shop.engine.rows("SELECT queue, status, payload->>'to' FROM jobs WHERE type = 'send_email'") == [
        ("email", "pending", "ada@example.org")
    ]


async def test_an_order_that_cannot_be_taken_leaves_no_job(shop: Shop) -> None:
    before = await shop.engine.rows("SELECT max(id) FROM jobs")
    assert "violates foreign key" in await shop.say("order", "ada@example.org", "unicorns", "1", code=1)
    assert await shop.engine.rows("SELECT max(id) FROM jobs") == before


async def test_a_cancelled_order_fails_at_once_and_is_not_tried_again(shop: Shop) -> None:
    await shop.say("stock", "coffee", "0")
    number = (await shop.say("order", "bob@example.org", "coffee", "1")).split()[1].rstrip(",")
    assert "is cancelled" in await shop.say("cancel", number)
    assert "failed: NeverRetry: the order was cancelled" in await shop.say("wait", number, "20")
    job = await shop.job("ship_order", int(number))
    assert (await shop.engine.outcomes(job.id))[-1] == "failed"
    assert job.attempts == 1


async def test_a_shipped_order_is_not_shipped_again_when_its_job_runs_twice(shop: Shop) -> None:
    await shop.say("stock", "milk", "9")
    number = (await shop.say("order", "eve@example.org", "milk", "4")).split()[1].rstrip(",")
    await shop.say("wait", number, "20")
    again = await shop.engine.enqueue("ship_order", payload={"order_id": int(number)})
    job = await shop.engine.until(again, "completed")
    assert job.result == {"order": int(number), "again": True}
    assert await shop.engine.rows("SELECT stock FROM shop_items WHERE name = 'milk'") == [(5,)]


async def test_the_api_knows_the_shops_types_and_their_payloads(api: httpx.AsyncClient, shop: Shop) -> None:
    names = {kind["name"] for kind in (await api.get("/types")).json()}
    assert {"ship_order", "write_receipt", "send_email"} <= names
    order = {"queue": "default", "type": "ship_order", "payload": {"order_id": 0}}
    refused = await api.post("/jobs/create", json=order)
    assert (refused.status_code, refused.json()["error"]) == (400, "payload validation failed")
    accepted = await api.post("/jobs/create", json={**order, "payload": {"order_id": 4_000_000}})
    ended = await shop.engine.until(accepted.json()["id"], "failed")
    assert ended.error == "NeverRetry: the order was cancelled"
