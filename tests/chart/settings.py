"""`goqueue.settings` as chart values: the block in values.yaml, its JSON schema, and the map to variables."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from goqueue.settings import ASYMMETRIC, GROUPS

WORKER_ONLY = ("worker", "email", "webhook", "payment")
"""Groups whose secrets only workers get."""

API_ONLY = ("api",)
"""Groups whose secrets only the API gets."""

NOT_IN_A_CLUSTER = ("dev",)
"""Groups of `goqueue dev` alone."""

NOT_IN_THE_CHART = ("operator.namespace",)
"""Settings that the chart has no value for: the operator's rights are those of the release's namespace, or of all."""

READ_BY: dict[str, tuple[str, ...]] = {
    "api": ("api",),
    "oidc": ("api",),
    "worker": ("worker",),
    "worker.graceSeconds": ("operator", "worker"),
    "worker.healthHost": ("operator", "worker"),
    "scheduler": ("scheduler",),
    "scheduler.keepCompleted": ("operator", "scheduler"),
    "scheduler.keepFailed": ("operator", "scheduler"),
    "operator": ("operator",),
    "email": ("worker",),
    "webhook": ("worker",),
    "payment": ("worker",),
}
"""The parts that read a group, or one setting of it; all parts read what is not named here."""

DEFAULTS: dict[str, Any] = {
    "postgres.user": "goqueue",
    "postgres.host": "",
    "redis.url": "",
    "engine.logFormat": "json",
    "operator.leaseName": "",
}
"""Where a chart's default must differ from a process's own. (So do all hosts to listen on: see `_default`.)"""

COMPUTED = (
    "api.bootstrapKey",
    "postgres.host",
    "postgres.password",
    "redis.url",
    "redis.password",
    "operator.image",
    "operator.leaseName",
    "operator.workerCertificates",
    "operator.workerLabels",
    "operator.workerEnvFrom",
    "operator.workerServiceAccounts",
)
"""What the templates fill in, or add to, from other values."""

NOTES = {
    "postgres.host": "Empty with the bundled PostgreSQL.",
    "postgres.password": "Empty with the bundled PostgreSQL: one is generated and kept over upgrades.",
    "postgres.sslrootcert": "See `certificates`.",
    "postgres.sslcert": "See `certificates`.",
    "postgres.sslkey": "See `certificates`.",
    "redis.tlsCa": "See `certificates`.",
    "api.bootstrapKey": "Empty: one is generated, kept over upgrades, in the Secret `<release>-api-key`.",
    "redis.tlsCert": "See `certificates`.",
    "redis.tlsKey": "See `certificates`.",
    "encryption.keysFile": "A path in a volume of your own (`extraVolumes`).",
    "email.tlsCa": "See `certificates`.",
    "oidc.tlsCa": "See `certificates`.",
    "operator.clusterWide": "Needs ClusterRoles, which the chart then makes.",
    "operator.image": "Empty: `image`.",
    "operator.leaseName": "Empty: made from the release's name.",
    "operator.workerCertificates": "Empty: `certificates.secretName`.",
    "operator.workerFsGroup": "Left as it is: that of `podSecurityContext`; on OpenShift 0.",
    "operator.workerLabels": "Beside those by which NetworkPolicies know the pods of the release.",
    "operator.workerServiceAccounts": "Beside `worker.serviceAccount`.",
    "operator.workerEnvFrom": "Beside those of the chart, which pools in the release's namespace always get.",
    "redis.url": "Empty with the bundled Valkey. May hold `$(NAME)` of an `extraEnv`.",
    "redis.password": "Empty with the bundled Valkey, whose own is `valkey.password`.",
}
"""What the chart adds to a setting's description."""

