"""Every setting, read from the environment once at start. A wrong value stops the process with one line.

The names of the Go project stay (`POSTGRES_*`, `DB_*`); the rest starts with `GOQUEUE_`. The table in
docs/settings.md and the chart's values are generated from and checked against this module.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from goqueue.errors import SettingsError
from goqueue.keys import Token

QUEUE_NAME = re.compile(r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$")
"""A queue's name: fits a Kubernetes label and a Redis key."""

_ADDRESS = r"[^\s<>@\x00-\x1f]+@[^\s<>@\x00-\x1f]+"
_SENDER = re.compile(rf"[^<>\x00-\x1f\x7f]*<{_ADDRESS}>|{_ADDRESS}")
"""An address, or a name and an address in angle brackets."""

_ORIGIN = re.compile(r"https?://(?:[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")

_RATE = r"^$|^[1-9][0-9]{0,8}/(second|minute|hour|day)$"

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h)$")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(value: Any) -> Any:
    """`2s`, `500ms`, `1m`, `1h` (Go's notation) or a plain number, as seconds."""
    match = _DURATION.match(value.strip()) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2]] if match else value


def networks(value: list[str]) -> list[str]:
    """The networks, unchanged.

    Raises:
        ValueError: one is none.
    """
    for network in value:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError("each must be a network in CIDR notation with no host bits set") from None
    return value


