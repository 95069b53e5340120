"""What the built-in handlers need: mail, webhooks, payments."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from goqueue import mailbox
from goqueue.settings.kinds import Group, Networks, Seconds, names

_HELO = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?|\[[0-9A-Za-z.:]{1,60}\]")
"""A host's name, or an address literal (RFC 5321, section 4.1.3)."""


def has_a_port(url: str) -> bool:
    """Whether a URL's port, if it names one, can be one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


class EmailSettings(Group):
    """send_email."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_SMTP_")

    host: str = Field("", description="SMTP server; empty: e-mails fail with a clear error.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    user: str = Field("", description="User, where the server wants one.")
    password: SecretStr = Field(SecretStr(""), description="Password.")
    sender: str = Field("goqueue@localhost", description="From address: `address` or `Name <address>`.")
    helo: str = Field(
        "",
        description="Name in EHLO; empty: the host's full name or, where it has none, the connection's own address "
        "(`[10.0.0.7]`).",
    )
    tls: Literal["starttls", "implicit", "none"] = Field("starttls", description="How the connection is secured.")
    tls_ca: Path | None = Field(None, description="CA certificate of the server, where the system's own do not do.")
    timeout_seconds: Seconds = Field(30.0, description="For each step of the conversation.")

    @field_validator("sender")
    @classmethod
    def _one_address(cls, value: str) -> str:
        try:
            mailbox.sender(value)
        except ValueError as error:
            raise ValueError(f"must be an address, or `Name <address>`: {error}") from None
        return value

    @field_validator("host")
    @classmethod
    def _without_port(cls, value: str) -> str:
        if value and not re.fullmatch(r"[^\s/:@\[\]]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?", value):
            raise ValueError("must be a host's name or address, without scheme and port")
        return value

    @field_validator("helo")
    @classmethod
    def _a_host(cls, value: str) -> str:
        if value and not _HELO.fullmatch(value):
            raise ValueError("must be a host's name, or an address in brackets")
        return value


class WebhookSettings(Group):
    """send_webhook."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_WEBHOOK_")

    secrets: Annotated[list[SecretStr], NoDecode, BeforeValidator(names)] = Field(
        [], description="Signing secrets (`whsec_…`, comma-separated: two while rotating); empty: unsigned."
    )
    allow_networks: Networks = Field(
        [], description="Private networks that may be called (CIDR, e.g. 10.1.0.0/16); else all are refused."
    )
    max_response_bytes: int = Field(4096, ge=0, le=32_768, description="How much of the response is stored.")


class PaymentSettings(Group):
    """process_payment."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_PAYMENT_")

    gateway: Literal["none", "stripe", "sandbox"] = Field(
        "none", description="`sandbox` charges nobody; for development."
    )
    stripe_key: SecretStr = Field(SecretStr(""), description="Stripe's secret key.")
    stripe_url: str = Field("", description="Another address than Stripe's own.")
    timeout_seconds: Seconds = Field(30.0, description="For one call.")

    @field_validator("stripe_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value and not (re.fullmatch(r"https?://[^\s/]+", value.rstrip("/")) and has_a_port(value)):
            raise ValueError("must be http:// or https:// and a host")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _stripe_needs_a_key(self) -> Self:
        key = self.stripe_key.get_secret_value()
        if self.gateway == "stripe" and not key:
            raise ValueError("GOQUEUE_PAYMENT_STRIPE_KEY must be set where GOQUEUE_PAYMENT_GATEWAY is stripe")
        if not re.fullmatch(r"[!-~]*", key):
            raise ValueError("GOQUEUE_PAYMENT_STRIPE_KEY holds white space or characters outside ASCII")
        return self
