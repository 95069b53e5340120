"""`process_payment` against stripe-mock (which knows Stripe's API and refuses what it does not), and against a server
that answers like Stripe does when charges fail."""

import asyncio
import contextlib
import json
import re
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from goqueue.builtin import ProcessPayment
from goqueue.errors import NeverRetry, StoreUnavailable
from goqueue.settings import PaymentSettings
from goqueue_cli.embedded import free_port
from goqueue_worker.handlers.outcome import TryAgain
from goqueue_worker.handlers.process_payment import Declines, PaymentProcessor
from goqueue_worker.handlers.stripe_gateway import idempotency_key
from tests.integration.handlers.receiver import Answer, Received, Receiver, receiver
from tests.servers.gotools import StripeMock
from tests.unit.handlers.context import Context

# Stripe's library hands httpx bytes in a way that httpx calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"


@contextlib.asynccontextmanager
async def processor(url: str, key: str = KEY, declines: Declines | None = None) -> AsyncIterator[PaymentProcessor]:
    handler = PaymentProcessor(
        PaymentSettings(gateway="stripe", stripe_key=SecretStr(key), stripe_url=url, timeout_seconds=5), declines
    )
    try:
        yield handler
    finally:
        await handler.close()


def payment(**more: Any) -> ProcessPayment:
    given = {"payment_id": "order-1", "user_id": "u-7", "amount": 12.5, "currency": "USD", "method": "card"}
    return ProcessPayment.model_validate({**given, "payment_method": "pm_card_visa", **more})


# --- stripe-mock ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"method": "wallet"},
        {"method": "upi", "currency": "INR"},
        {"method": "netbanking", "currency": "INR"},
        {"currency": "JPY", "amount": 500},
        {"currency": "KWD", "amount": 5.12},
        {"customer": "cus_123"},
        {"payment_method": None, "customer": "cus_123"},
        {"payment_method": None, "user_id": "cus_123"},
        {"payment_id": 'a "quoted" \\ id with spaces, ü and \r\nX-Injected: 1'},
    ],
)
async def test_stripe_knows_every_parameter_that_we_send(stripe_mock: StripeMock, more: dict[str, Any]) -> None:
    """A request it understands gets its canned intent, which has no payment method yet; others get a 400."""
    async with processor(stripe_mock.url) as handler:
        with pytest.raises(NeverRetry, match="not charged: Stripe says requires_payment_method"):
            await handler.process(payment(**more), Context())


async def test_a_wrong_key_is_final_and_not_shown(stripe_mock: StripeMock) -> None:
    async with processor(stripe_mock.url, "not-a-key-s3cret") as handler:
        with pytest.raises(NeverRetry, match="GOQUEUE_PAYMENT_STRIPE_KEY") as caught:
            await handler.process(payment(), Context())
    assert "s3cret" not in repr(caught.value)


# --- a server that answers like Stripe ------------------------------------------------------------------------------


class Stripe:
    """Keeps the first answer to an idempotency key and refuses the key with other parameters, as Stripe does; `outcome`
    is the answer to the next charge that is executed."""

    def __init__(self, target: Receiver) -> None:
        target.script = self.answer
        self.target = target
        self.outcome: tuple[int, dict[str, Any]] = (200, {"status": "succeeded"})
        self.by_key: dict[str, tuple[bytes, Answer]] = {}
        self.intents: dict[str, str] = {}
        self.searchable: list[dict[str, Any]] = []
        self.can_search = True
        self.charged: list[dict[str, str]] = []
        self.cancelled: list[str] = []
        self.saved: list[dict[str, str]] = []
        self.default: str | None = None
        self.lost_answers = 0

    def answer(self, request: Received) -> Answer:
        path = urllib.parse.urlsplit(request.path).path
        if path.endswith("/search"):
            if not self.can_search:
                return reply(400, {"error": {"type": "invalid_request_error", "message": "search is not available"}})
            return reply(200, {"object": "search_result", "data": self.searchable, "has_more": False})
        if path.endswith("/payment_methods"):
            return reply(200, {"object": "list", "data": self.saved, "has_more": False})
        if path.startswith("/v1/customers/"):
            settings = {"default_payment_method": self.default}
            return reply(200, {"id": "cus_1", "object": "customer", "invoice_settings": settings})
        if cancelled := re.fullmatch(r"/v1/payment_intents/(\w+)/cancel", path):
            if self.intents.get(cancelled[1], "requires_action") != "requires_action":
                return reply(*error(400, "invalid_request_error", code="payment_intent_unexpected_state"))
            self.cancelled.append(cancelled[1])
            self.intents[cancelled[1]] = "canceled"
            return reply(200, {"id": cancelled[1], "object": "payment_intent", "status": "canceled"})
        if found := re.fullmatch(r"/v1/payment_intents/(\w+)", path):
            intent = {"id": found[1], "object": "payment_intent", "amount": 1250, "currency": "usd"}
            return reply(200, {**intent, "status": self.intents[found[1]]})
        assert path == "/v1/payment_intents"
        return self._charge(request)

    def _charge(self, request: Received) -> Answer:
        key = request.headers["idempotency-key"]
        if key not in self.by_key:
            form = dict(urllib.parse.parse_qsl(request.body.decode()))
            status, body = self.outcome
            if status == 200:
                body = {"id": "pi_1", "object": "payment_intent", "amount": int(form["amount"]), **body}
                body["currency"] = form["currency"]
                if body["status"] in ("succeeded", "processing"):
                    self.charged.append(form)
            self.by_key[key] = request.body, reply(status, body)
        if self.lost_answers:
            self.lost_answers -= 1
            return Answer(drop=True)
        kept, answer = self.by_key[key]
        if kept != request.body:
            return reply(*error(400, "idempotency_error"))
        return answer