def is_secure(url: str) -> bool:
    """Whether what is read from this URL is the word of its host: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "http":
        return host in ("localhost", "127.0.0.1", "::1")
    return parts.scheme == "https" and bool(host)


def names(value: Any) -> Any:
    """A comma-separated list as a list of names."""
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, allow_inf_nan=False)]
Names = Annotated[list[str], NoDecode, BeforeValidator(names)]


class _Group(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, hide_input_in_errors=True)


class PostgresSettings(_Group):
    """The database."""

    model_config = SettingsConfigDict(env_prefix="POSTGRES_")

    user: str = Field("postgres", description="Role to connect as.")
    password: SecretStr = Field(SecretStr(""), description="Its password.")
    db: str = Field("goqueue", description="Database.")
    host: str = Field("localhost", description="Host, or folder of the Unix socket.")
    port: int = Field(5432, ge=1, le=65535, description="Port.")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", description="TLS, as libpq understands it."
    )
    sslrootcert: Path | None = Field(None, description="CA certificate for verify-ca and verify-full.")
    sslcert: Path | None = Field(None, description="Client certificate, where the server asks for one.")
    sslkey: Path | None = Field(None, description="Its private key, readable by the process's own user only.")


class DatabaseSettings(_Group):
    """How connections to the database are made and kept."""

    model_config = SettingsConfigDict(env_prefix="DB_")

    max_retries: int = Field(10, ge=0, description="Attempts to connect at start, beyond the first.")
    retry_delay: Seconds = Field(2.0, description="Wait between those attempts (`2s`, `500ms` or seconds).")
    connect_timeout: int = Field(5, ge=1, description="Seconds until one attempt is given up.")
    log_level: Literal["silent", "error", "warn", "info"] = Field("warn", description="What the store logs.")
    max_idle_conns: int = Field(10, ge=0, description="Idle connections an API process keeps.")
    max_open_conns: int = Field(50, ge=1, description="Connections an API process opens at most.")
    conn_max_lifetime: Seconds = Field(3600.0, description="Age at which a connection is replaced.")
    pgbouncer: bool = Field(
        False, description="Connections go through PgBouncer in transaction mode: no prepared statements."
    )


class RedisSettings(_Group):
    """The ready queues."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_REDIS_")

    url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"), description="`redis://`, `rediss://` or `unix://` URL."
    )
    prefix: str = Field(
        "{goqueue}", min_length=1, description="Starts every key; the braces keep them in one cluster slot."
    )
    sentinel_hosts: Names = Field([], description="`host:port` of the Sentinels, instead of the URL's host.")
    sentinel_master: str = Field("mymaster", description="Name of the master that the Sentinels watch.")
    cluster: bool = Field(False, description="The URL names a node of a Redis Cluster.")
    tls_ca: Path | None = Field(None, description="CA certificate for `rediss://`.")
    tls_cert: Path | None = Field(None, description="Client certificate, where the server asks for one.")
    tls_key: Path | None = Field(None, description="Its private key.")

    @model_validator(mode="after")
    def _tls_is_spoken(self) -> Self:
        if (self.tls_ca or self.tls_cert or self.tls_key) and not self.url.get_secret_value().startswith("rediss://"):
            raise ValueError("GOQUEUE_REDIS_TLS_… need a GOQUEUE_REDIS_URL that begins with rediss://")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("GOQUEUE_REDIS_TLS_CERT and GOQUEUE_REDIS_TLS_KEY belong together")
        return self

    @field_validator("url")
    @classmethod
    def _an_address(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        try:
            understood = url.startswith(("redis://", "rediss://", "unix://")) and urlsplit(url).port != 0
        except ValueError:
            understood = False
        if not understood:
            raise ValueError("must be a redis://, rediss:// or unix:// URL")
        return value


class EngineSettings(_Group):
    """What every GoQueue process must agree on."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_")

    queues: Names = Field(["default", "email", "webhooks", "payment"], description="All queues there are.")
    jobs: Names = Field([], description="Python modules that register your own job types.")
    lease_seconds: Seconds = Field(
        15.0, description="A worker silent for this long is dead and its jobs run elsewhere."
    )
    heartbeat_seconds: Seconds = Field(3.0, description="How often a worker says that it lives.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, else JSON."
    )

    @field_validator("queues")
    @classmethod
    def _queue_names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not QUEUE_NAME.match(name):
                raise ValueError(f"{name!r} is not a queue name (lower case letters, digits, '-', '_', '.')")
        if not value:
            raise ValueError("at least one queue is needed")
        return list(dict.fromkeys(value))

    @model_validator(mode="after")
    def _beats_fit_the_lease(self) -> Self:
        if self.lease_seconds < 3 * self.heartbeat_seconds:
            raise ValueError("GOQUEUE_LEASE_SECONDS must be at least 3 × GOQUEUE_HEARTBEAT_SECONDS")
        return self


class EncryptionSettings(_Group):
    """Encryption of payloads, results, errors and log lines in the database; the same for all processes."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_ENCRYPTION_")

    keys: Annotated[list[SecretStr], NoDecode, BeforeValidator(names)] = Field(
        [],
        description="Keys that `goqueue encryption generate` made, comma-separated: the first encrypts, all decrypt; "
        "empty: nothing is encrypted.",
    )
    keys_file: Path | None = Field(None, description="A file with the same, one key a line, instead.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.keys and self.keys_file:
            raise ValueError("GOQUEUE_ENCRYPTION_KEYS and GOQUEUE_ENCRYPTION_KEYS_FILE cannot both be set")
        return self


class ApiSettings(_Group):
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
    cors_origins: Names = Field(
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
    trusted_proxies: Names = Field(
        [],
        description="Networks (CIDR) whose X-Forwarded-For and X-Forwarded-Proto are believed; empty: nobody's.",
    )
    auth: Literal["auto", "required", "off"] = Field(
        "auto",
        description="`required`: every request needs a key; `off`: none does; `auto`: as `required`, but open on a "
        "loopback address until the first key is made. Without any key, other addresses are refused at start.",
    )
    bootstrap_key: SecretStr = Field(
        SecretStr(""), description="A key (`gq_…`) that is let in with all scopes at start, if it is new."
    )
    key_cache: Seconds = Field(5.0, description="A key that was revoked may still be used for so long.", le=300)
    health_host: str = Field("127.0.0.1", description="Address of the metrics.")
    health_port: int = Field(8084, ge=0, le=65535, description="Port of the metrics; 0: any free one.")

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError("each must be an origin such as https://app.example.org, in lower case, and not `*`")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: list[str]) -> list[str]:
        return networks(value)

    @field_validator("bootstrap_key")
    @classmethod
    def _a_key(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and Token.read(value.get_secret_value()) is None:
            raise ValueError("not a key: gq_, 12 lower case letters or digits, _, 43 letters, digits, - or _")
        return value


ASYMMETRIC: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Algorithms of tokens by which nobody who can verify can sign."""


class OidcSettings(_Group):
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


class WorkerSettings(_Group):
    """A worker process."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_WORKER_")

    queues: Names = Field([], description="Queues to serve, `name` or `name:weight`; empty: all, weight 1.")
    concurrency: int = Field(50, ge=1, le=10_000, description="Jobs that run at the same time.")
    threads: int = Field(16, ge=1, le=1_000, description="Threads for handlers that are not async.")
    grace_seconds: Seconds = Field(25.0, description="After SIGTERM: time for running jobs to finish.")
    health_host: str = Field("127.0.0.1", description="Address of the probes and metrics.")
    health_port: int = Field(8081, ge=0, le=65535, description="Port of the probes and metrics; 0: any free one.")
    retry_base_seconds: Seconds = Field(2.0, description="First retry delay of types that set none.")
    retry_max_seconds: Seconds = Field(3600.0, description="Longest retry delay of types that set none.")

    def weights(self, known: list[str]) -> dict[str, int]:
        """The queues to serve with their weights.

        Raises:
            SettingsError: a queue is unknown or a weight is not a whole number from 1 to 1000.
        """
        chosen: dict[str, int] = {}
        for item in self.queues or known:
            name, _, weight = item.partition(":")
            if name not in known:
                raise SettingsError(f"GOQUEUE_WORKER_QUEUES: unknown queue {name!r} (known: {', '.join(known)})")
            if weight and not (weight.isdecimal() and 1 <= int(weight) <= 1000):
                raise SettingsError(f"GOQUEUE_WORKER_QUEUES: weight of {name!r} must be 1 to 1000")
            chosen[name] = int(weight or 1)
        return chosen


class SchedulerSettings(_Group):
    """The scheduler: dispatch, rescue, cron, retention."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_SCHEDULER_")

    reconcile_seconds: Seconds = Field(60.0, description="How often all open jobs are compared with Redis.")
    leader_seconds: Seconds = Field(6.0, description="A leader silent for this long is replaced.")
    keep_completed: Seconds = Field(7 * 86400.0, description="Age at which completed jobs are deleted.")
    keep_failed: Seconds = Field(30 * 86400.0, description="The same for failed and cancelled jobs.")
    keep_audit: Seconds = Field(365 * 86400.0, description="Age at which entries of the audit log are deleted.")
    cron_catch_up: Seconds = Field(
        3600.0, description="After an outage a missed tick still fires, once, if it is younger than this."
    )
    health_host: str = Field("127.0.0.1", description="Address of the probes and metrics.")
    health_port: int = Field(8082, ge=0, le=65535, description="Port of the probes and metrics; 0: any free one.")


class OperatorSettings(_Group):
    """The operator: custom resources, worker pools, autoscaling."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_OPERATOR_")

    namespace: str = Field("", description="Namespace to serve and to keep the Lease in; empty: the pod's own.")
    cluster_wide: bool = Field(False, description="Serve all namespaces.")
    lease_name: str = Field("goqueue-operator", min_length=1, description="Lease by which one of the replicas leads.")
    image: str = Field("", description="Image of worker pools that name none.")
    worker_env_from: Names = Field(
        [], description="`configmap/NAME` and `secret/NAME`: environment of all workers, in the pool's namespace."
    )
    worker_certificates: str = Field(
        "",
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$",
        description="Secret in the pool's namespace that all workers mount as /etc/goqueue/certificates.",
    )
    worker_labels: Names = Field([], description="`KEY=VALUE`: labels of worker pods whose pools do not set them.")
    worker_service_accounts: Names = Field(
        [],
        description="Service accounts that worker pools may name beside `default`; `*`: any but the operator's own.",
    )
    compare_seconds: Seconds = Field(60.0, description="How often all GoQueueJobs are compared with their rows.")
    status_seconds: Seconds = Field(0.5, description="How often changed rows are written back as status.")
    scale_seconds: Seconds = Field(2.0, description="How often pools are looked at where no arrival asks for it.")
    requests: int = Field(16, ge=1, le=256, description="Writes to the Kubernetes API at the same time.")
    health_host: str = Field("127.0.0.1", description="Address of the probes and metrics.")
    health_port: int = Field(8083, ge=0, le=65535, description="Port of the probes and metrics; 0: any free one.")

    @field_validator("worker_env_from")
    @classmethod
    def _references(cls, value: list[str]) -> list[str]:
        for item in value:
            if not re.fullmatch(r"(configmap|secret)/[a-z0-9]([a-z0-9.-]*[a-z0-9])?", item):
                raise ValueError("each must be configmap/NAME or secret/NAME")
        return value

    @field_validator("worker_labels")
    @classmethod
    def _labels(cls, value: list[str]) -> list[str]:
        for item in value:
            if not re.fullmatch(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*)=[A-Za-z0-9_.-]*", item):
                raise ValueError("each must be KEY=VALUE")
        return value


