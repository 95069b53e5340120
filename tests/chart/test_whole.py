"""Values that concern the whole release: what they reach, and what they leave alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.chart import CHART, HELMS, HelmFailed, Manifest, find, pod_specs, render, run_helm, template
from tests.chart.test_values import merged

COMPONENT = "app.kubernetes.io/component"
NO_OPERATOR = {"operator": {"enabled": False}}
ZONES = {"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
EVICTABLE = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"


def pools(documents: list[Manifest]) -> list[Manifest]:
    found: list[Manifest] = json.loads(find(documents, "ConfigMap", "goqueue-pools")["data"]["pools.json"])
    return found


def selectors(tree: Any) -> list[Any]:
    """All selectors of pods within a manifest."""
    found = []
    if isinstance(tree, dict):
        found = [value for key, value in tree.items() if key in ("matchLabels", "selector", "podSelector")]
        found += [one for value in tree.values() for one in selectors(value)]
    if isinstance(tree, list):
        found = [one for value in tree for one in selectors(value)]
    return found


@pytest.mark.parametrize("operator", [True, False])
def test_common_labels_are_on_all_resources_and_pods_and_in_no_selector(operator: bool) -> None:
    labels = {"team": "billing", "app.kubernetes.io/part-of": "shop"}
    documents = render({"commonLabels": labels, "operator": {"enabled": operator}})
    for one in documents:
        assert labels.items() <= one["metadata"]["labels"].items() or one["kind"] == "Pod", one["metadata"]["name"]
        assert "billing" not in str(selectors(one)), one["metadata"]["name"]
        for claim in one.get("spec", {}).get("volumeClaimTemplates", []):
            assert "billing" not in str(claim), "a StatefulSet's claims cannot be changed"
    for name, pod in pod_specs(documents).items():
        assert labels.items() <= pod["metadata"]["labels"].items(), name
    if operator:
        (pool,) = pools(documents)
        assert labels.items() <= pool["metadata"]["labels"].items()
        assert labels.items() <= pool["spec"]["podTemplate"]["metadata"]["labels"].items()


def test_annotations_of_deployments_are_on_them_and_not_on_their_pods() -> None:
    values = {
        "deploymentAnnotations": {"reloader.stakater.com/auto": "true", "owner": "all"},
        "api": {"deploymentAnnotations": {"owner": "api"}},
    }
    deployments = [one for one in render(merged(values, NO_OPERATOR)) if one["kind"] == "Deployment"]
    assert len(deployments) == 3
    for one in deployments:
        owner = "api" if one["metadata"]["name"] == "goqueue-api" else "all"
        assert one["metadata"]["annotations"] == {"reloader.stakater.com/auto": "true", "owner": owner}
        assert "owner" not in one["spec"]["template"]["metadata"]["annotations"]
    (pool,) = pools(render(values))  # which hands them on to its Deployment
    assert pool["metadata"]["annotations"]["owner"] == "all"
    assert "owner" not in pool["spec"]["podTemplate"]["metadata"]["annotations"]


def test_containers_beside_run_in_every_process_and_a_proxy_before_the_schema_is_waited_for() -> None:
    proxy = {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}
    beside = {"name": "beside", "image": "beside:1", "securityContext": {"readOnlyRootFilesystem": False}}
    values = {"extraInitContainers": [proxy], "extraContainers": [beside]}
    documents = render(merged(values, NO_OPERATOR))
    for part in ("api", "scheduler", "worker-default"):
        spec = find(documents, "Deployment", f"goqueue-{part}")["spec"]["template"]["spec"]
        assert [one["name"] for one in spec["initContainers"]] == ["proxy", "wait-for-schema"]
        assert spec["containers"][1] == beside
        # One that says nothing would be refused where `restricted` is enforced.
        assert spec["initContainers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    (migrate,) = [one for one in documents if one["kind"] == "Job"]
    spec = migrate["spec"]["template"]["spec"]
    assert [one["name"] for one in spec["initContainers"]] == ["proxy"]
    assert [one["name"] for one in spec["containers"]] == ["migrate"], "a Job with another container never ends"
    (pool,) = pools(render(values))
    assert [one["name"] for one in pool["spec"]["podTemplate"]["spec"]["initContainers"]] == ["proxy"]
    assert [one["name"] for one in pool["spec"]["podTemplate"]["spec"]["containers"]] == ["worker", "beside"]


def test_extra_objects_are_maps_or_texts_with_templates() -> None:
    policy = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-one"}}
    text = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ include "goqueue.fullname" . }}-two}\n'
    documents = render({"extraObjects": [policy, text]})
    assert find(documents, "ConfigMap", "goqueue-one")
    assert find(documents, "ConfigMap", "goqueue-two")


def test_a_strategy_of_ones_own_replaces_the_charts() -> None:
    documents = render(merged(NO_OPERATOR, {part: {"strategy": {"type": "Recreate"}} for part in ("api", "worker")}))
    for part in ("api", "worker-default"):
        assert find(documents, "Deployment", f"goqueue-{part}")["spec"]["strategy"] == {"type": "Recreate"}
    assert "rollingUpdate" in find(documents, "Deployment", "goqueue-scheduler")["spec"]["strategy"]


def test_the_api_scales_as_it_is_told_and_has_addresses_of_both_families() -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 600}}
    service = {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    documents = render({"api": {"autoscaling": {"enabled": True, "behavior": behavior}, "service": service}})
    assert find(documents, "HorizontalPodAutoscaler", "goqueue-api")["spec"]["behavior"] == behavior
    assert service.items() <= find(documents, "Service", "goqueue-api")["spec"].items()
    assert "ipFamilyPolicy" not in find(render(), "Service", "goqueue-api")["spec"]


@pytest.mark.parametrize(("monitor", "kind"), [("podMonitor", "PodMonitor"), ("serviceMonitor", "ServiceMonitor")])
def test_monitors_drop_series(monitor: str, kind: str) -> None:
    drop = [{"action": "drop", "sourceLabels": ["__name__"], "regex": "python_.*"}]
    spec = find(render({monitor: {"enabled": True, "metricRelabelings": drop}}), kind, "goqueue-metrics")["spec"]
    endpoints = spec.get("endpoints") or spec["podMetricsEndpoints"]
    assert [one["metricRelabelings"] for one in endpoints] == [drop, drop]


def test_a_constraint_without_a_selector_counts_the_pods_of_each_part_by_themselves() -> None:
    documents = render(merged(NO_OPERATOR, {"topologySpreadConstraints": [ZONES]}))
    for name, pod in pod_specs(documents).items():
        (constraint,) = pod["spec"]["topologySpreadConstraints"]
        chosen = constraint["labelSelector"]["matchLabels"]
        assert chosen.items() <= pod["metadata"]["labels"].items(), name
        assert chosen[COMPONENT] == pod["metadata"]["labels"][COMPONENT], name
        rolls = name.startswith("Deployment")
        assert constraint.get("matchLabelKeys") == (["pod-template-hash"] if rolls else None), name
    (pool,) = pools(render({"topologySpreadConstraints": [ZONES]}))
    (constraint,) = pool["spec"]["podTemplate"]["spec"]["topologySpreadConstraints"]
    assert constraint["labelSelector"] == {"matchLabels": {"goqueue.io/pool": "goqueue-default"}}


def test_a_constraint_with_a_selector_stays_as_it_is() -> None:
    given = ZONES | {"labelSelector": {"matchLabels": {"app.kubernetes.io/instance": "goqueue"}}}
    for pod in pod_specs(render({"topologySpreadConstraints": [given]})).values():
        assert pod["spec"]["topologySpreadConstraints"] == [given]


def test_the_autoscaler_of_the_cluster_may_remove_every_pod_with_an_emptydir() -> None:
    for documents in (render(), render(NO_OPERATOR)):
        for name, pod in pod_specs(documents).items():
            local = {one["name"] for one in pod["spec"]["volumes"] if "emptyDir" in one}
            assert set(pod["metadata"]["annotations"][EVICTABLE].split(",")) == local, name
    undone = render({"podAnnotations": {EVICTABLE: ""}})
    assert {pod["metadata"]["annotations"][EVICTABLE] for pod in pod_specs(undone).values()} == {""}
    lost = render({"postgresql": {"persistence": {"enabled": False}}})
    database = pod_specs(lost)["StatefulSet/goqueue-postgresql"]
    assert "data" not in database["metadata"]["annotations"][EVICTABLE], "it would lose the jobs"


@pytest.mark.parametrize("operator", [True, False])
def test_a_drain_takes_half_of_each_worker_pool_at_most(operator: bool) -> None:
    both = {"workerPools": {"slow": {}}, "operator": {"enabled": operator}}
    documents = render(both)
    for name in ("default", "slow"):
        budget = find(documents, "PodDisruptionBudget", f"goqueue-worker-{name}")["spec"]
        assert budget["maxUnavailable"] == "50%"
        chosen = budget["selector"]["matchLabels"]
        if operator:  # the operator puts this label on the pods, whatever the pool says
            assert chosen == {"goqueue.io/pool": f"goqueue-{name}"}
            assert f"goqueue-{name}" in [pool["metadata"]["name"] for pool in pools(documents)]
        else:
            pods = find(documents, "Deployment", f"goqueue-worker-{name}")["spec"]["template"]
            assert chosen.items() <= pods["metadata"]["labels"].items()
            assert chosen["goqueue.io/worker-pool"] == name
    off = render(merged(both, {"worker": {"podDisruptionBudget": {"enabled": False}}}))
    assert not [one for one in off if one["kind"] == "PodDisruptionBudget" and "worker" in one["metadata"]["name"]]


def egress_of(documents: list[Manifest], component: str) -> list[Manifest]:
    rules = []
    for one in documents:
        if one["kind"] == "NetworkPolicy":
            selector = one["spec"]["podSelector"]
            named = selector.get("matchLabels", {}).get(COMPONENT)
            among = [each["values"] for each in selector.get("matchExpressions", []) if each["key"] == COMPONENT]
            if (named is None or named == component) and all(component in values for values in among):
                rules += one["spec"].get("egress", [])
    return rules


PARTS = ("api", "maintenance", "migrations", "operator", "scheduler", "test", "worker")


@pytest.mark.parametrize("component", PARTS)
def test_every_pod_asks_for_names_on_kubernetes_and_openshift_and_has_the_extra_egress(component: str) -> None:
    extra = {"ports": [{"protocol": "TCP", "port": 3128}]}
    rules = egress_of(render({"networkPolicy": {"extraEgress": [extra]}}), component)
    assert extra in rules
    dns = [{"protocol": protocol, "port": port} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    assert {"ports": dns} in rules
    own = egress_of(render({"networkPolicy": {"dnsPorts": [9053]}}), component)
    assert {"ports": [{"protocol": "UDP", "port": 9053}, {"protocol": "TCP", "port": 9053}]} in own


@pytest.mark.parametrize("release", ["my.jobs", "1jobs", "1goqueue"])
def test_a_release_whose_name_no_service_may_have_is_told_to_set_another(release: str) -> None:
    with pytest.raises(HelmFailed, match=f"release name {release}: .* set fullnameOverride"):
        template(release=release)
    assert find(render({"fullnameOverride": "jobs"}, release=release), "Service", "jobs-api")


def test_the_bundled_stores_have_names_that_every_namespace_resolves() -> None:
    data = find(render(), "ConfigMap", "goqueue-worker-settings")["data"]
    assert data["POSTGRES_HOST"] == "goqueue-postgresql.jobs.svc"


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("enabled", [True, False])
def test_a_chart_may_depend_on_this_one_under_a_condition(version: str, enabled: bool, tmp_path: Path) -> None:
    dependency = {"name": "goqueue", "version": "*", "repository": CHART.as_uri(), "condition": "goqueue.enabled"}
    about = {"apiVersion": "v2", "name": "shop", "version": "1.0.0", "dependencies": [dependency]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(about))
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"goqueue": {"enabled": enabled}}))
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "goqueue").symlink_to(CHART)
    text = run_helm("template", "shop", str(tmp_path), "--kube-version", "1.34.0", version=version)
    assert ("name: shop-goqueue-api" in text) is enabled


@pytest.mark.parametrize("version", ["helm3", "helm4"])
def test_a_pool_of_the_values_can_be_taken_out_by_null(version: str, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"workerPools": {"payment": {"queues": ["payment"]}}}))
    (tmp_path / "over.yaml").write_text(yaml.safe_dump({"workerPools": {"payment": None}}))
    values = [f"--values={tmp_path / name}.yaml" for name in ("base", "over")]
    text = run_helm("template", "jobs", str(CHART), "--kube-version", "1.34.0", *values, version=version)
    assert "jobs-goqueue-default" in text
    assert "jobs-goqueue-payment" not in text
