"""Every setting, read from the environment once at start. A wrong value stops the process with one line.

The names of the Go project stay (`POSTGRES_*`, `DB_*`); the rest starts with `GOQUEUE_`. The table in
docs/settings.md and the chart's values are generated from and checked against this module.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from goqueue.errors import SettingsError
from goqueue.job import QUEUE_NAME
from goqueue.settings.api import ASYMMETRIC, ApiSettings, OidcSettings
from goqueue.settings.handlers import EmailSettings, PaymentSettings, WebhookSettings
from goqueue.settings.kinds import Group
from goqueue.settings.processes import DevSettings, EngineSettings, OperatorSettings, SchedulerSettings, WorkerSettings
from goqueue.settings.redis import RedisSettings
from goqueue.settings.stores import DatabaseSettings, EncryptionSettings, PostgresSettings
from goqueue.settings.tracing import TracingSettings

__all__ = [
    "ASYMMETRIC",
    "GROUPS",
    "QUEUE_NAME",
    "ApiSettings",
    "DatabaseSettings",
    "DevSettings",
    "EmailSettings",
    "EncryptionSettings",
    "EngineSettings",
    "OidcSettings",
    "OperatorSettings",
    "PaymentSettings",
    "PostgresSettings",
    "RedisSettings",
    "SchedulerSettings",
    "TracingSettings",
    "WebhookSettings",
    "WorkerSettings",
    "load",
]

GROUPS: tuple[type[Group], ...] = (
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

T = TypeVar("T", bound=Group)


def load(group: type[T], values: Mapping[str, str] | None = None) -> T:
    """Read one group from the environment; `values` are variables that go before those of the environment.

    Raises:
        SettingsError: a value is wrong; the message names the variable in one line and never shows the value.
    """
    prefix = str(group.model_config.get("env_prefix", ""))
    given: dict[str, Any] = {
        name: value for name in group.model_fields if (value := (values or {}).get(prefix + name.upper())) is not None
    }
    try:
        return group(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = prefix + "_".join(str(part) for part in first["loc"])
        raise SettingsError(f"{name.upper()}: {first['msg']}") from None
