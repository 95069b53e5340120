"""The REST API and who may use it."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from goqueue.keys import Token
from goqueue.settings.kinds import Group, Names, Networks, Seconds, each, is_secure

_Origins = Annotated[
    Names,
    each(
        r"https?://(?:[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?",
        "an origin such as https://app.example.org, in lower case, and not `*`",
    ),
]

_RATE = r"^$|^[1-9][0-9]{0,8}/(second|minute|hour|day)$"


class ApiSettings(Group):
    """The REST API."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_API_")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    processes: int = Field(1, ge=1, le=64, description="Server processes.")
    request_timeout: Seconds = Field(5.0, description="A request that takes longer gets 408.")
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="A larger body gets 413.")
    max_bulk_body_bytes: int = Field(16 * 1024 * 1024, ge=1024, description="The same for POST /jobs/bulk.")
    docs: bool = Field(True, description="Serve the OpenAPI page at /docs.")
    max_head_bytes: int = Field(32_768, ge=1024, description="A request line with headers over this gets 431.")
    head_timeout: Seconds = Field(10.0, description="A request whose headers take longer to come gets 408.")
    write_timeout: Seconds = Field(30.0, description="A client that takes longer to read an answer is cut off.")
    max_connections: int = Field(10_000, ge=1, description="Connections of a server process; one more gets 503.")
    cors_origins: _Origins = Field(
        [], description="Web pages (`https://app.example.org`) whose scripts may call the API; empty: none."
    )
    rate_limit: str = Field(
        "",
        pattern=_RATE,
        description="Requests of one caller over all API processes (`1000/second`; second, minute, hour, day); more "
        "get 429. Empty: no limit.",
    )
    address_rate_limit: str = Field(
        "", pattern=_RATE, description="The same for one address, before credentials are looked at."
    )
    tenant_quota: int = Field(
        0,
        ge=0,
        description="Jobs of one tenant that may wait or be scheduled; more are refused with 429. 0: any number.",
    )
    trusted_proxies: Networks = Field(
        [],
        description="Networks (CIDR) whose X-Forwarded-For and X-Forwarded-Proto are believed; empty: nobody's.",
    )
    auth: Literal["auto", "required", "off"] = Field(
        "auto",
        description="`required`: every request needs a key; `off`: none does; `auto`: as `required`, but open on a "
        "loopback address until the first key is made. Without any key, other addresses are refused at start. "
        "A key or token that a request shows is checked in every mode.",
    )
    bootstrap_key: SecretStr = Field(
        SecretStr(""), description="A key (`gq_…`) that is let in with all scopes at start, if it is new."
    )
    key_cache: Seconds = Field(5.0, description="A key that was revoked may still be used for so long.", le=300)
    health_host: str = Field("127.0.0.1", description="Address of the metrics.")
    health_port: int = Field(8084, ge=0, le=65535, description="Port of the metrics; 0: any free one.")

    @field_validator("bootstrap_key")
    @classmethod
    def _a_key(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and Token.read(value.get_secret_value()) is None:
            raise ValueError("not a key: gq_, 12 lower case letters or digits, _, 43 letters, digits, - or _")
        return value


ASYMMETRIC: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Algorithms of tokens by which nobody who can verify can sign."""


class OidcSettings(Group):
    """Bearer tokens (JWT) of an OpenID Connect issuer, beside API keys."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_OIDC_")

    issuer: str = Field("", description="The `iss` of good tokens, an https:// URL; empty: no tokens are accepted.")
    audience: str = Field("", description="The `aud` that tokens must name; required with an issuer.")
    jwks_url: str = Field("", description="Where the issuer's keys are; empty: its discovery document says so.")
    algorithms: Names = Field(
        ["RS256", "ES256"], description="Algorithms that tokens may be signed by; none with a shared secret can be."
    )
    leeway_seconds: float = Field(30.0, ge=0, le=300, description="By how much clocks may differ.")
    refresh_seconds: Seconds = Field(300.0, description="How often the issuer's keys are fetched.")
    scopes_claim: str = Field(
        "scope", min_length=1, description="Claim with the scopes: a list, or names separated by spaces. `a.b`: a path."
    )
    scope_prefix: str = Field("", description="What stands before the scopes in that claim, e.g. `goqueue.`.")
    tenant_claim: str = Field("", description="Claim with the tenant; empty: all tokens are of the default tenant.")
    queues_claim: str = Field("", description="Claim with the queues that a token is for; empty: all.")
    types_claim: str = Field("", description="Claim with the job types that a token is for; empty: all.")
    tls_ca: Path | None = Field(None, description="CA certificate of the issuer, where the system's own do not do.")

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _secure(cls, value: str) -> str:
        if value and not is_secure(value):
            raise ValueError("must be an https:// URL (http:// for a loopback address only)")
        return value

    @field_validator("algorithms")
    @classmethod
    def _asymmetric(cls, value: list[str]) -> list[str]:
        if not value or not set(value) <= set(ASYMMETRIC):
            raise ValueError(f"each must be one of {', '.join(ASYMMETRIC)}")
        return value

    @model_validator(mode="after")
    def _an_audience(self) -> Self:
        if self.issuer and not self.audience:
            raise ValueError("GOQUEUE_OIDC_AUDIENCE must be set where GOQUEUE_OIDC_ISSUER is")
        return self
