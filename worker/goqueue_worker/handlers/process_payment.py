"""`process_payment`: one charge, at most once for each `payment_id`, by the gateway of GOQUEUE_PAYMENT_GATEWAY."""

from dataclasses import dataclass
from typing import Any, Protocol

from goqueue.builtin import ProcessPayment
from goqueue.errors import NeverRetry
from goqueue.registry import JobContext
from goqueue.settings import PaymentSettings
from goqueue_worker.handlers.currency import stripe_amount


@dataclass(frozen=True, slots=True)
class Charge:
    """What a gateway is asked to collect. `amount` is in the currency's smallest unit; `currency` in lower case."""

    payment_id: str
    user_id: str
    amount: int
    currency: str
    method: str
    customer: str | None = None
    payment_method: str | None = None


class Gateway(Protocol):
    """Who moves the money."""

    async def charge(self, charge: Charge) -> dict[str, Any]:
        """Collect it, at most once for each payment_id, and return the job's result.

        Raises:
            NeverRetry: refused for good.
            TryAgain: the outcome may change, or is not known yet.
        """

    async def close(self) -> None:
        """Close connections."""


class PaymentProcessor:
    """The handler with its settings and its gateway, which is made for the first payment."""

    def __init__(self, settings: PaymentSettings) -> None:
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
        return await gateway.charge(
            Charge(
                payload.payment_id,
                payload.user_id,
                amount,
                payload.currency.lower(),
                payload.method,
                customer,
                payload.payment_method,
            )
        )

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