def reply(status: int, body: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"content-type": "application/json", "request-id": "req_1"})


def error(status: int, type: str, **more: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"type": type, "message": "Stripe's words.", **more}}


@pytest.fixture
def stripe(target: Receiver) -> Stripe:
    return Stripe(target)


async def pay(stripe: Stripe, declines: Declines | None = None, **more: Any) -> dict[str, Any]:
    async with processor(stripe.target.url, declines=declines) as handler:
        return await handler.process(payment(**more), Context())


async def test_a_charge_carries_amount_types_metadata_and_its_key(stripe: Stripe) -> None:
    result = await pay(stripe, customer="cus_1")
    assert result == {"gateway": "stripe", "id": "pi_1", "status": "succeeded", "amount": 1250, "currency": "usd"}
    assert stripe.charged == [
        {
            "amount": "1250",
            "currency": "usd",
            "payment_method_types[0]": "card",
            "payment_method": "pm_card_visa",
            "confirm": "true",
            "off_session": "true",
            "error_on_requires_action": "true",
            "metadata[payment_id]": "order-1",
            "metadata[user_id]": "u-7",
            "customer": "cus_1",
        }
    ]
    assert stripe.target.requests[-1].headers["idempotency-key"] == "order-1"


async def test_an_answer_that_got_lost_is_retried_and_charges_once(stripe: Stripe) -> None:
    stripe.lost_answers = 2
    with pytest.raises(TryAgain, match="no answer from Stripe"):
        await pay(stripe)
    assert (await pay(stripe))["status"] == "succeeded"
    assert len(stripe.charged) == 1


async def test_a_connection_that_ends_without_an_answer_costs_no_attempt(stripe: Stripe) -> None:
    stripe.lost_answers = 1
    assert (await pay(stripe))["status"] == "succeeded"
    assert len(stripe.charged) == 1


async def test_a_payment_that_was_charged_long_ago_is_not_charged_again(stripe: Stripe) -> None:
    """Stripe has forgotten the idempotency key, but the intent carries the payment_id."""
    old = {"id": "pi_0", "object": "payment_intent", "status": "succeeded", "amount": 1250, "currency": "usd"}
    stripe.searchable = [{**old, "metadata": {"payment_id": "order-1"}}]
    assert (await pay(stripe))["id"] == "pi_0"
    assert stripe.charged == []
    with pytest.raises(NeverRetry, match="charged with another amount"):
        await pay(stripe, amount=13)
    assert (await pay(stripe, payment_id="order-2"))["id"] == "pi_1"


async def test_an_account_that_cannot_search_still_charges(stripe: Stripe) -> None:
    stripe.can_search = False
    assert (await pay(stripe))["status"] == "succeeded"


async def test_the_customers_default_is_charged_before_the_newest_of_the_method(stripe: Stripe) -> None:
    stripe.saved = [{"id": "pm_sepa", "type": "sepa_debit"}, {"id": "pm_new", "type": "card"}]
    stripe.saved.append({"id": "pm_default", "type": "card"})
    await pay(stripe, payment_method=None, customer="cus_1")
    stripe.default = "pm_default"
    await pay(stripe, payment_method=None, user_id="cus_1", payment_id="order-2")
    assert [charge["payment_method"] for charge in stripe.charged] == ["pm_new", "pm_default"]
    assert [charge["customer"] for charge in stripe.charged] == ["cus_1", "cus_1"]
    with pytest.raises(NeverRetry, match="saved nothing to charge by upi"):
        await pay(stripe, payment_method=None, customer="cus_1", method="upi", payment_id="order-3")


async def test_with_nothing_to_charge_the_error_says_what_is_missing(stripe: Stripe) -> None:
    with pytest.raises(NeverRetry, match="payload needs `payment_method` or `customer`"):
        await pay(stripe, payment_method=None)


