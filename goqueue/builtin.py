"""The three built-in job types: their payloads and defaults. The functions live in `goqueue_worker.handlers`."""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from goqueue.mailbox import NO_TEXT, address
from goqueue.registry import REGISTRY, JobType
from goqueue.retry import RetryPolicy

Line = Annotated[str, StringConstraints(min_length=1, max_length=998, pattern=rf"^[^{NO_TEXT}]*$")]
"""Text that goes into a header: no line breaks (header injection); 998 is RFC 5322's line limit."""
Text = Annotated[str, StringConstraints(min_length=1)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=255)]

RESERVED_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
"""What a webhook's own headers may not be: they frame the message, choose the host or sign it."""


def _own_header(name: str) -> str:
    if name.lower() in RESERVED_HEADERS:
        raise ValueError(f"{name} is set by GoQueue")
    return name


_HTTP_URL: Final = TypeAdapter(AnyHttpUrl)


def _http_url(text: str) -> str:
    """A URL as it was written: the worker must see `0x7f.1`, which a parsed URL shows as `127.0.0.1`."""
    try:
        url = _HTTP_URL.validate_python(text)
    except ValidationError as error:
        raise ValueError(error.errors(include_input=False)[0]["msg"]) from None
    if url.username is not None or url.password is not None:
        raise ValueError("a URL must not hold a user name or password; use the headers")
    return text


def _mail_address(text: str) -> str:
    try:
        return address(text)
    except ValueError as error:
        reason = {"reason": str(error)}
        raise PydanticCustomError("value_error", "value is not a valid email address: {reason}", reason) from None


MailAddress = Annotated[str, AfterValidator(_mail_address), WithJsonSchema({"type": "string", "format": "email"})]
HeaderName = Annotated[
    str,
    StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=128),
    AfterValidator(_own_header),
]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e\t]*$", max_length=4096)]
Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2083),
    AfterValidator(_http_url),
    WithJsonSchema(
        {"type": "string", "format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "minLength": 1, "maxLength": 2083}
    ),
]


class Payload(BaseModel):
    """Base of the built-in payloads: unknown fields are refused, and `"5"` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SendEmail(Payload):
    """An e-mail to one recipient, plain text."""

    to: MailAddress
    subject: Line
    body: Text


class ProcessPayment(Payload):
    """A charge. `amount` is in the currency's own unit: 12.5 USD is twelve dollars and fifty cents.

    `payment_method` (`pm_…`) and `customer` (`cus_…`) are Stripe's ids of what is charged; a `user_id` that is a
    Stripe customer needs neither.
    """

    payment_id: Id
    user_id: Id
    amount: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{3}$")]
    method: Literal["card", "upi", "netbanking", "wallet"]
    payment_method: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,255}$")] | None = None
    customer: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,255}$")] | None = None


class SendWebhook(Payload):
    """An HTTP request with a JSON body. `timeout` in whole seconds."""

    url: Url
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