_QUEUE = "[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?"
_ADDRESS = r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}"
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "postgres.user": {"minLength": 1},
    "postgres.db": {"minLength": 1},
    "postgres.host": {"pattern": r"^[A-Za-z0-9._:/-]*$"},
    "postgres.sslrootcert": {"pattern": "^(/.+)?$"},
    "postgres.sslcert": {"pattern": "^(/.+)?$"},
    "postgres.sslkey": {"pattern": "^(/.+)?$"},
    "redis.url": {"pattern": r"^((rediss?|unix)://.+)?$"},
    "redis.tlsCa": {"pattern": "^(/.+)?$"},
    "redis.tlsCert": {"pattern": "^(/.+)?$"},
    "redis.tlsKey": {"pattern": "^(/.+)?$"},
    "encryption.keysFile": {"pattern": "^(/.+)?$"},
    "redis.sentinelHosts": {"items": {"type": "string", "pattern": f"^{_ADDRESS}$"}},
    "engine.queues": {"items": {"type": "string", "pattern": f"^{_QUEUE}$"}},
    "engine.jobs": {"items": {"type": "string", "pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"}},
    "worker.queues": {"items": {"type": "string", "pattern": f"^{_QUEUE}(:[1-9][0-9]{{0,3}})?$"}},
    "email.tlsCa": {"pattern": "^(/.+)?$"},
    "webhook.allowNetworks": {"items": {"type": "string", "pattern": "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"}},
    "api.corsOrigins": {"items": {"type": "string", "pattern": "^https?://[a-z0-9.:\\[\\]-]+$"}},
    "api.trustedProxies": {"items": {"type": "string", "pattern": "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"}},
    "api.port": {"minimum": 1},
    "oidc.issuer": {"pattern": r"^(https?://[^\s]+)?$"},
    "oidc.jwksUrl": {"pattern": r"^(https?://[^\s]+)?$"},
    "oidc.algorithms": {"items": {"type": "string", "enum": ASYMMETRIC}, "minItems": 1},
    "oidc.tlsCa": {"pattern": "^(/.+)?$"},
    "api.bootstrapKey": {"pattern": "^(gq_[0-9a-z]{12}_[A-Za-z0-9_-]{43})?$"},
    "api.healthPort": {"minimum": 1},
    "operator.healthPort": {"minimum": 1},
    "operator.leaseName": {"pattern": "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$", "minLength": 0},
    "operator.workerCertificates": {"pattern": "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"},
    "operator.workerLabels": {
        "items": {"type": "string", "pattern": "^([a-z0-9.-]+/)?[A-Za-z0-9][A-Za-z0-9_.-]*=[A-Za-z0-9_.-]*$"}
    },
    "operator.workerEnvFrom": {
        "items": {"type": "string", "pattern": "^(configmap|secret)/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"}
    },
    "worker.healthPort": {"minimum": 1},
    "scheduler.healthPort": {"minimum": 1},
    "tracing.exporterOtlpEndpoint": {"pattern": r"^(https?://[^\s/@]+(/[^\s@]*)?)?$"},
    "tracing.exporterOtlpTracesEndpoint": {"pattern": r"^(https?://[^\s/@]+(/[^\s@]*)?)?$"},
    "tracing.tracesExporter": {"enum": ["", "otlp", "console", "none"]},
    "payment.stripeUrl": {"pattern": "^(https?://.+)?$"},
}
"""What the schema knows beyond the field's type, by path."""


@dataclass(frozen=True)
class Setting:
    """One setting: where it stands in the values, and which variable it becomes."""

    group: str
    key: str
    variable: str
    description: str
    default: Any
    secret: bool
    schema: dict[str, Any]

    @property
    def path(self) -> str:
        """E.g. `engine.leaseSeconds`."""
        return f"{self.group}.{self.key}"


def group_name(group: type[Any]) -> str:
    """`PostgresSettings` → `postgres`."""
    name = group.__name__.removesuffix("Settings")
    return name[0].lower() + name[1:]