async def test_a_bank_debit_under_way_counts_as_done(stripe: Stripe) -> None:
    stripe.outcome = (200, {"status": "processing"})
    assert (await pay(stripe))["status"] == "processing"


async def test_a_charge_that_wants_the_customer_is_cancelled_and_final(stripe: Stripe) -> None:
    stripe.outcome = (200, {"status": "requires_action"})
    with pytest.raises(NeverRetry, match="wants the customer to confirm"):
        await pay(stripe)
    assert stripe.cancelled == ["pi_1"]


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (error(402, "card_error", code="card_declined", decline_code="lost_card"), NeverRetry, "declined .lost_card."),
        (error(402, "card_error", code="expired_card"), NeverRetry, "declined .expired_card."),
        (error(402, "card_error", code="authentication_required"), NeverRetry, "declined .authentication_required."),
        (error(400, "invalid_request_error", param="amount"), NeverRetry, "refuses the charge: Stripe's words"),
        (error(400, "idempotency_error"), NeverRetry, "used with other parameters"),
        (error(401, "invalid_request_error"), NeverRetry, "GOQUEUE_PAYMENT_STRIPE_KEY"),
        (error(403, "invalid_request_error"), NeverRetry, "GOQUEUE_PAYMENT_STRIPE_KEY"),
        (error(404, "invalid_request_error"), NeverRetry, "refuses the charge"),
        (error(409, "idempotency_error", code="idempotency_key_in_use"), TryAgain, "cannot answer now"),
        (error(429, "invalid_request_error", code="rate_limit"), TryAgain, "cannot answer now"),
        (error(429, "invalid_request_error", code="lock_timeout"), TryAgain, "cannot answer now"),
        (error(500, "api_error"), TryAgain, "cannot answer now"),
        (error(503, "api_error"), TryAgain, "cannot answer now"),
    ],
)
async def test_stripes_errors_decide_whether_the_job_is_retried(
    stripe: Stripe, outcome: tuple[int, dict[str, Any]], kind: type[Exception], text: str
) -> None:
    outcome[1]["error"]["message"] += f" Key {KEY}."
    stripe.outcome = outcome
    with pytest.raises(kind, match=text) as caught:
        await pay(stripe)
    assert KEY not in repr(caught.value)
    assert stripe.charged == []


# --- after a decline ------------------------------------------------------------------------------------------------

DECLINE = error(402, "card_error", code="card_declined", decline_code="insufficient_funds")


