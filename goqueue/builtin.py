"""The three built-in job types: their payloads and defaults. The functions live in `goqueue_worker.handlers`."""

from typing import Annotated, Any, Final, Literal

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, EmailStr, Field, StringConstraints

from goqueue.registry import REGISTRY, JobType
from goqueue.retry import RetryPolicy

Line = Annotated[str, StringConstraints(min_length=1, max_length=998, pattern=r"^[^\r\n]*$")]
"""Text that goes into a header: no line breaks (header injection); 998 is RFC 5322's line limit."""
Text = Annotated[str, StringConstraints(min_length=1)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=255)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=128)]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[^\r\n]*$", max_length=4096)]


class Payload(BaseModel):
    """Base of the built-in payloads: unknown fields are refused, and `"5"` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SendEmail(Payload):
    """An e-mail to one recipient, plain text."""

    to: EmailStr
    subject: Line
    body: Text


class ProcessPayment(Payload):
    """A charge. `amount` is in the currency's own unit: 12.5 USD is twelve dollars and fifty cents."""

    payment_id: Id
    user_id: Id
    amount: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{3}$")]
    method: Literal["card", "upi", "netbanking", "wallet"]


class SendWebhook(Payload):
    """An HTTP request with a JSON body. `timeout` in whole seconds."""

    url: AnyHttpUrl
    method: Literal["POST", "PUT", "PATCH"]
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    body: dict[str, Any]
    timeout: Annotated[int, Field(ge=1, le=30)] = 10


SEND_EMAIL: Final = REGISTRY.add(
    JobType("send_email", SendEmail, queue="email", timeout=60, description="Send an e-mail by SMTP.")
)
SEND_WEBHOOK: Final = REGISTRY.add(
    JobType("send_webhook", SendWebhook, queue="webhooks", timeout=45, description="Send a signed HTTP request.")
)
PROCESS_PAYMENT: Final = REGISTRY.add(
    JobType(
        "process_payment",
        ProcessPayment,
        queue="payment",
        retry=RetryPolicy(base=5),
        timeout=90,
        description="Charge a customer through Stripe, at most once per payment_id.",
    )
)

TYPE_OF_QUEUE: Final = {
    "default": SEND_EMAIL.name,
    "email": SEND_EMAIL.name,
    "webhooks": SEND_WEBHOOK.name,
    "payment": PROCESS_PAYMENT.name,
}
"""For the built-in queues a request may leave out `type` (REST contract of the Go project)."""