def settings() -> Iterator[Setting]:
    """All settings, in the order in which goqueue.settings has them."""
    for group in GROUPS:
        if group_name(group) in NOT_IN_A_CLUSTER:
            continue
        prefix = str(group.model_config.get("env_prefix", ""))
        schemas = group.model_json_schema()["properties"]
        for field, schema in schemas.items():
            name, key = group_name(group), re.sub(r"_(\w)", lambda match: match[1].upper(), field)
            if f"{name}.{key}" in NOT_IN_THE_CHART:
                continue
            known, secret = _json_type(f"{name}.{key}", schema)
            yield Setting(
                group=name,
                key=key,
                variable=(prefix + field).upper(),
                description=str(group.model_fields[field].description or ""),
                default=_default(f"{name}.{key}", field, schema, known["type"]),
                secret=secret,
                schema=known,
            )


def _default(path: str, field: str, schema: dict[str, Any], kind: str) -> Any:
    if path in DEFAULTS:
        return DEFAULTS[path]
    if field in ("host", "health_host") and schema.get("default") == "127.0.0.1":
        return "::"
    default = schema.get("default")
    if kind == "number" and isinstance(default, float) and default.is_integer():
        return int(default)
    return "" if default is None else default


def _json_type(path: str, schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The field's schema in the few words that every JSON schema library knows alike, and whether it is a secret."""
    options = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    kept = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "minLength", "items")
    known = {word: options[0][word] for word in kept if word in options[0]}
    if "gt" in options[0]:  # pydantic's own word, where a validator runs first
        known["exclusiveMinimum"] = options[0]["gt"]
    secret = "writeOnly" in options[0] or "writeOnly" in options[0].get("items", {})
    if known["type"] == "array":
        known["items"] = {"type": "string", "minLength": 1}
    return known | CONSTRAINTS.get(path, {}), secret


def values_block() -> str:
    """The `settings` part of values.yaml."""
    lines = ["settings:"]
    group = ""
    for setting in settings():
        if setting.group != group:
            group = setting.group
            documentation = next(one.__doc__ for one in GROUPS if group_name(one) == group)
            lines += [f"  # {str(documentation).splitlines()[0]}", f"  {group}:"]
        text = f"{setting.description} {NOTES.get(setting.path, '')}".strip()
        lines.append(f"    # {text} ({setting.variable})")
        lines.append(f"    {setting.key}: {json.dumps(setting.default)}")
        if setting.secret:
            lines += [
                f"    {setting.key}From:",
                "      # Existing Secret that holds it, instead.",
                '      secret: ""',
                "      # Its key.",
                f"      key: {setting.variable}",
            ]
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """JSON schema of the `settings` part."""
    groups: dict[str, Any] = {}
    for setting in settings():
        group = groups.setdefault(setting.group, {"type": "object", "additionalProperties": False, "properties": {}})
        group["properties"][setting.key] = setting.schema
        if setting.secret:
            group["properties"][f"{setting.key}From"] = {"$ref": "#/definitions/secretKey"}
    for path in NOT_IN_THE_CHART:  # known to the schema, so that a template can say why
        group, key = path.split(".")
        groups[group]["properties"][key] = {"type": "string"}
    return {"type": "object", "additionalProperties": False, "properties": groups}


def secret_of(group: str) -> str:
    """Whose environment holds the secrets of a group."""
    if group in WORKER_ONLY:
        return "worker"
    return "api" if group in API_ONLY else "all"


def read_by(setting: Setting) -> tuple[str, ...]:
    """The parts whose pods are replaced when the setting changes; none: all of them."""
    return READ_BY.get(setting.path, READ_BY.get(setting.group, ()))


def variables() -> str:
    """files/settings.yaml: what the templates know about each setting."""
    tree: dict[str, Any] = {}
    for setting in settings():
        entry: dict[str, Any] = {"variable": setting.variable}
        if setting.secret:
            entry["secretOf"] = secret_of(setting.group)
        if parts := read_by(setting):
            entry["readBy"] = list(parts)
        tree.setdefault(setting.group, {})[setting.key] = entry
    head = "# Value → environment variable. Written by `python -m tests.chart write` from goqueue/settings/.\n"
    return head + yaml.safe_dump(tree, sort_keys=False)
