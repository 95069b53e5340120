"""What a release keeps right over its life: merged lists, Jobs that never give up, worker pools nobody prunes."""

import json
from typing import Any

import pytest

from tests.chart.chart import HELMS, Manifest, find, pod_specs, render
from tests.chart.test_values import OWN_STORES, merged

PARTS = ("api", "scheduler", "operator", "worker", "migrations", "maintenance")
WITHOUT_OPERATOR = {"operator": {"enabled": False}}


def pools(values: dict[str, Any], **options: Any) -> list[Manifest]:
    """The worker pools that the chart's Job applies."""
    config = find(render(values, **options), "ConfigMap", "goqueue-pools")
    found: list[Manifest] = json.loads(config["data"]["pools.json"])
    return found


def keyed(values: str, size: str) -> dict[str, Any]:
    """All lists of values whose items Kubernetes tells apart by a key."""
    return {
        "extraEnv": [{"name": "TZ", "value": values}],
        "extraVolumes": [{"name": "data", "emptyDir": {"sizeLimit": size}}],
        "extraVolumeMounts": [{"name": "data", "mountPath": "/data", "subPath": values}],
        "tolerations": [{"key": "jobs", "operator": "Exists"}],
    }


@pytest.mark.parametrize("values", [{}, WITHOUT_OPERATOR], ids=["operator", "Deployments"])
def test_an_item_of_a_part_replaces_that_of_the_same_key_for_all_parts(values: dict[str, Any]) -> None:
    both = {**keyed("for-all", "1Gi"), **{part: keyed("of-the-part", "2Gi") for part in PARTS}}
    documents = render(merged(values, both))
    specs = {name: pod["spec"] for name, pod in pod_specs(documents).items() if "StatefulSet" not in name}
    if not values:
        (pool,) = pools(both)
        specs["pool"] = pool["spec"]["podTemplate"]["spec"]
        assert pool["spec"]["env"] == [{"name": "TZ", "value": "of-the-part"}]
    for name, spec in specs.items():
        assert [volume for volume in spec["volumes"] if volume["name"] == "data"] == [
            {"name": "data", "emptyDir": {"sizeLimit": "2Gi"}}
        ], name
        assert spec["tolerations"] == [{"key": "jobs", "operator": "Exists"}], name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            if name != "pool":
                assert [one["value"] for one in container["env"] if one["name"] == "TZ"] == ["of-the-part"], name
            mounts = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/data"]
            assert [mount["subPath"] for mount in mounts] == ["of-the-part"], name


