"""Where jobs are kept: PostgreSQL, and what is encrypted there."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from goqueue.settings.kinds import Group, Seconds, names


class PostgresSettings(Group):
    """The database."""

    model_config = SettingsConfigDict(env_prefix="POSTGRES_")

    user: str = Field("postgres", description="Role to connect as.")
    password: SecretStr = Field(SecretStr(""), description="Its password.")
    db: str = Field("goqueue", description="Database.")
    host: str = Field(
        "localhost",
        description="Host, or folder of the Unix socket; or hosts, comma-separated, of which the first that takes "
        "writes is used.",
    )
    port: int = Field(5432, ge=1, le=65535, description="Port.")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", description="TLS, as libpq understands it."
    )
    sslrootcert: Path | None = Field(None, description="CA certificate for verify-ca and verify-full.")
    sslcert: Path | None = Field(None, description="Client certificate, where the server asks for one.")
    sslkey: Path | None = Field(None, description="Its private key, readable by the process's own user only.")


class DatabaseSettings(Group):
    """How connections to the database are made and kept."""

    model_config = SettingsConfigDict(env_prefix="DB_")

    max_retries: int = Field(10, ge=0, description="Attempts to connect at start, beyond the first.")
    retry_delay: Seconds = Field(2.0, description="Wait between those attempts (`2s`, `500ms` or seconds).")
    connect_timeout: int = Field(
        5, ge=1, description="Seconds until the attempt at one address of a host is given up, at least 2."
    )
    log_level: Literal["silent", "error", "warn", "info"] = Field("warn", description="What the store logs.")
    max_idle_conns: int = Field(10, ge=0, description="Idle connections an API process keeps.")
    max_open_conns: int = Field(50, ge=1, description="Connections an API process opens at most.")
    conn_max_lifetime: Seconds = Field(3600.0, description="Age at which a connection is replaced.")
    pgbouncer: bool = Field(
        False, description="Connections go through PgBouncer in transaction mode: no prepared statements."
    )


class EncryptionSettings(Group):
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