class EmailSettings(_Group):
    """send_email."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_SMTP_")

    host: str = Field("", description="SMTP server; empty: e-mails fail with a clear error.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    user: str = Field("", description="User, where the server wants one.")
    password: SecretStr = Field(SecretStr(""), description="Password.")
    sender: str = Field("goqueue@localhost", description="From address.")
    tls: Literal["starttls", "implicit", "none"] = Field("starttls", description="How the connection is secured.")
    tls_ca: Path | None = Field(None, description="CA certificate of the server, where the system's own do not do.")
    timeout_seconds: Seconds = Field(30.0, description="For each step of the conversation.")

    @field_validator("sender")
    @classmethod
    def _one_address(cls, value: str) -> str:
        if not _SENDER.fullmatch(value):
            raise ValueError("must be an address, or `Name <address>`")
        return value


class WebhookSettings(_Group):
    """send_webhook."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_WEBHOOK_")

    secrets: Annotated[list[SecretStr], NoDecode, BeforeValidator(names)] = Field(
        [], description="Signing secrets (`whsec_…`, comma-separated: two while rotating); empty: unsigned."
    )
    allow_networks: Names = Field(
        [], description="Private networks that may be called (CIDR, e.g. 10.1.0.0/16); else all are refused."
    )
    max_response_bytes: int = Field(4096, ge=0, le=32_768, description="How much of the response is stored.")

    @field_validator("allow_networks")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        return networks(value)


