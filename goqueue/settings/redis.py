"""The ready queues' server: its address, its login, its Sentinels."""

import re
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from goqueue.settings.kinds import Group, Names

SENTINEL_PORT: Final = 26379

URL_OPTIONS: Final = (
    "db",
    "username",
    "password",
    "client_name",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_min_version",
)
"""What may follow the `?` of a URL: nothing that changes how the engine waits for answers or reads them."""

REFUSED_OPTIONS: Final = frozenset(
    (
        *("socket_timeout", "socket_connect_timeout", "socket_read_size", "socket_keepalive", "timeout", "protocol"),
        *("retry_on_timeout", "max_connections", "health_check_interval", "decode_responses", "encoding"),
        *("single_connection_client", "retry_on_error", "legacy_responses"),
    )
)
"""Options of redis-py that may be named in a message. Any other text may be part of a password with a `?` in it."""

_ENCODED: Final = "in a password write @ : / ? # % percent-encoded, or use GOQUEUE_REDIS_PASSWORD"


def sentinel_address(text: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port`, `[IPv6]` or `[IPv6]:port`.

    Raises:
        ValueError: it is none of them.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([^\s:\[\]/@]+))(?::([0-9]{1,5}))?", text)
    port = int(match[3] or SENTINEL_PORT) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise ValueError("each must be host, host:port or [IPv6]:port with a port from 1 to 65535")
    return match[1] or match[2], port


class RedisSettings(Group):
    """The ready queues."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_REDIS_")

    url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"), description="`redis://`, `rediss://` or `unix://` URL."
    )
    username: str = Field("", description="User to log in as, instead of the URL's.")
    password: SecretStr = Field(
        SecretStr(""), description="Its password, instead of the URL's; any characters, none of them encoded."
    )
    prefix: str = Field(
        "{goqueue}", min_length=1, description="Starts every key; the braces keep them in one cluster slot."
    )
    window: int = Field(
        100_000, ge=100, description="Most jobs of one queue that are in Redis; the rest waits in PostgreSQL."
    )
    sentinel_hosts: Names = Field(
        [], description="`host:port` or `[IPv6]:port` of the Sentinels, instead of the URL's host."
    )
    sentinel_master: str = Field("mymaster", description="Name of the master that the Sentinels watch.")
    sentinel_username: str = Field("", description="User of the Sentinels, where they have users.")
    sentinel_password: SecretStr = Field(SecretStr(""), description="Password of the Sentinels, where they have one.")
    cluster: bool = Field(False, description="The URL names a node of a Redis Cluster.")
    tls_ca: Path | None = Field(None, description="CA certificate for `rediss://`.")
    tls_cert: Path | None = Field(None, description="Client certificate, where the server asks for one.")
    tls_key: Path | None = Field(None, description="Its private key.")

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """Host and port of each Sentinel."""
        return [sentinel_address(host) for host in self.sentinel_hosts]

    @field_validator("sentinel_hosts")
    @classmethod
    def _sentinel_addresses(cls, value: list[str]) -> list[str]:
        for host in value:
            sentinel_address(host)
        return value

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if (self.tls_ca or self.tls_cert or self.tls_key) and not self.url.get_secret_value().startswith("rediss://"):
            raise ValueError("GOQUEUE_REDIS_TLS_… need a GOQUEUE_REDIS_URL that begins with rediss://")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("GOQUEUE_REDIS_TLS_CERT and GOQUEUE_REDIS_TLS_KEY belong together")
        if self.cluster and self.sentinel_hosts:
            raise ValueError("GOQUEUE_REDIS_CLUSTER and GOQUEUE_REDIS_SENTINEL_HOSTS cannot both be set")
        if self.username and not self.password.get_secret_value():
            raise ValueError("GOQUEUE_REDIS_USERNAME needs a GOQUEUE_REDIS_PASSWORD")
        if self.sentinel_username and not self.sentinel_password.get_secret_value():
            raise ValueError("GOQUEUE_REDIS_SENTINEL_USERNAME needs a GOQUEUE_REDIS_SENTINEL_PASSWORD")
        return self

    @field_validator("url")
    @classmethod
    def _an_address(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be a redis://, rediss:// or unix:// URL")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(f"must be a URL with a port from 1 to 65535, IPv6 in brackets; {_ENCODED}") from None
        if port == 0:
            raise ValueError("must be a URL with a port from 1 to 65535")
        if parts.fragment:
            raise ValueError(f"must be a URL without a fragment (#…); {_ENCODED}")
        if parts.scheme == "unix":
            if not parts.path:
                raise ValueError("must name the path of the socket, as in unix:///run/valkey.sock")
        elif not re.fullmatch(r"/?[0-9]*/?", unquote(parts.path)):
            raise ValueError(f"must end with the number of a database, as in redis://host:6379/0; {_ENCODED}")
        _check_options(parts.scheme, parts.query)
        return value


def _check_options(scheme: str, query: str) -> None:
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in REFUSED_OPTIONS:
            raise ValueError(f"must not set {name}: GoQueue relies on a value of its own")
        if name not in URL_OPTIONS:
            raise ValueError(f"must have no other options than {', '.join(URL_OPTIONS)}; {_ENCODED}")
        if name == "db" and not text.isdecimal():
            raise ValueError("must have a number as db")
        if name.startswith("ssl_") and scheme != "rediss":
            raise ValueError(f"must begin with rediss:// to set {name}")
        if name == "ssl_cert_reqs" and text not in ("none", "optional", "required"):
            raise ValueError("must set ssl_cert_reqs to required, optional or none")
        if name == "ssl_min_version" and not text.isdecimal():
            raise ValueError("must have a number as ssl_min_version")
