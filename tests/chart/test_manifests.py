"""What the chart renders: valid for Kubernetes, restricted, consistent in itself, the same by both Helms."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import generated
from tests.chart.chart import (
    CHART,
    CHECKOUT,
    HELMS,
    Manifest,
    find,
    manifests,
    pod_specs,
    render,
    run_helm,
    template,
)
from tests.chart.kubernetes import schemas
from tests.chart.test_values import OWN_STORES, merged

GIVEN = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(generated.GIVEN.glob("*.yaml"))}

MATRIX: dict[str, dict[str, Any]] = {
    **GIVEN,
    "cluster-wide": {"settings": {"operator": {"clusterWide": True}}, "podMonitor": {"enabled": True}},
    "relabelled": {
        "podMonitor": {"enabled": True, "relabelings": [{"action": "labeldrop", "regex": "pod"}]},
        "networkPolicy": {"enabled": False},
    },
    "monitored by Services": {"serviceMonitor": {"enabled": True, "labels": {"a": "b"}, "interval": "15s"}},
    "alerts, dashboards": {
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True, "annotations": {}},
        "settings": {"operator": {"clusterWide": True}},
    },
    "no operator": {"operator": {"enabled": False}},
    "no cleanup": {"maintenance": {"cleanup": False}},
    "no migrations": {"migrations": {"mode": "none"}},
    "no policies, budgets, CRDs": {
        "networkPolicy": {"enabled": False},
        "crds": {"install": False},
        **{part: {"podDisruptionBudget": {"enabled": False}} for part in ("api", "scheduler", "operator", "worker")},
    },
    "nothing kept": {"crds": {"keep": False}, "postgresql": {"persistence": {"keep": False}}},
    "no disk": {"postgresql": {"persistence": {"enabled": False}}},
    "own PostgreSQL only": {"postgresql": {"enabled": False}, "settings": {"postgres": {"host": "db"}}},
    "own Redis only": {"valkey": {"enabled": False}, "settings": {"redis": {"url": "redis://r"}}},
    "existing secrets": {
        "settings": {"postgres": {"passwordFrom": {"secret": "mine", "key": "a"}}},
        "valkey": {"passwordFrom": {"secret": "mine", "key": "b"}},
    },
    "given passwords": {"settings": {"postgres": {"password": "one"}}, "valkey": {"password": "two"}},
    "Redis cluster": merged(OWN_STORES, {"settings": {"redis": {"cluster": True, "url": "rediss://r"}}}),
    "node port": {"api": {"service": {"type": "NodePort", "nodePort": 30080, "annotations": {"a": "b"}}}},
    "ingress without paths": {"ingress": {"enabled": True, "hosts": [{"host": "a.example.com"}]}},
    "ingress for every host": {"ingress": {"enabled": True, "hosts": [{"host": ""}]}},
    "route with matches": {
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "gateway"}],
            "matches": [{"path": {"type": "PathPrefix", "value": "/jobs"}}],
        }
    },
    "own accounts": {
        part: {"serviceAccount": {"create": False, "name": "mine"}}
        for part in ("api", "scheduler", "operator", "worker", "migrations", "maintenance")
    },
    "no pools": {"workerPools": {"default": None}},
    "policies in detail": {"networkPolicy": {"workerEgress": [], "extraEgress": [{"ports": [{"port": 4318}]}]}},
}

EVERYWHERE: dict[str, Any] = {
    "podLabels": {"everywhere": "yes"},
    "podAnnotations": {"example.com/everywhere": "yes"},
    "nodeSelector": {"everywhere": "yes"},
    "tolerations": [{"key": "everywhere", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [{"maxSkew": 7, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    "priorityClassName": "everywhere",
    "hostUsers": False,
    "extraInitContainers": [{"name": "first", "image": "proxy:1", "restartPolicy": "Always"}],
    "imagePullSecrets": [{"name": "everywhere"}],
    "extraEnv": [{"name": "EVERYWHERE", "value": "yes"}],
    "extraEnvFrom": [{"secretRef": {"name": "everywhere"}}],
    "extraVolumes": [{"name": "everywhere", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "everywhere", "mountPath": "/everywhere"}],
}
OWN = {name: value for name, value in EVERYWHERE.items() if name != "imagePullSecrets"}
PARTS = ("api", "scheduler", "operator", "worker", "migrations", "maintenance")
MADE_BY_USERS = {
    "registry",
    "store-ca",
    "telemetry",
    "everywhere",
    "redis",
    "goqueue-database",
    "smtp",
    "webhooks",
    "stripe",
    "mine",
}
WITH_TOKEN = {"operator", "maintenance", "test"}


@pytest.fixture(params=MATRIX, name="documents")
def _documents(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(MATRIX[request.param])


def test_kubernetes_knows_every_field(documents: list[Manifest]) -> None:
    assert [error for one in documents for error in schemas().errors(one)] == []


def test_names_are_unique(documents: list[Manifest]) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in documents]
    assert len(names) == len(set(names))


def test_every_pod_is_restricted(documents: list[Manifest]) -> None:
    for name, pod in pod_specs(documents).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        allowed = {"emptyDir", "configMap", "secret", "persistentVolumeClaim", "projected"}
        assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"]), name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], name


def test_only_who_needs_a_token_gets_one(documents: list[Manifest]) -> None:
    for name, pod in pod_specs(documents).items():
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        assert pod["spec"]["automountServiceAccountToken"] is (component in WITH_TOKEN), name
        assert pod["spec"]["enableServiceLinks"] is False, name
    for one in documents:
        if one["kind"] == "ServiceAccount":
            assert one["automountServiceAccountToken"] is False


def test_what_pods_refer_to_exists(documents: list[Manifest]) -> None:
    made = {(one["kind"], one["metadata"]["name"]) for one in documents}
    for name, pod in pod_specs(documents).items():
        spec = pod["spec"]
        wanted: set[tuple[str, str]] = set()
        if spec.get("serviceAccountName", "mine") != "mine":
            wanted.add(("ServiceAccount", spec["serviceAccountName"]))
        for volume in spec["volumes"]:
            if "configMap" in volume:
                wanted.add(("ConfigMap", volume["configMap"]["name"]))
            if "secret" in volume:
                wanted.add(("Secret", volume["secret"]["secretName"]))
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            names = {volume["name"] for volume in spec["volumes"]} | {"data"}
            assert {mount["name"] for mount in container["volumeMounts"]} <= names, name
            for source in container.get("envFrom", []):
                for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                    if key in source:
                        wanted.add((kind, source[key]["name"]))
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    wanted.add(("Secret", reference["name"]))
            variables = [variable["name"] for variable in container.get("env", [])]
            assert len(variables) == len(set(variables)), f"{name}: a variable twice"
        assert {(kind, called) for kind, called in wanted - made if called not in MADE_BY_USERS} == set(), name


def test_bindings_services_and_budgets_hit_something(documents: list[Manifest]) -> None:
    made = {(one["kind"], one["metadata"]["name"]) for one in documents}
    labels = [pod["metadata"]["labels"] for pod in pod_specs(documents).values()]
    ports = {
        port["name"]
        for pod in pod_specs(documents).values()
        for c in pod["spec"]["containers"]
        for port in c.get("ports", [])
    }
    for one in documents:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"].endswith("RoleBinding"):
            assert (one["roleRef"]["kind"], one["roleRef"]["name"]) in made, name
            for subject in one["subjects"]:
                assert subject["name"] == "mine" or (subject["kind"], subject["name"]) in made, name
        if one["kind"] == "Service":
            assert any(one["spec"]["selector"].items() <= found.items() for found in labels), name
            assert all(port["targetPort"] in ports for port in one["spec"]["ports"]), name
        if one["kind"] == "PodDisruptionBudget" and "goqueue.io/pool" not in str(one["spec"]["selector"]):
            assert any(one["spec"]["selector"]["matchLabels"].items() <= found.items() for found in labels), name
        if one["kind"] in ("Deployment", "StatefulSet"):
            template_labels = one["spec"]["template"]["metadata"]["labels"]
            assert one["spec"]["selector"]["matchLabels"].items() <= template_labels.items(), name


def test_every_pod_is_denied_all_by_default(documents: list[Manifest]) -> None:
    policies = [one for one in documents if one["kind"] == "NetworkPolicy"]
    if not policies:
        return
    deny = find(policies, "NetworkPolicy", "goqueue-default-deny")["spec"]
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    for name, pod in pod_specs(documents).items():
        assert deny["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items(), name


@pytest.mark.parametrize("name", GIVEN)
def test_both_helms_render_the_same(name: str) -> None:
    assert generated.stable(template(GIVEN[name], version="helm3")) == generated.stable(template(GIVEN[name]))


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("name", MATRIX)
def test_lint(name: str, version: str) -> None:
    run_helm("lint", "--strict", "--quiet", str(CHART), version=version, values=MATRIX[name])


def test_generated_files_are_current() -> None:
    stale = [
        str(path.relative_to(CHECKOUT))
        for path, text in generated.all_files()
        if not path.exists() or path.read_text() != text
    ]
    assert stale == [], "run `python -m tests.chart write`"


def test_what_is_meant_for_all_pods_reaches_all_pods() -> None:
    off = {"enabled": False}
    for documents in (render(EVERYWHERE), render(merged(EVERYWHERE, {"operator": off}))):
        for name, pod in pod_specs(documents).items():
            _check_everywhere(name, pod, store="StatefulSet" in name)


@pytest.mark.parametrize("part", PARTS)
def test_what_is_meant_for_a_part_reaches_its_pods_only(part: str) -> None:
    with_operator = part in ("operator", "maintenance")
    documents = render(merged({"operator": {"enabled": with_operator}}, {part: OWN}))
    ours = {"maintenance", "test"} if part == "maintenance" else {part}
    hit = 0
    for name, pod in pod_specs(documents).items():
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] in ours:
            hit += 1
            _check_everywhere(name, pod, store=False, pull_secrets=False)
        else:
            assert "everywhere" not in str(pod), name
    assert hit


def _check_everywhere(name: str, pod: Manifest, *, store: bool, pull_secrets: bool = True) -> None:
    spec = pod["spec"]
    assert pod["metadata"]["labels"]["everywhere"] == "yes", name
    assert pod["metadata"]["annotations"]["example.com/everywhere"] == "yes", name
    assert spec["nodeSelector"] == {"everywhere": "yes"}, name
    assert spec["tolerations"] == EVERYWHERE["tolerations"], name
    assert spec["affinity"] == EVERYWHERE["affinity"], name
    (constraint,) = spec["topologySpreadConstraints"]
    assert EVERYWHERE["topologySpreadConstraints"][0].items() <= constraint.items(), name
    assert spec["priorityClassName"] == "everywhere", name
    assert spec["hostUsers"] is False, name
    if pull_secrets:
        assert spec["imagePullSecrets"] == [{"name": "everywhere"}], name
    if store:  # it gets none of GoQueue's environment
        return
    assert {"name": "everywhere", "emptyDir": {}} in spec["volumes"], name
    first, *init = spec["initContainers"]
    assert EVERYWHERE["extraInitContainers"][0].items() <= first.items(), name
    for container in [*init, *spec["containers"]]:
        assert {"name": "everywhere", "mountPath": "/everywhere"} in container["volumeMounts"], name
        assert {"name": "EVERYWHERE", "value": "yes"} in container["env"], name
        assert {"secretRef": {"name": "everywhere"}} in container["envFrom"], name


def test_digest_wins_over_tag() -> None:
    digest = "sha256:" + "0" * 64
    values: dict[str, Any] = {"image": {"repository": "example.com/q", "tag": "x", "digest": digest}}
    for store in ("postgresql", "valkey"):
        values[store] = {"image": {"repository": f"example.com/{store}", "digest": digest}}
    documents = render(values)
    found = {
        container["image"]
        for pod in pod_specs(documents).values()
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    }
    assert found == {f"example.com/{name}@{digest}" for name in ("q", "postgresql", "valkey")}


def test_zero_downtime() -> None:
    documents = render()
    for name in ("api", "scheduler", "operator"):
        rolling = find(documents, "Deployment", f"goqueue-{name}")["spec"]["strategy"]["rollingUpdate"]
        assert rolling["maxUnavailable"] == 0
    api = find(documents, "Deployment", "goqueue-api")["spec"]["template"]["spec"]
    pause = api["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause + 5 < api["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("grace", [25, 0.5, 120, 3600])
def test_workers_get_longer_than_their_own_grace_period(grace: float) -> None:
    documents = render({"operator": {"enabled": False}, "settings": {"worker": {"graceSeconds": grace}}})
    pod = find(documents, "Deployment", "goqueue-worker-default")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= grace + 10


def job_name(documents: list[Manifest], start: str) -> str:
    (name,) = (
        one["metadata"]["name"]
        for one in documents
        if one["kind"] == "Job" and one["metadata"]["name"].startswith(start)
    )
    return str(name)


@pytest.mark.parametrize("start", ["goqueue-migrate-", "goqueue-pools-"])
def test_a_job_is_a_new_one_exactly_when_its_content_changes(start: str) -> None:
    first = job_name(render(), start)
    assert job_name(render(), start) == first
    assert job_name(render({"api": {"replicas": 5}}), start) == first
    assert job_name(render({"image": {"tag": "next"}}), start) != first


def test_migrations_run_again_for_another_database() -> None:
    own = [render(merged(OWN_STORES, {"settings": {"postgres": {"host": host}}})) for host in ("one", "two")]
    assert job_name(own[0], "goqueue-migrate-") != job_name(own[1], "goqueue-migrate-")


def test_migrations_run_as_the_owner_and_grant_to_the_role_of_the_others() -> None:
    owner = {"owner": {"user": "jobs_owner", "passwordFrom": {"secret": "jobs-db-owner", "key": "password"}}}
    settings = {"settings": {"postgres": {"user": "jobs", "passwordFrom": {"secret": "jobs-db", "key": "password"}}}}
    documents = render(merged(OWN_STORES, {"migrations": owner}, settings))

    def environment(pod: Manifest) -> dict[str, Any]:
        (container,) = pod["containers"]
        names = [entry["name"] for entry in container["env"]]
        assert len(names) == len(set(names))  # the API server refuses the same name twice
        return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}

    job = find(documents, "Job", job_name(documents, "goqueue-migrate-"))
    migrating = environment(job["spec"]["template"]["spec"])
    assert migrating["POSTGRES_USER"] == "jobs_owner"
    assert migrating["GOQUEUE_MIGRATE_GRANT_TO"] == "jobs"
    assert migrating["POSTGRES_PASSWORD"]["secretKeyRef"]["name"] == "jobs-db-owner"
    serving = environment(find(documents, "Deployment", "goqueue-api")["spec"]["template"]["spec"])
    assert serving["POSTGRES_PASSWORD"]["secretKeyRef"]["name"] == "jobs-db"
    assert not {"POSTGRES_USER", "GOQUEUE_MIGRATE_GRANT_TO"} & serving.keys()


def test_migrations_are_no_hook_unless_asked() -> None:
    assert "annotations" not in find(render(), "Job", job_name(render(), "goqueue-migrate-"))["metadata"]
    hooked = merged(OWN_STORES, {"migrations": {"mode": "hook"}, "settings": {"postgres": {"password": "x"}}})
    documents = render(hooked)
    assert (
        find(documents, "Job", "goqueue-migrate")["metadata"]["annotations"]["helm.sh/hook"]
        == "pre-install,pre-upgrade"
    )
    # What the hook needs is a hook too, and comes before it.
    (container,) = find(documents, "Job", "goqueue-migrate")["spec"]["template"]["spec"]["containers"]
    for source in container["envFrom"]:
        kind, reference = next(iter(source.items()))
        needed = find(documents, {"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference["name"])
        assert int(needed["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0


DEFINITIONS = ("CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def test_keep_policy() -> None:
    kept = [
        one for one in render() if (one["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"
    ]
    secrets = {one["metadata"]["name"] for one in kept if one["kind"] == "Secret"}
    assert secrets == {"goqueue-postgresql"}
    assert {one["kind"] for one in kept} <= {"Secret", *DEFINITIONS}
    nothing = render({"crds": {"keep": False}, "postgresql": {"persistence": {"keep": False}}})
    assert "resource-policy" not in str(nothing)
    claim = find(nothing, "StatefulSet", "goqueue-postgresql")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert claim["whenDeleted"] == "Delete"


def test_definitions_are_rendered_as_they_are() -> None:
    rendered = {(one["kind"], one["metadata"]["name"]): one["spec"] for one in render() if one["kind"] in DEFINITIONS}
    files = [yaml.safe_load(path.read_text()) for path in (CHART / "files" / "crds").glob("*.yaml")]
    assert rendered == {(one["kind"], one["metadata"]["name"]): one["spec"] for one in files}


@pytest.mark.parametrize("release", ["q", "a-release-whose-name-is-as-long-as-helm-allows-of-53"])
@pytest.mark.parametrize("operator", [True, False])
def test_names_fit(release: str, operator: bool) -> None:
    documents = render({"workerPools": {"sixteen-letters1": {}}, "operator": {"enabled": operator}}, release=release)
    for one in documents:
        if one["kind"] != "CustomResourceDefinition":
            assert len(one["metadata"]["name"]) <= 63, one["metadata"]["name"]
        for value in one["metadata"].get("labels", {}).values():
            assert len(value) <= 63
    assert [error for one in documents for error in schemas().errors(one)] == []


def test_a_pool_that_says_nothing_is_the_default_one() -> None:
    for operator in (True, False):
        both = {"workerPools": {"other": {}}, "operator": {"enabled": operator}}
        if operator:
            first, second = json.loads(find(render(both), "ConfigMap", "goqueue-pools")["data"]["pools.json"])
        else:
            first, second = (
                find(render(both), "Deployment", f"goqueue-worker-{name}") for name in ("default", "other")
            )
        assert json.dumps(first).replace("default", "other") == json.dumps(second).replace("default", "other")


def test_a_pool_may_go_down_to_zero() -> None:
    documents = render({"workerPools": {"default": {"minReplicas": 0}}})
    (pool,) = json.loads(find(documents, "ConfigMap", "goqueue-pools")["data"]["pools.json"])
    assert pool["spec"]["minReplicas"] == 0


def test_install_manifest_holds_no_secret_and_no_hook() -> None:
    documents = manifests(generated.INSTALL.read_text())
    assert "helm.sh/hook" not in generated.INSTALL.read_text()
    assert [one["metadata"]["name"] for one in documents if one["kind"] == "Secret"] == []


def test_package_leaves_room_in_the_secret_of_a_release(tmp_path: Path) -> None:
    run_helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    # Packed, but as JSON in base64 in base64, beside what it renders; a Secret takes 1 MiB.
    assert package.stat().st_size < 150_000


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"', (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert chart["appVersion"] == version[1]