class PaymentSettings(_Group):
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
        if value and not re.fullmatch(r"https?://[^\s/]+", value.rstrip("/")):
            raise ValueError("must be http:// or https:// and a host")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _stripe_needs_a_key(self) -> Self:
        if self.gateway == "stripe" and not self.stripe_key.get_secret_value():
            raise ValueError("GOQUEUE_PAYMENT_STRIPE_KEY must be set where GOQUEUE_PAYMENT_GATEWAY is stripe")
        return self


class TracingSettings(_Group):
    """Traces: OpenTelemetry's own variables, which its SDK reads, as all others that it knows."""

    model_config = SettingsConfigDict(env_prefix="OTEL_")

    exporter_otlp_endpoint: str = Field(
        "", description="Where spans go by OTLP, e.g. `http://collector:4318`; empty: nowhere, and nothing is traced."
    )
    exporter_otlp_traces_endpoint: str = Field(
        "", description="The same for spans alone, whole: over HTTP with its path, `/v1/traces`."
    )
    exporter_otlp_protocol: Literal["http/protobuf", "grpc"] = Field(
        "http/protobuf", description="How OTLP is spoken (ports 4318 and 4317 by custom)."
    )
    exporter_otlp_headers: SecretStr = Field(
        SecretStr(""), description="Headers for each export, `name=value`, comma-separated, e.g. a token."
    )
    traces_exporter: Literal["otlp", "console", "none"] | None = Field(
        None, description="`otlp` without an endpoint: to this machine. `none`: nothing is traced."
    )
    traces_sampler: Literal[
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "always_on",
        "always_off",
        "traceidratio",
    ] = Field(
        "parentbased_always_on",
        description="Which traces are recorded; `parentbased_`: as whoever began the trace decided, else as it says.",
    )
    traces_sampler_arg: float = Field(1.0, ge=0, le=1, description="Share of traces that a `traceidratio` records.")
    service_name: str = Field("", description="Name of the service; empty: `goqueue-` and the process.")
    resource_attributes: str = Field("", description="More about it, `name=value`, comma-separated.")
    sdk_disabled: bool = Field(False, description="Nothing is traced, whatever else is set.")

    @field_validator("exporter_otlp_endpoint", "exporter_otlp_traces_endpoint")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/@]+(/[^\s@]*)?", value):
            raise ValueError(
                "must be http:// or https:// and a host, without a user (OTEL_EXPORTER_OTLP_HEADERS is for that)"
            )
        return value

    @property
    def wanted(self) -> bool:
        """Whether spans are to be made."""
        if self.sdk_disabled or self.traces_exporter == "none":
            return False
        return bool(self.traces_exporter or self.exporter_otlp_endpoint or self.exporter_otlp_traces_endpoint)


class DevSettings(_Group):
    """`goqueue dev`."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_DEV_")

    dir: Path = Field(Path(".goqueue"), description="Folder that keeps the data, logs and mails.")


GROUPS: tuple[type[_Group], ...] = (
    PostgresSettings,
    DatabaseSettings,
    RedisSettings,
    EngineSettings,
    EncryptionSettings,
    ApiSettings,
    OidcSettings,
    WorkerSettings,
    SchedulerSettings,
    OperatorSettings,
    EmailSettings,
    WebhookSettings,
    PaymentSettings,
    TracingSettings,
    DevSettings,
)


T = TypeVar("T", bound=_Group)


def load(group: type[T]) -> T:
    """Read one group from the environment.

    Raises:
        SettingsError: a value is wrong; the message names the variable in one line and never shows the value.
    """
    try:
        return group()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(group.model_config.get("env_prefix", "")) + "_".join(str(part) for part in first["loc"])
        raise SettingsError(f"{name.upper()}: {first['msg']}") from None
