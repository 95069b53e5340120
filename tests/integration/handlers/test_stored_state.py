"""What handlers keep in PostgreSQL: the declines of payments, and who the installation is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from goqueue.builtin import ProcessPayment
from goqueue.errors import GoQueueError, StoreRefused
from goqueue.registry import JobType
from goqueue.settings import EmailSettings, PaymentSettings, WebhookSettings
from goqueue.store import declines, installation
from goqueue_scheduler.pruner import Pruner
from goqueue_worker import handlers
from goqueue_worker.handlers import Handlers, StoredDeclines
from tests.integration.engine import FAST, Engine
from tests.integration.handlers.receiver import Receiver
from tests.integration.handlers.test_process_payment import DECLINE, Stripe, error

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

ORDER = {"payment_id": "order-1", "user_id": "u-7", "amount": 12.5, "currency": "USD", "method": "card"}


@contextlib.asynccontextmanager
async def charging(engine: Engine, stripe: Stripe) -> AsyncIterator[Handlers]:
    """The engine runs `process_payment` as a worker process does that starts now."""
    chosen = PaymentSettings(gateway="stripe", stripe_key=SecretStr("sk_test_x"), stripe_url=stripe.target.url)
    installed = handlers.install(EmailSettings(), WebhookSettings(), chosen)
    await installed.attach(engine.database)
    engine.registry.add(
        JobType("process_payment", ProcessPayment, retry=FAST, timeout=30, handler=installed.payment.process)
    )
    try:
        yield installed
    finally:
        await installed.close()


async def order(engine: Engine, card: str = "pm_a") -> int:
    return await engine.enqueue("process_payment", payload={**ORDER, "payment_method": card})


async def test_a_declined_job_can_be_retried_by_hand_and_charges_once(engine: Engine, target: Receiver) -> None:
    stripe = Stripe(target)
    async with charging(engine, stripe), engine.worker():
        for _ in range(2):
            stripe.outcome = DECLINE
            job = await engine.until(await order(engine), "failed")
            assert job.error is not None
            assert "declined (insufficient_funds)" in job.error
            assert await engine.outcomes(job.id) == ["failed"]
        stripe.outcome = (200, {"status": "succeeded"})
        await engine.service.retry(job.id)
        assert (await engine.until(job.id, "completed")).result["status"] == "succeeded"
        again = await engine.until(await order(engine), "completed")  # another job for the same payment
        assert again.result["id"] == "pi_1"
    assert len(stripe.charged) == 1


async def test_another_worker_knows_of_the_decline(engine: Engine, target: Receiver) -> None:
    stripe = Stripe(target)
    stripe.outcome = DECLINE
    async with charging(engine, stripe), engine.worker():
        await engine.until(await order(engine), "failed")
    engine.registry._types.pop("process_payment")
    stripe.outcome = (200, {"status": "succeeded"})
    async with charging(engine, stripe), engine.worker():
        await engine.until(await order(engine, card="pm_b"), "completed")
    assert [charge["payment_method"] for charge in stripe.charged] == ["pm_b"]


async def test_an_unknown_outcome_is_retried_with_its_key_and_charges_once(engine: Engine, target: Receiver) -> None:
    stripe = Stripe(target)
    stripe.lost_answers = 2
    async with charging(engine, stripe), engine.worker(), engine.scheduler():
        job = await engine.until(await order(engine), "completed")
        assert await engine.outcomes(job.id) == ["retried"]
        stripe.outcome = error(500, "api_error")
        await engine.until(await order(engine), "completed")  # Stripe repeats what it answered to this key
    assert len(stripe.charged) == len(stripe.by_key) == 1
    assert await engine.rows("SELECT FROM payment_declines") == []


async def test_one_decline_counts_once_whoever_reports_it(engine: Engine) -> None:
    stored = StoredDeclines(engine.database)
    assert await stored.count("order-1") == 0
    await asyncio.gather(*(stored.add("order-1", 0) for _ in range(5)))
    assert await stored.count("order-1") == 1
    await stored.add("order-1", 1)
    await stored.add("order-1", 0)  # a late report of the first
    assert await stored.count("order-1") == 2
    assert await stored.count("order-2") == 0


async def test_no_payment_id_stands_in_the_table(engine: Engine) -> None:
    await StoredDeclines(engine.database).add("order-of-ada", 0)
    [row] = await engine.rows("SELECT payment_declines::text FROM payment_declines")
    assert "ada" not in row[0]
    assert b"order-of-ada".hex() not in row[0]


async def test_declines_are_forgotten_after_a_month(engine: Engine) -> None:
    async with engine.database.connection() as connection:
        await declines.add(connection, "old", 0)
        await declines.add(connection, "new", 0)
    await engine.execute("UPDATE payment_declines SET declined_at = now() - interval '31 days' WHERE ctid = '(0,1)'")
    assert (await Pruner(engine.database, 1.0, 1.0, 1.0).walk())["payment_declines"] == 1
    stored = StoredDeclines(engine.database)
    assert (await stored.count("old"), await stored.count("new")) == (0, 1)


async def test_the_installation_is_the_same_for_all_its_workers(engine: Engine, target: Receiver) -> None:
    async with charging(engine, Stripe(target)) as installed:
        [row] = await engine.rows("SELECT id FROM installation")
        assert installed.email.installation == installed.webhook.installation == str(row[0])
        assert UUID(installed.email.installation).version == 4


async def test_there_is_one_installation_in_a_database(engine: Engine) -> None:
    with pytest.raises(StoreRefused, match="UniqueViolation"):
        await engine.execute("INSERT INTO installation DEFAULT VALUES")


async def test_an_emptied_table_is_told_with_its_cure(engine: Engine) -> None:
    async with engine.database.connection() as connection, connection.transaction(force_rollback=True):
        await connection.execute("DELETE FROM installation")
        with pytest.raises(GoQueueError, match="INSERT INTO installation DEFAULT VALUES"):
            await installation.identity(connection)


def test_each_database_is_an_installation_of_its_own(bare_database: Any) -> None:
    import psycopg

    from goqueue.store import migrate

    ids = []
    for _ in range(2):
        migrate.upgrade(bare_database.dsn)
        with psycopg.connect(bare_database.dsn) as connection:
            ids += connection.execute("SELECT id FROM installation").fetchall()
        migrate.upgrade(bare_database.dsn)  # changes nothing
        with psycopg.connect(bare_database.dsn) as connection:
            assert connection.execute("SELECT id FROM installation").fetchall() == ids[-1:]
        migrate.downgrade(bare_database.dsn)
    assert len(set(ids)) == 2
