"""Charges through Stripe's PaymentIntents, confirmed at once and without the customer at hand.

At most once: the idempotency key is the `payment_id`, which Stripe keeps for a day or more. For a retry after that,
intents that carry the payment_id are looked up first, and one that has collected (or is collecting) the money is the
answer. Stripe repeats the first answer to a key, a decline too; so after each decline the key is a new one. Only
an answer that proves that the charge of this key was executed and came to nothing counts as one: an error of the card,
or an intent in an end state. With any other outcome the key stays.

What is charged: the payload's `payment_method`; else what the Stripe customer (`customer`, or a `user_id` that is one)
has saved for the method, their default first.

A charge that asks the customer to act (3-D Secure, approval in a UPI app) is final: nobody is there who could, and an
intent left open could be approved later, when nobody expects it. Stripe is told to fail such a charge at once.
`processing` counts as success: Stripe has accepted a bank debit and reports its end by its own webhooks.
"""

import hashlib
import re
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from goqueue import tracing
from goqueue.errors import NeverRetry
from goqueue.settings import PaymentSettings
from goqueue_worker.handlers.outcome import TryAgain, one_line
from goqueue_worker.handlers.process_payment import Charge, Declined

if TYPE_CHECKING:
    import stripe

T = TypeVar("T")

TYPES: Final = {"card": ["card"], "upi": ["upi"], "netbanking": ["netbanking"], "wallet": ["card", "link"]}
"""Our methods as Stripe's payment method types: Apple Pay and Google Pay reach Stripe as cards, Link is its own."""

COLLECTED: Final = frozenset({"succeeded", "processing"})

NOT_COLLECTED: Final = frozenset({"requires_payment_method", "canceled"})
"""The charge was executed, and nobody but us could confirm the intent again."""


