"""Values: all documented, nonsense refused with a message that names it, every setting of the processes reachable."""

import json
import re
from typing import Any

import pytest
import yaml

from goqueue.settings import GROUPS, load
from tests.chart import generated, settings
from tests.chart.chart import CHART, HELMS, HelmFailed, Manifest, decoded, find, pod_specs, render, template

OWN_STORES = {
    "postgresql": {"enabled": False},
    "valkey": {"enabled": False},
    "settings": {"postgres": {"host": "db"}, "redis": {"url": "redis://r"}},
}


FITTING = {
    "operator": {"enabled": False},
    "settings": {"engine": {"queues": ["default", "mine"]}},
    "worker": {"terminationGracePeriodSeconds": 60},
}


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Maps merged as Helm merges values."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def at(path: str, value: Any) -> dict[str, Any]:
    """`a.b` and a value as a map in a map."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def environment(documents: list[Manifest], pod: str) -> dict[str, str]:
    """What the first container of a pod finds in its environment; a key of a foreign Secret as `secret/key`."""
    (container, *_) = pod_specs(documents)[pod]["spec"]["containers"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        kind, reference = ("ConfigMap", "configMapRef") if "configMapRef" in source else ("Secret", "secretRef")
        document = find(documents, kind, source[reference]["name"])
        data = document.get("data") or {}
        found |= data if kind == "ConfigMap" else decoded(data)
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        found[variable["name"]] = f"{reference['name']}/{reference['key']}" if reference else variable["value"]
    return found


def test_every_value_is_documented() -> None:
    documented = [path for path, _, _ in generated.documented()]

    def undocumented(tree: dict[str, Any], above: str) -> list[str]:
        found = []
        for key, value in tree.items():
            path = f"{above}{key}"
            nested = isinstance(value, dict) and any(other.startswith(f"{path}.") for other in documented)
            if nested:
                found += undocumented(value, f"{path}.")
            elif path not in documented:
                found.append(path)
        return found

    assert undocumented(yaml.safe_load((CHART / "values.yaml").read_text()), "") == []


def other_value(setting: settings.Setting) -> Any:
    """A value that is valid and not the default."""
    known = setting.schema
    if "enum" in known:
        return next(value for value in known["enum"] if value != setting.default)
    given = {
        "postgres.host": "db.example.com",
        "postgres.sslrootcert": "/etc/goqueue/certificates/ca.crt",
        "postgres.sslcert": "/etc/goqueue/certificates/tls.crt",
        "postgres.sslkey": "/etc/goqueue/certificates/tls.key",
        "redis.url": "rediss://r",
        "redis.tlsCa": "/etc/goqueue/certificates/ca.crt",
        "redis.tlsCert": "/etc/goqueue/certificates/tls.crt",
        "redis.tlsKey": "/etc/goqueue/certificates/tls.key",
        "encryption.keysFile": "/run/keys",
        "redis.sentinelHosts": ["s1:26379", "s2:26379"],
        "redis.cluster": True,
        "api.bootstrapKey": f"gq_{'a' * 12}_{'B' * 43}",
        "engine.queues": ["mine", "yours"],
        "engine.leaseSeconds": 31.5,
        "engine.jobs": ["mine.jobs", "other"],
        "api.corsOrigins": ["https://one.example.org", "https://two.example.org"],
        "api.trustedProxies": ["10.1.0.0/16", "10.2.0.0/16"],
        "oidc.issuer": "https://issuer.example.org",
        "oidc.jwksUrl": "https://issuer.example.org/keys",
        "oidc.algorithms": ["ES256", "RS256"],
        "oidc.tlsCa": "/etc/goqueue/certificates/ca.crt",
        "worker.queues": ["mine:7"],
        "webhook.allowNetworks": ["10.1.0.0/16"],
        "email.tlsCa": "/etc/goqueue/certificates/ca.crt",
        "operator.leaseName": "other",
        "operator.workerCertificates": "other",
        "operator.workerLabels": ["team=north"],
        "operator.workerEnvFrom": ["secret/mine", "configmap/yours"],
        "payment.stripeUrl": "http://stripe.test",
        "tracing.exporterOtlpEndpoint": "http://collector.test:4318",
        "tracing.exporterOtlpTracesEndpoint": "http://collector.test:4318/v1/traces",
        "tracing.tracesSamplerArg": 0.5,
    }
    if setting.path in given:
        return given[setting.path]
    match known["type"]:
        case "boolean":
            return not setting.default
        case "integer":
            return setting.default + 1
        case "number":
            return setting.default + 0.5
        case "array":
            return ["one", "two"]
    return f"other-{setting.key}"


@pytest.mark.parametrize("setting", list(settings.settings()), ids=lambda setting: setting.path)
def test_setting_reaches_the_processes(setting: settings.Setting) -> None:
    value = other_value(setting)
    documents = render(merged(OWN_STORES, FITTING, at(f"settings.{setting.path}", value)))
    number = isinstance(value, float) and value.is_integer()
    text = json.dumps(int(value) if number else value) if not isinstance(value, str | list) else value
    text = ",".join(text) if isinstance(text, list) else text
    for pod in ("Deployment/goqueue-worker-default", "Deployment/goqueue-api", "Deployment/goqueue-scheduler"):
        seen = environment(documents, pod)
        if "worker" in pod and "worker" not in (settings.read_by(setting) or ["worker"]):
            assert setting.variable not in seen, f"a change of {setting.path} would replace the workers"
            continue
        if setting.secret and settings.secret_of(setting.group) not in ("all", pod.split("-")[1]):
            assert setting.variable not in seen, f"{pod} has a secret that it does not need"
        elif setting.path == "operator.workerEnvFrom":
            assert seen[setting.variable] == f"configmap/goqueue-worker-settings,secret/goqueue-process-secrets,{text}"
        elif setting.path == "operator.workerLabels":
            assert seen[setting.variable] == f"app.kubernetes.io/instance=goqueue,app.kubernetes.io/name=goqueue,{text}"
        elif setting.path == "operator.workerServiceAccounts":
            assert seen[setting.variable] == f"goqueue-worker,{text}"
        else:
            assert seen[setting.variable] == text


@pytest.mark.parametrize("setting", [one for one in settings.settings() if one.secret], ids=lambda one: one.path)
def test_secret_setting_comes_from_an_existing_secret(setting: settings.Setting) -> None:
    from_secret = at(f"settings.{setting.path}From", {"secret": "mine", "key": "its-key"})
    without = at(f"settings.{setting.path}", [] if setting.schema["type"] == "array" else "")
    documents = render(merged(OWN_STORES, {"operator": {"enabled": False}}, without, from_secret))
    pod = "goqueue-api" if setting.group in settings.API_ONLY else "goqueue-worker-default"
    assert environment(documents, f"Deployment/{pod}")[setting.variable] == "mine/its-key"


@pytest.mark.parametrize("name", generated.golden_names())
def test_processes_accept_what_the_chart_tells_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = yaml.safe_load((generated.GIVEN / f"{name}.yaml").read_text())
    documents = render(merged(given, {"operator": {"enabled": False}}))
    for variable, text in environment(documents, "Deployment/goqueue-worker-default").items():
        monkeypatch.setenv(variable, text)
    for group in GROUPS:
        load(group)


def test_defaults_of_the_chart_are_those_of_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, text in environment(render(), "Deployment/goqueue-api").items():
        monkeypatch.setenv(variable, text)
    told = {group.__name__: load(group).model_dump() for group in GROUPS}
    for variable in list(environment(render(), "Deployment/goqueue-api")):
        monkeypatch.delenv(variable)
    for group in GROUPS:
        for field, value in load(group).model_dump().items():
            key = f"{settings.group_name(group)}.{re.sub(r'_(.)', lambda match: match[1].upper(), field)}"
            chosen = key in {*settings.DEFAULTS, *settings.COMPUTED} or field in ("host", "health_host")
            assert chosen or told[group.__name__][field] == value, key


A_LIST = ["x"]
NONSENSE = [
    # What a person mistypes, and a part of the message that must name it.
    ("replicaCount", 3, "replicaCount"),
    ("api.replica", 3, "replica"),
    ("api.replicas", -1, "replicas"),
    ("api.replicas", "three", "replicas"),
    ("api.preStopSeconds", 0, "preStopSeconds"),
    ("api.service.type", "ExternalName", "type"),
    ("api.service.port", 70000, "port"),
    ("api.service.annotations", {"a": 1}, "annotations"),
    ("api.podDisruptionBudget.maxUnavailable", 0, "maxUnavailable"),
    ("api.autoscaling", {"enabled": True, "minReplicas": 5, "maxReplicas": 2}, "minReplicas is more than"),
    ("api.terminationGracePeriodSeconds", 10, "api.terminationGracePeriodSeconds must be more"),
    ("api.serviceAccount.create", False, "serviceAccount.create=false needs"),
    ("api.resources", {"limit": {"memory": "1Gi"}}, "limit"),
    ("api.resources.limits.memory", "1 GB", "memory"),
    ("api.extraEnv", {"NAME": "value"}, "extraEnv"),
    ("api.extraEnv", [{"name": "NAME", "value": {"a": 1}}], "value"),
    ("api.extraEnv", [{"name": "NAME", "valueForm": {}}], "valueForm"),
    ("extraEnvFrom", [{"secret": "x"}], "extraEnvFrom"),
    ("extraVolumeMounts", [{"name": "x"}], "extraVolumeMounts"),
    ("image.tag", "a b", "tag"),
    ("image.digest", "0123", "digest"),
    ("image.pullPolicy", "Sometimes", "pullPolicy"),
    ("image.repository", "https://example.com/x", "repository"),
    ("imagePullSecrets", A_LIST, "imagePullSecrets"),
    ("extraEnv", [{"name": "PORT", "value": ["5"]}], "value"),
    ("worker.extraEnv", [{"name": "DEBUG", "values": "yes"}], "values"),
    ("extraContainers", [{"name": "proxy"}], "image"),
    ("api.extraInitContainers", [{"name": "Proxy", "image": "x"}], "name"),
    ("migrations.extraContainers", [{"name": "proxy", "image": "x"}], "extraContainers"),
    ("extraObjects", [{"kind": "ConfigMap"}], "extraObjects"),
    ("commonLabels", {"cost": 7}, "cost"),
    ("commonLabels", {"app.kubernetes.io/instance": "x"}, "commonLabels: the label app.kubernetes.io/instance is"),
    ("podLabels", {"goqueue.io/pool": "x"}, "podLabels: the label goqueue.io/pool is the chart's own"),
    ("worker.podLabels", {"app.kubernetes.io/name": "x"}, "worker.podLabels: the label app.kubernetes.io/name is"),
    ("deploymentAnnotations", {"a": True}, "deploymentAnnotations"),
    ("api.deploymentAnnotations", A_LIST, "deploymentAnnotations"),
    ("api.strategy", {"type": "Rolling"}, "type"),
    ("scheduler.strategy", {"rollingUpdate": {"maxUnavailable": -1}}, "maxUnavailable"),
    ("worker.podDisruptionBudget.maxUnavailable", "0%", "maxUnavailable"),
    ("hostUsers", "no", "hostUsers"),
    ("api.service.ipFamilyPolicy", "DualStack", "ipFamilyPolicy"),
    ("api.service.ipFamilies", ["IPv5"], "ipFamilies"),
    ("api.autoscaling.behavior", {"scaleSideways": {}}, "scaleSideways"),
    ("podMonitor.metricRelabelings", {"action": "drop"}, "metricRelabelings"),
    ("networkPolicy.dnsPorts", [], "dnsPorts"),
    ("rbac.aggregate", "yes", "aggregate"),
    ("enabled", "true", "enabled"),
    ("fullnameOverride", "Not_A_Name", "fullnameOverride"),
    ("fullnameOverride", "1jobs", "fullnameOverride"),
    ("operator.enabled", "yes", "enabled"),
    ("migrations.mode", "sidecar", "mode"),
    ("migrations.owner.user", "owner", "migrations.owner: the bundled PostgreSQL has one role"),
    ("migrations.mode", "hook", "migrations.mode=hook runs before the bundled PostgreSQL"),
    ("postgresql.persistence.size", "8", "size"),
    ("postgresql.persistence.sizes", "8Gi", "sizes"),
    ("postgresql.enabled", False, "settings.postgres.host must name your PostgreSQL"),
    ("valkey.enabled", False, "must name your Redis"),
    ("settings.redis.username", "jobs", "the bundled Valkey's is valkey.password"),
    ("valkey.config", {"maxmemory": ["1gb"]}, "maxmemory"),
    ("ingress.enabled", True, "ingress.hosts"),
    ("ingress.hosts", [{"paths": []}], "host"),
    ("ingress.hosts", [{"host": "a.example.com", "paths": [{"path": "x"}]}], "path"),
    ("httpRoute.enabled", True, "httpRoute.parentRefs"),
    ("networkPolicy.stores", ["10.0.0.1"], "stores"),
    ("networkPolicy.redisPorts", [], "redisPorts"),
    ("crds.install", "true", "install"),
    ("workerPools.Default", {"queues": []}, "Default"),
    ("workerPools.default.queues", ["nowhere"], "workerPools.default.queues: nowhere is neither a built-in queue nor"),
    ("workerPools.default.queues", ["default:0"], "queues"),
    ("workerPools.default.maxReplicas", 0, "maxReplicas"),
    ("workerPools.default.minReplicas", 11, "minReplicas is more than"),
    ("workerPools.default.concurrency", 0, "concurrency"),
    ("workerPools.default.spec", {"maxReplica": 5}, "maxReplica"),
    ("workerPools.default.spec", {"minReplicas": 11}, "minReplicas is more than"),
    ("workerPools.default.spec", {"queues": ["nowhere"]}, "workerPools.default.queues: nowhere is neither"),
    ("workerPools.default.spec", {"concurrency": "many"}, "concurrency"),
    ("workerPools.default.spec", {"imagePullPolicy": "Sometimes"}, "imagePullPolicy"),
    ("workerPools.default.spec", {"env": {"NAME": "value"}}, "env"),
    ("workerPools.default.spec", {"env": [{"name": "A", "valeu": "b"}]}, "valeu"),
    ("workerPools.default.spec", {"resources": {"limit": {}}}, "limit"),
    ("workerPools.default.spec", {"podTemplate": {"spec": {"hostNetwork": True}}}, "hostNetwork"),
    ("workerPools.default.spec", {"podTemplate": {"spec": {"containers": [{"image": "a"}]}}}, "name"),
    ("workerPools.default.spec", {"scaling": {"targetWait": 5}}, "targetWait"),
    ("workerPools.default.spec", {"strategy": {"maxSurge": True}}, "maxSurge"),
    ("workerPools.default.replicas", -1, "replicas"),
    ("settings.engine.queue", A_LIST, "queue"),
    ("settings.engine.queues", ["Upper"], "queues"),
    ("settings.engine.queues", "default,email", "queues"),
    ("settings.engine.leaseSeconds", 5, "settings.engine.leaseSeconds must be at least"),
    ("settings.engine.leaseSeconds", "15s", "leaseSeconds"),
    ("settings.engine.logLevel", "trace", "logLevel"),
    ("settings.worker.queues", ["nowhere"], "settings.worker.queues: nowhere is neither a built-in queue nor"),
    ("settings.worker.concurrency", 0, "concurrency"),
    ("settings.worker.healthPort", 0, "healthPort"),
    ("settings.api.port", 65536, "port"),
    (
        "settings.operator.namespace",
        "team-b",
        "settings.operator.namespace: the operator serves the release's namespace",
    ),
    ("settings.postgres.host", "db", "set postgresql.enabled=false as well"),
    ("settings.postgres.sslmode", "on", "sslmode"),
    ("settings.postgres.sslmode", "verify-full", "needs settings.postgres.sslrootcert"),
    ("settings.redis.url", "redis://elsewhere", "set valkey.enabled=false as well"),
    ("settings.redis.url", "http://elsewhere", "url"),
    ("settings.redis.cluster", True, "the bundled Valkey is no cluster"),
    ("settings.redis.sentinelHosts", ["a"], "sentinelHosts"),
    ("settings.redis.sentinelHosts", ["::1:26379"], "sentinelHosts"),
    ("settings.email.tls", "ssl", "tls"),
    ("settings.email", {"password": "x", "passwordFrom": {"secret": "y"}}, "exclude each other"),
    ("settings.webhook.allowNetworks", ["everything"], "allowNetworks"),
    ("settings.payment.gateway", "paypal", "gateway"),
    ("prometheusRule.thresholds.availabilityPercent", 100, "availabilityPercent"),
    ("prometheusRule.selector", "{a='b'}", "selector"),
    ("worker.terminationGracePeriodSeconds", 20, "worker.terminationGracePeriodSeconds must be more"),
]


@pytest.mark.parametrize(("path", "value", "told"), NONSENSE, ids=[f"{path}={value}" for path, value, _ in NONSENSE])
def test_nonsense_is_refused_and_named(path: str, value: Any, told: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        template(at(path, value))
    assert told in str(refused.value)


def test_a_pool_may_serve_a_queue_of_ones_own_job_types_which_only_their_modules_know() -> None:
    pools = {"workerPools": {"default": {"queues": ["lemons:2", "email"]}}}
    template(pools | at("settings.engine.jobs", ["lemonade.jobs"]))
    template(pools | at("settings.engine.queues", ["lemons"]))
    with pytest.raises(HelmFailed, match=r"lemons:2 is neither a built-in queue nor one of settings\.engine\.queues"):
        template(pools)


@pytest.mark.parametrize("version", HELMS)
def test_both_helms_refuse_by_the_schema(version: str) -> None:
    for path in ("api.replica", "settings.engine.queue", "replicaCount"):
        with pytest.raises(HelmFailed):
            template(at(path, 1), version=version)


def test_schema_names_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(part: dict[str, Any], tree: Any, path: str) -> None:
        if "$ref" in part:
            part = schema["definitions"][part["$ref"].rsplit("/", 1)[1]]
        if part.get("additionalProperties") is False and "properties" in part and isinstance(tree, dict):
            free = {"global", "enabled", "requests", "limits", "claims", "namespace"}
            free |= {"type", "rollingUpdate", "scaleUp", "scaleDown"}
            unknown_to_values = set(part["properties"]) - set(tree) - free
            assert not unknown_to_values, f"{path}: in the schema, not in values.yaml"
            for key, value in tree.items():
                compare(part["properties"][key], value, f"{path}.{key}")

    compare(schema, values, "values")


@pytest.mark.parametrize(
    ("given", "port"),
    [
        ({"exporterOtlpEndpoint": "http://collector:1234"}, 1234),
        ({"exporterOtlpEndpoint": "http://collector"}, 4318),
        ({"exporterOtlpEndpoint": "http://collector", "exporterOtlpProtocol": "grpc"}, 4317),
        ({"exporterOtlpTracesEndpoint": "https://collector/v1/traces"}, 443),
    ],
)
def test_processes_may_reach_the_collector_of_spans(given: dict[str, Any], port: int) -> None:
    documents = render(merged(OWN_STORES, FITTING, at("settings.tracing", given)))
    egress = find(documents, "NetworkPolicy", "goqueue-stores")["spec"]["egress"]
    assert {"ports": [{"protocol": "TCP", "port": port}]} in egress
