"""`process_payment`: one charge, at most once for each `payment_id`, by the gateway of GOQUEUE_PAYMENT_GATEWAY.

A decline is an answer, so it is not retried by itself; whoever retries it by hand gets a new charge, since the declines
of each payment are counted (docs/decisions/0013-declined-payments.md).
"""

from dataclasses import dataclass
from typing import Any, Protocol

from goqueue.builtin import ProcessPayment
from goqueue.errors import NeverRetry, StoreUnavailable
from goqueue.registry import JobContext
from goqueue.settings import PaymentSettings
from goqueue_worker.handlers.currency import stripe_amount
from goqueue_worker.handlers.outcome import TryAgain


@dataclass(frozen=True, slots=True)
class Charge:
    """What a gateway is asked to collect. `amount` is in the currency's smallest unit; `currency` in lower case;
    `declines` is how many charges of this payment were declined before."""

    payment_id: str
    user_id: str
    amount: int
    currency: str
    method: str
    customer: str | None = None
    payment_method: str | None = None
    declines: int = 0


class Declined(Exception):
    """The charge did not and will not collect anything: the gateway executed it and it came to nothing.

    Not for requests that were refused without being executed, nor where the outcome is unknown.
    """


class Declines(Protocol):
    """Remembers for the whole installation how often each payment was declined."""

    async def count(self, payment_id: str) -> int:
        """How many charges of this payment were declined."""

    async def add(self, payment_id: str, before: int) -> None:
        """Note that the charge made after `before` declines was declined; noted once, however often it is reported."""


class Gateway(Protocol):
    """Who moves the money."""

    async def charge(self, charge: Charge) -> dict[str, Any]:
        """Collect it, at most once for each payment_id, and return the job's result.

        Raises:
            Declined: the charge came to nothing.
            NeverRetry: refused for good.
            TryAgain: the outcome may change, or is not known yet.
        """

    async def close(self) -> None:
        """Close connections."""


class PaymentProcessor:
    """The handler with its settings and its gateway, which is made for the first payment.

    Without `declines`, a declined payment is declined for as long as the gateway remembers its answer.
    """

    def __init__(self, settings: PaymentSettings, declines: Declines | None = None) -> None:
        self.declines = declines
        self._settings = settings
        self._gateway: Gateway | None = None

    async def process(self, payload: ProcessPayment, job: JobContext) -> dict[str, Any]:
        """Charge the customer.

        Raises:
            NeverRetry: no gateway is configured, the amount does not fit the currency, or the charge is refused.
            TryAgain: the gateway is away or busy.
        """
        gateway = self._chosen()
        try:
            amount = stripe_amount(payload.amount, payload.currency)
        except ValueError as error:
            raise NeverRetry(str(error)) from None
        customer = payload.customer or (payload.user_id if payload.user_id.startswith("cus_") else None)
        declines = await self.declines.count(payload.payment_id) if self.declines is not None else 0
        charge = Charge(
            payload.payment_id,
            payload.user_id,
            amount,
            payload.currency.lower(),
            payload.method,
            customer,
            payload.payment_method,
            declines,
        )
        try:
            return await gateway.charge(charge)
        except Declined as error:
            await self._note(charge, str(error))
            raise NeverRetry(str(error)) from None

    async def _note(self, charge: Charge, decline: str) -> None:
        """Count the decline. Where that fails the next attempt is told the same decline again, and counts it then."""
        if self.declines is not None:
            try:
                await self.declines.add(charge.payment_id, charge.declines)
            except StoreUnavailable as error:
                raise TryAgain(f"{decline}; not written down: {error.message}") from None

    async def close(self) -> None:
        """Close the gateway's connections."""
        if self._gateway is not None:
            await self._gateway.close()
            self._gateway = None

    def _chosen(self) -> Gateway:
        if self._gateway is None:
            match self._settings.gateway:
                case "none":
                    raise NeverRetry("no payment gateway is configured: set GOQUEUE_PAYMENT_GATEWAY")
                case "sandbox":
                    from goqueue_worker.handlers.sandbox_gateway import SandboxGateway

                    self._gateway = SandboxGateway()
                case "stripe":
                    from goqueue_worker.handlers.stripe_gateway import StripeGateway

                    self._gateway = StripeGateway(self._settings)
        return self._gateway