class StripeGateway:
    """One Stripe client for all payments of the process."""

    def __init__(self, settings: PaymentSettings) -> None:
        import stripe

        from goqueue_worker.handlers.stripe_http import RepeatingClient

        stripe.enable_telemetry = False
        self._address = urlsplit(settings.stripe_url or stripe.DEFAULT_API_BASE)
        self._key = settings.stripe_key.get_secret_value()
        self._http = RepeatingClient(timeout=settings.timeout_seconds)
        self._client = stripe.StripeClient(
            self._key,
            base_addresses={"api": settings.stripe_url} if settings.stripe_url else None,
            http_client=self._http,
            max_network_retries=0,  # the queue retries, and counts it
        )

    async def charge(self, charge: Charge) -> dict[str, Any]:
        """See `Gateway`."""
        import stripe

        try:
            intent = await self._earlier(charge)
            if intent is None:
                intent = await self._create(charge)
            asked = intent["status"] == "requires_action"
            if asked:
                intent = await self._called_off(intent["id"])
        except stripe.StripeError as error:
            raise self._translated(error) from None
        status, id = one_line(intent["status"]), intent["id"]
        if asked and status == "canceled":
            raise Declined(f"the bank wants the customer to confirm, and no customer is there ({id})")
        if status not in COLLECTED:
            raise (Declined if status in NOT_COLLECTED else NeverRetry)(f"not charged: Stripe says {status} ({id})")
        return {
            "gateway": "stripe",
            "id": intent["id"],
            "status": intent["status"],
            "amount": intent["amount"],
            "currency": intent["currency"],
        }

    async def close(self) -> None:
        """Close the client's connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _earlier(self, charge: Charge) -> dict[str, Any] | None:
        """An intent that has collected this payment already.

        Raises:
            NeverRetry: it collected something else.
        """
        import stripe

        quoted = charge.payment_id.replace("\\", "\\\\").replace('"', '\\"')
        try:
            found = await self._ask(
                "payment_intents.search",
                self._client.v1.payment_intents.search_async(
                    {"query": f'metadata["payment_id"]:"{quoted}"', "limit": 100}
                ),
            )
        except stripe.InvalidRequestError:
            return None  # not every country's accounts can search: the idempotency key alone must do
        for intent in found.to_dict()["data"]:
            if intent["status"] not in COLLECTED or intent["metadata"].get("payment_id") != charge.payment_id:
                continue
            if (intent["amount"], intent["currency"]) != (charge.amount, charge.currency):
                raise NeverRetry(f"this payment_id was charged with another amount before ({intent['id']})")
            return dict(intent)
        return None

    async def _create(self, charge: Charge) -> dict[str, Any]:
        import stripe

        types = TYPES[charge.method]
        params: dict[str, Any] = {
            "amount": charge.amount,
            "currency": charge.currency,
            "payment_method_types": types,
            "payment_method": charge.payment_method or await self._saved(charge.customer, types, charge.method),
            "confirm": True,
            "off_session": True,
            "error_on_requires_action": True,
            "metadata": {"payment_id": charge.payment_id, "user_id": charge.user_id},
        }
        if charge.customer:
            params["customer"] = charge.customer
        key = idempotency_key(charge.payment_id, charge.declines)
        creating = self._client.v1.payment_intents.create_async(
            params,  # type: ignore[arg-type] # a TypedDict of a hundred keys
            {"idempotency_key": key},
        )
        try:
            return dict((await self._ask("payment_intents.create", creating)).to_dict())
        except stripe.CardError as error:
            reason = getattr(error.error, "decline_code", None) or error.code or "declined"
            raise Declined(f"declined ({one_line(reason)}): {self._words(error)}") from None

    async def _called_off(self, id: str) -> dict[str, Any]:
        """The intent, cancelled; or as it is now, where it cannot be cancelled any more."""
        import stripe

        intents = self._client.v1.payment_intents
        try:
            return dict((await self._ask("payment_intents.cancel", intents.cancel_async(id))).to_dict())
        except stripe.InvalidRequestError:
            # Stripe may have repeated an old answer: since then an earlier attempt cancelled it, or it was approved.
            return dict((await self._ask("payment_intents.retrieve", intents.retrieve_async(id))).to_dict())

    async def _saved(self, customer: str | None, types: list[str], method: str) -> str:
        """The customer's saved payment method for these types, the default before the newest.

        Raises:
            NeverRetry: there is no customer, or none is saved.
        """
        if customer is None:
            raise NeverRetry(
                "nothing to charge: the payload needs `payment_method` or `customer` (Stripe's ids), "
                "or a `user_id` that is a Stripe customer"
            )
        customers = self._client.v1.customers
        owner = (await self._ask("customers.retrieve", customers.retrieve_async(customer))).to_dict()
        default = (owner.get("invoice_settings") or {}).get("default_payment_method")
        listing = customers.payment_methods.list_async(customer, {"limit": 100})
        listed = await self._ask("customers.payment_methods.list", listing)
        fit = [saved["id"] for saved in listed.to_dict()["data"] if saved["type"] in types]
        if not fit:
            raise NeverRetry(f"the customer has saved nothing to charge by {method}")
        return str(default if default in fit else fit[0])

    async def _ask(self, operation: str, asking: Awaitable[T]) -> T:
        """One call, in a span of its own."""
        with tracing.calling(f"stripe {operation}", self._address.hostname or "", self._address.port):
            return await asking

    def _translated(self, error: "stripe.StripeError") -> Exception:
        """Stripe's error as one of ours, without the key."""
        import stripe

        status = error.http_status
        text = self._words(error)
        match error:
            case stripe.AuthenticationError():
                return NeverRetry("Stripe refuses the API key: see GOQUEUE_PAYMENT_STRIPE_KEY")
            case stripe.PermissionError():
                return NeverRetry("the API key (GOQUEUE_PAYMENT_STRIPE_KEY) may not do this")
            case stripe.APIConnectionError():
                return TryAgain("no answer from Stripe; a retry with the same payment_id cannot charge twice")
        if status is None or status >= 500 or status in (409, 429):
            return TryAgain(f"Stripe cannot answer now: {text}")
        if isinstance(error, stripe.IdempotencyError):
            return NeverRetry(f"this payment_id was used with other parameters before; look it up at Stripe: {text}")
        return NeverRetry(f"Stripe refuses the charge: {text}")

    def _words(self, error: "stripe.StripeError") -> str:
        """Stripe's message and its number of the request, without the key."""
        text = one_line(error.user_message or type(error).__name__, 300).replace(self._key, "[key]")
        return f"{text} ({one_line(error.request_id)})" if error.request_id else text


def idempotency_key(payment_id: str, declines: int) -> str:
    """The payment_id itself, or its digest where it does not fit into a header; after a decline, the digest and how
    many there were."""
    digest = hashlib.sha256(payment_id.encode()).hexdigest()
    if declines:
        return f"sha256-{digest}-after-{declines}-declines"
    return payment_id if re.fullmatch(r"[\x21-\x7e]{1,255}", payment_id) else f"sha256-{digest}"