def test_what_the_settings_say_replaces_a_variable_of_the_same_name() -> None:
    settings = {"settings": {"postgres": {"passwordFrom": {"secret": "database", "key": "password"}}}}
    documents = render(merged(OWN_STORES, settings, {"extraEnv": [{"name": "POSTGRES_PASSWORD", "value": "old"}]}))
    (container,) = find(documents, "Deployment", "goqueue-api")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [
        {"name": "POSTGRES_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}}
    ]


def test_a_volume_of_ones_own_may_replace_that_of_the_chart() -> None:
    disk = {"name": "tmp", "ephemeral": {"volumeClaimTemplate": {}}}
    spec = find(render({"extraVolumes": [disk]}), "Deployment", "goqueue-api")["spec"]["template"]["spec"]
    assert spec["volumes"] == [disk]


@pytest.mark.parametrize(("value", "text"), [(5, "5"), (1000000, "1000000"), (0.5, "0.5"), (True, "true"), ("", "")])
def test_a_variable_is_text_whatever_form_its_value_has(value: object, text: str) -> None:
    given = [{"name": "A", "value": value}]
    documents = render({"api": {"extraEnv": given}})
    (container,) = find(documents, "Deployment", "goqueue-api")["spec"]["template"]["spec"]["containers"]
    assert {"name": "A", "value": text} in container["env"]
    (pool,) = pools({"workerPools": {"default": {"spec": {"env": given}}}})
    assert pool["spec"]["env"] == [{"name": "A", "value": text}]


@pytest.mark.parametrize("version", HELMS)
def test_a_worker_pools_own_spec_is_added_to_what_the_chart_sets(version: str) -> None:
    common = {
        **keyed("for-all", "1Gi"),
        "extraEnvFrom": [{"secretRef": {"name": "all"}}],
        "settings": {"email": {"passwordFrom": {"secret": "smtp", "key": "password"}}},
    }
    worker = {"name": "worker", "env": [{"name": "C", "value": 1}], "volumeMounts": [{"name": "x", "mountPath": "/x"}]}
    spec = {
        "env": [{"name": "APP_ENV", "value": "prod"}, {"name": "TZ", "value": "own"}],
        "envFrom": [{"secretRef": {"name": "own"}}],
        "minReplicas": 0,
        "podTemplate": {
            "spec": {
                "volumes": [{"name": "x", "emptyDir": {}}],
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "containers": [{"name": "proxy", "image": "proxy:1"}, worker],
            }
        },
    }
    (pool,) = pools({**common, "workerPools": {"default": {"spec": spec}}}, version=version)
    made, pod = pool["spec"], pool["spec"]["podTemplate"]["spec"]
    secret = {"secretKeyRef": {"name": "smtp", "key": "password"}}
    assert made["env"] == [
        {"name": "TZ", "value": "own"},
        {"name": "GOQUEUE_SMTP_PASSWORD", "valueFrom": secret},
        {"name": "APP_ENV", "value": "prod"},
    ]
    assert made["envFrom"] == [{"secretRef": {"name": "all"}}, {"secretRef": {"name": "own"}}]
    assert made["minReplicas"] == 0
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp", "data", "x"]
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["jobs", "gpu"]
    container, proxy = pod["containers"]
    assert proxy == {"name": "proxy", "image": "proxy:1"}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp", "/data", "/x"]
    assert container["env"] == [{"name": "C", "value": "1"}]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("start", ["goqueue-migrate-", "goqueue-pools-"])
def test_a_job_on_which_all_else_waits_never_gives_up(start: str) -> None:
    (job,) = [one for one in render() if one["kind"] == "Job" and one["metadata"]["name"].startswith(start)]
    assert job["spec"]["backoffLimit"] == 2**31 - 1
    assert "activeDeadlineSeconds" not in job["spec"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"


def test_a_job_on_which_helm_waits_ends() -> None:
    hooked = merged(OWN_STORES, {"migrations": {"mode": "hook"}})
    spec = find(render(hooked), "Job", "goqueue-migrate")["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (10, 1800)


def test_worker_pools_are_not_labelled_as_part_of_the_release() -> None:
    documents = render()
    (pool,) = pools({})
    metadata = pool["metadata"]
    assert "app.kubernetes.io/instance" not in metadata["labels"]
    assert metadata["labels"]["goqueue.io/release"] == "goqueue"
    assert metadata["annotations"] == {
        "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
        "argocd.argoproj.io/sync-options": "Prune=false",
    }
    # Its pods are, as NetworkPolicies and budgets select them by it.
    assert pool["spec"]["podTemplate"]["metadata"]["labels"]["app.kubernetes.io/instance"] == "goqueue"
    for one in documents:
        if one["kind"] == "Job" and one["metadata"]["labels"]["app.kubernetes.io/component"] == "maintenance":
            (container,) = one["spec"]["template"]["spec"]["containers"]
            assert {"name": "POOL_LABEL", "value": "goqueue.io/release=goqueue"} in container["env"]


def test_secrets_are_written_so_that_a_key_which_leaves_the_values_goes() -> None:
    secrets = [one for one in render({"settings": {"payment": {"stripeKey": "sk"}}}) if one["kind"] == "Secret"]
    assert secrets
    assert all("stringData" not in one for one in secrets)


@pytest.mark.parametrize("version", HELMS)
def test_replicas_are_left_out_where_something_else_scales(version: str) -> None:
    values = {
        **WITHOUT_OPERATOR,
        "api": {"autoscaling": {"enabled": True}},
        "workerPools": {"default": {"replicas": None}, "other": {"replicas": None}, "fixed": {"replicas": 0}},
    }
    documents = render(values, version=version)
    named = {one["metadata"]["name"]: one["spec"] for one in documents if one["kind"] == "Deployment"}
    for name in ("goqueue-api", "goqueue-worker-default", "goqueue-worker-other"):
        assert "replicas" not in named[name], name
    assert named["goqueue-worker-fixed"]["replicas"] == 0