class Written:
    """Declines in memory, by the rule of the table. `lost`: how many more times they cannot be written down."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.lost = 0

    async def count(self, payment_id: str) -> int:
        return self.counts.get(payment_id, 0)

    async def add(self, payment_id: str, before: int) -> None:
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable("database is unavailable")
        self.counts[payment_id] = max(self.counts.get(payment_id, 0), before + 1)


@pytest.mark.parametrize("more", [{}, {"payment_method": "pm_card_mastercard"}], ids=["same card", "another card"])
async def test_after_a_decline_a_retry_can_succeed(stripe: Stripe, more: dict[str, Any]) -> None:
    declines = Written()
    for _ in range(2):
        stripe.outcome = DECLINE
        with pytest.raises(NeverRetry, match=r"declined \(insufficient_funds\)"):
            await pay(stripe, declines)
    stripe.outcome = (200, {"status": "succeeded"})
    assert (await pay(stripe, declines, **more))["status"] == "succeeded"
    assert (await pay(stripe, declines, **more))["status"] == "succeeded"
    assert len(stripe.charged) == 1
    assert len(stripe.by_key) == 3


async def test_a_decline_that_could_not_be_written_down_is_told_again_and_written_then(stripe: Stripe) -> None:
    declines = Written()
    declines.lost = 1
    stripe.outcome = DECLINE
    with pytest.raises(TryAgain, match=r"declined \(insufficient_funds\).*not written down: database is unavailable"):
        await pay(stripe, declines)
    stripe.outcome = (200, {"status": "succeeded"})
    with pytest.raises(NeverRetry, match="declined"):  # the next attempt: Stripe repeats its answer
        await pay(stripe, declines)
    assert (await pay(stripe, declines))["status"] == "succeeded"
    assert len(stripe.charged) == 1


@pytest.mark.parametrize(
    "outcome",
    [error(500, "api_error"), error(400, "invalid_request_error"), error(400, "idempotency_error")],
    ids=["500", "400", "other parameters"],
)
async def test_what_is_no_proof_of_a_decline_keeps_the_key(stripe: Stripe, outcome: tuple[int, dict[str, Any]]) -> None:
    declines = Written()
    stripe.outcome = outcome
    for _ in range(2):
        with pytest.raises((NeverRetry, TryAgain)):
            await pay(stripe, declines)
    assert declines.counts == {}
    assert len(stripe.by_key) == 1


async def test_a_lost_answer_keeps_the_key_even_if_it_was_a_decline(stripe: Stripe) -> None:
    declines = Written()
    stripe.outcome, stripe.lost_answers = DECLINE, 2
    with pytest.raises(TryAgain, match="no answer"):
        await pay(stripe, declines)
    assert declines.counts == {}
    with pytest.raises(NeverRetry, match="declined"):
        await pay(stripe, declines)
    assert declines.counts == {"order-1": 1}


async def test_a_charge_that_wanted_the_customer_can_be_tried_again(stripe: Stripe) -> None:
    declines = Written()
    stripe.outcome = (200, {"status": "requires_action"})
    declines.lost = 1
    with pytest.raises(TryAgain, match="wants the customer to confirm"):
        await pay(stripe, declines)
    with pytest.raises(NeverRetry, match="wants the customer to confirm"):  # cancelled by the attempt before
        await pay(stripe, declines)
    stripe.outcome = (200, {"status": "succeeded"})
    assert (await pay(stripe, declines))["status"] == "succeeded"
    assert stripe.cancelled == ["pi_1"]


async def test_a_charge_that_was_approved_in_the_meantime_is_a_success(stripe: Stripe) -> None:
    """Stripe repeats `requires_action` to the key, although the intent has collected the money since."""
    declines = Written()
    stripe.outcome = (200, {"status": "requires_action"})
    stripe.intents["pi_1"] = "succeeded"
    assert (await pay(stripe, declines))["status"] == "succeeded"
    assert declines.counts == {}
    assert stripe.cancelled == []


CARDS = st.sampled_from(["pm_a", "pm_b"])
OUTCOMES = st.sampled_from(
    [DECLINE, (200, {"status": "succeeded"}), (200, {"status": "requires_action"}), error(500, "api_error")]
)
ATTEMPTS = st.lists(st.tuples(CARDS, OUTCOMES, st.sampled_from([0, 1, 2]), st.booleans()), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(ATTEMPTS)
async def test_no_order_of_declines_lost_answers_and_crashes_charges_twice(attempts: list[Any]) -> None:
    """Attempts of jobs with one payment_id. Any may lose Stripe's answer, and be killed before it wrote a decline."""
    with receiver() as target:
        stripe, declines = Stripe(target), Written()
        async with processor(target.url, declines=declines) as handler:
            for card, outcome, lost, killed in attempts:
                stripe.outcome, stripe.lost_answers, declines.lost = outcome, lost, int(killed)
                with contextlib.suppress(NeverRetry, TryAgain):
                    await handler.process(payment(payment_method=card), Context())
            assert len(stripe.charged) <= 1
            if not stripe.charged:
                return
            # And it stays so, whatever comes next.
            stripe.outcome = (200, {"status": "succeeded"})
            for card in ("pm_a", "pm_b") * 2:
                with contextlib.suppress(NeverRetry, TryAgain):
                    await handler.process(payment(payment_method=card), Context())
            assert len(stripe.charged) == 1


async def test_jobs_with_one_payment_id_share_its_declines_and_charge_once(stripe: Stripe) -> None:
    """Both read the count before either is declined; the later report of the same decline changes nothing."""
    declines = Written()
    stripe.outcome = DECLINE
    results = await asyncio.gather(*(pay(stripe, declines) for _ in range(4)), return_exceptions=True)
    assert {type(result) for result in results} == {NeverRetry}
    stripe.outcome = (200, {"status": "succeeded"})
    results = await asyncio.gather(*(pay(stripe, declines) for _ in range(4)), return_exceptions=True)
    assert [result["id"] for result in results if isinstance(result, dict)] == ["pi_1"] * 4
    assert len(stripe.charged) == 1


@pytest.mark.parametrize("payment_id", ["order-1", "Bestellung 7 ü", "x" * 255])
async def test_the_first_key_is_the_payment_id_and_each_decline_makes_another(payment_id: str) -> None:
    keys = [idempotency_key(payment_id, declines) for declines in range(3)]
    assert len(set(keys)) == 3
    assert keys[0] == payment_id or keys[0].startswith("sha256-")
    assert all(re.fullmatch(r"[!-~]{1,255}", key) for key in keys)


async def test_html_instead_of_json_from_a_broken_proxy_is_retried(target: Receiver) -> None:
    target.script = lambda _: Answer(502, b"<html>Bad gateway</html>", {"content-type": "text/html"})
    async with processor(target.url) as handler:
        with pytest.raises(TryAgain):
            await handler.process(payment(), Context())


async def test_stripe_out_of_reach_is_retried() -> None:
    async with processor(f"http://127.0.0.1:{free_port()}") as handler:
        with pytest.raises(TryAgain, match="cannot charge twice"):
            await handler.process(payment(), Context())
