"""The chart's life on a real API server, by both Helms: first install, upgrades, worker pools changed by hand."""

import asyncio
import importlib
import json
import runpy
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from goqueue_cli.keeper import LOOPBACK
from tests.chart.chart import CHART, HELMS, HelmFailed, decoded, find, helm, render
from tests.integration.operator.apiserver import ApiServer

SCRIPTS = CHART / "files" / "scripts"
STRIPE = "sk_test_first"
OFF: dict[str, Any] = {"operator": {"enabled": False}}
LEAN: dict[str, Any] = {"crds": {"install": False}, "networkPolicy": {"enabled": False}}
"""The run has the definitions already; policies need not be written for pods that never start."""

pytestmark = pytest.mark.timeout(300)  # Helm, ten times over


@dataclass
class Release:
    """A release in a namespace of its own."""

    kubernetes: ApiServer
    version: str
    folder: Path
    namespace: str = field(default_factory=lambda: f"r-{uuid.uuid4().hex[:8]}")

    def helm(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """Run Helm in the namespace.

        Raises:
            HelmFailed: it ended with an error.
        """
        command = [str(helm(self.version)), *arguments, "--namespace", self.namespace]
        if values is not None:
            command += ["--values", "-"]
        environment = {"KUBECONFIG": str(self.kubernetes.kubeconfig), "HOME": str(self.folder)}
        text = json.dumps({**(values or {}), **LEAN})
        done = subprocess.run(
            command, input=text, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise HelmFailed(done.stderr)
        return done.stdout

    def install(self, values: Mapping[str, Any]) -> None:
        """Install the chart."""
        self.helm("install", "goqueue", str(CHART), "--create-namespace", values=values)

    def upgrade(self, values: Mapping[str, Any], *options: str) -> str:
        """Upgrade to other values."""
        return self.helm("upgrade", "goqueue", str(CHART), *options, values=values)

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json` in the namespace."""
        return self.kubernetes.get("-n", self.namespace, *arguments)

    def kubectl(self, *arguments: str, stdin: Any = None) -> str:
        """Run kubectl in the namespace."""
        return self.kubernetes("-n", self.namespace, *arguments, stdin=stdin)

    def job(self, start: str) -> str:
        """The name of the one Job that begins so."""
        names = [one["metadata"]["name"] for one in self.get("jobs")["items"]]
        (name,) = [name for name in names if name.startswith(f"goqueue-{start}-")]
        return str(name)

    def make_available(self, part: str) -> None:
        """Say of all pods of a part that they are ready, as the kubelet does; wait until the Deployment says so."""
        ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        selector = f"app.kubernetes.io/component={part}"
        self.kubectl("wait", "pods", f"--selector={selector}", "--for=create", "--timeout=30s")
        for pod in self.get("pods", "--selector", selector)["items"]:
            name = pod["metadata"]["name"]
            self.kubectl("patch", "pod", name, "--subresource=status", "--patch", json.dumps(ready))
        self.kubectl("wait", "deployment", f"goqueue-{part}", "--for=condition=Available", "--timeout=30s")


@pytest.fixture(params=HELMS, name="release")
def _release(request: pytest.FixtureRequest, kubernetes: ApiServer, tmp_path: Path) -> Iterator[Release]:
    release = Release(kubernetes, request.param, tmp_path)
    yield release
    kubernetes("delete", "namespace", release.namespace, "--wait=false", "--ignore-not-found")


class Scripts:
    """The chart's scripts, run here with the rights of the tests."""

    def __init__(self, kubernetes: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "token").write_text(kubernetes.token)
        (folder / "ca.crt").write_bytes((kubernetes.folder / "certs" / "apiserver.crt").read_bytes())
        monkeypatch.syspath_prepend(str(SCRIPTS))
        self._kube: ModuleType = importlib.import_module("kube")
        monkeypatch.setattr(self._kube, "_ACCOUNT", folder)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", LOOPBACK)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(kubernetes.port))
        self._folder, self._monkeypatch = folder, monkeypatch

    def apply(self, namespace: str, pools: list[dict[str, Any]]) -> None:
        """What the pools' Job does."""
        (self._folder / "pools.json").write_text(json.dumps(pools))
        self._monkeypatch.setenv("NAMESPACE", namespace)
        self._monkeypatch.setenv("POOL_LABEL", "goqueue.io/release=goqueue")
        self._monkeypatch.setenv("POOLS", str(self._folder / "pools.json"))
        runpy.run_path(str(SCRIPTS / "pools.py"), run_name="__main__")


@pytest.fixture(name="scripts")
def _scripts(kubernetes: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripts]:
    yield Scripts(kubernetes, tmp_path, monkeypatch)
    sys.modules.pop("kube", None)


def pools_of(namespace: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The worker pools that the chart renders."""
    documents = render({**values, "crds": {"install": False}}, namespace=namespace)
    found: list[dict[str, Any]] = json.loads(find(documents, "ConfigMap", "goqueue-pools")["data"]["pools.json"])
    return found


async def test_a_secret_that_left_the_values_leaves_the_workers(release: Release) -> None:
    def secrets() -> dict[str, str]:
        return decoded(release.get("secret", "goqueue-worker-secrets")["data"])

    def lifetime() -> None:
        release.install({"settings": {"payment": {"stripeKey": STRIPE}, "webhook": {"secrets": ["whsec_b2xk"]}}})
        assert len(secrets()) == 2
        release.upgrade({"settings": {"payment": {"stripeKey": "sk_test_second"}}})
        assert list(secrets().values()) == ["sk_test_second"]

    await asyncio.to_thread(lifetime)


async def test_names_that_are_in_two_lists_are_installed_once(release: Release) -> None:
    def twice(value: str) -> dict[str, Any]:
        return {
            "extraEnv": [{"name": "TZ", "value": value}, {"name": "COUNT", "value": 5}],
            "extraVolumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Gi" if value == "UTC" else "2Gi"}}],
            "extraVolumeMounts": [{"name": "data", "mountPath": "/data"}],
            "tolerations": [{"key": "jobs", "operator": "Exists"}],
        }

    parts = ("api", "scheduler", "operator", "worker", "migrations", "maintenance")

    def lifetime() -> None:
        own = {part: twice("Europe/Berlin") for part in parts}
        release.install({**twice("UTC"), **own, "imagePullSecrets": [{"name": "registry"}, {"name": "registry"}]})
        pod = release.get("deployment", "goqueue-api")["spec"]["template"]["spec"]
        variables = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        assert variables == {"TZ": "Europe/Berlin", "COUNT": "5"}
        volumes = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "data"]
        assert volumes == [{"sizeLimit": "2Gi"}]
        assert pod["tolerations"] == [{"key": "jobs", "operator": "Exists"}]

    await asyncio.to_thread(lifetime)


async def test_switching_autoscaling_on_keeps_the_pods_of_the_api(release: Release) -> None:
    on = {**OFF, "api": {"replicas": 6, "autoscaling": {"enabled": True, "minReplicas": 3}}}

    def replicas() -> int:
        return int(release.get("deployment", "goqueue-api")["spec"]["replicas"])

    def lifetime() -> None:
        release.install({**OFF, "api": {"replicas": 6}})
        release.upgrade(on)
        assert replicas() == 6
        release.upgrade(on)
        assert replicas() == 6
        release.kubectl("scale", "deployment", "goqueue-api", "--replicas=4")  # as the autoscaler does
        release.upgrade(on)
        release.upgrade(on)
        assert replicas() == 4

    await asyncio.to_thread(lifetime)


async def test_an_autoscaler_gets_pods_to_begin_with(release: Release) -> None:
    on = {**OFF, "api": {"autoscaling": {"enabled": True, "minReplicas": 3}}}

    def lifetime() -> None:
        release.install(on)
        release.kubectl("scale", "deployment", "goqueue-api", "--replicas=0")  # where it would leave it
        release.upgrade(on, *(["--force-conflicts"] if release.version == "helm4" else []))
        assert release.get("deployment", "goqueue-api")["spec"]["replicas"] == 3

    await asyncio.to_thread(lifetime)


async def test_workers_that_something_else_scales_keep_their_number(release: Release) -> None:
    pool = {"workerPools": {"default": {"replicas": None}}}

    def lifetime() -> None:
        release.install({**OFF, "workerPools": {"default": {"replicas": 5}}})
        release.upgrade({**OFF, **pool})
        assert release.get("deployment", "goqueue-worker-default")["spec"]["replicas"] == 5
        release.kubectl("scale", "deployment", "goqueue-worker-default", "--replicas=0")
        release.upgrade({**OFF, **pool})
        assert release.get("deployment", "goqueue-worker-default")["spec"]["replicas"] == 0

    await asyncio.to_thread(lifetime)


async def test_an_upgrade_applies_the_pools_again_where_somebody_changed_them(
    release: Release, scripts: Scripts
) -> None:
    values = {"workerPools": {"default": {"queues": ["email"]}}}

    def lifetime() -> None:
        release.install(values)
        scripts.apply(release.namespace, pools_of(release.namespace, values))
        first = release.job("pools")
        release.upgrade(values)
        assert release.job("pools") == first
        release.kubectl("scale", "gqp", "goqueue-default", "--replicas=2")
        release.upgrade(values)
        second = release.job("pools")
        assert second != first
        scripts.apply(release.namespace, pools_of(release.namespace, values))
        release.upgrade(values)
        release.kubectl("delete", "gqp", "goqueue-default")
        release.upgrade(values)
        assert release.job("pools") not in (first, second)

    await asyncio.to_thread(lifetime)


async def test_an_upgrade_runs_the_migrations_again_while_no_pod_is_available(release: Release) -> None:
    def lifetime() -> None:
        release.install({})
        first = release.job("migrate")
        release.upgrade({})
        second = release.job("migrate")
        assert second != first
        release.make_available("api")
        release.upgrade({})
        assert release.job("migrate") == first
        release.upgrade({})
        assert release.job("migrate") == first

    await asyncio.to_thread(lifetime)


async def test_switching_the_operator_off_cleans_up_what_it_looked_after(release: Release) -> None:
    def lifetime() -> None:
        release.install({})
        rendered = release.upgrade(OFF, "--dry-run=server")
        assert "name: goqueue-cleanup" in rendered
        assert "helm.sh/hook: pre-upgrade,pre-rollback" in rendered
        with pytest.raises(HelmFailed, match="leaves worker pools and finalizers"):
            release.upgrade({**OFF, "maintenance": {"cleanup": False}})
        release.upgrade(OFF, "--no-hooks")
        assert "name: goqueue-cleanup" not in release.upgrade(OFF, "--dry-run=server")

    await asyncio.to_thread(lifetime)


@pytest.fixture(name="namespace")
def _namespace(kubernetes: ApiServer) -> Iterator[str]:
    name = f"r-{uuid.uuid4().hex[:8]}"
    kubernetes("create", "namespace", name)
    yield name
    kubernetes("delete", "namespace", name, "--wait=false")


async def test_applied_pools_are_what_the_values_say_whatever_was_changed_by_hand(
    kubernetes: ApiServer, namespace: str, scripts: Scripts
) -> None:
    values = {
        "workerPools": {"default": {"queues": ["email", "webhooks"], "spec": {"env": [{"name": "A", "value": 1}]}}}
    }

    def lifetime() -> None:
        (wanted,) = pools_of(namespace, values)
        scripts.apply(namespace, [wanted])
        spec = kubernetes.get("-n", namespace, "gqp", "goqueue-default")["spec"]
        assert wanted["spec"].items() <= spec.items()
        kubernetes("-n", namespace, "scale", "gqp", "goqueue-default", "--replicas=2")
        by_hand = {"queues": ["payment"], "env": [{"name": "B", "value": "2"}], "imagePullPolicy": "Always"}
        patch = json.dumps({"spec": by_hand})
        kubernetes("-n", namespace, "patch", "gqp", "goqueue-default", "--type=merge", "-p", patch)
        scripts.apply(namespace, [wanted])
        assert kubernetes.get("-n", namespace, "gqp", "goqueue-default")["spec"] == spec
        scripts.apply(namespace, [])
        assert kubernetes.get("-n", namespace, "gqp")["items"] == []

    await asyncio.to_thread(lifetime)


async def test_a_pool_of_its_own_spec_is_taken_beside_what_the_chart_sets(
    kubernetes: ApiServer, namespace: str, scripts: Scripts
) -> None:
    cache = {"name": "cache", "emptyDir": {}}
    beside = {"name": "proxy", "image": "example.com/proxy:1"}
    mounted = {"name": "worker", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}
    spec = {
        "env": [{"name": "APP_ENV", "value": "prod"}],
        "envFrom": [{"secretRef": {"name": "mine"}}],
        "podTemplate": {"spec": {"volumes": [cache], "containers": [mounted, beside]}},
    }
    redis = {
        "valkey": {"enabled": False},
        "extraEnv": [{"name": "REDIS", "value": "r"}],
        "extraEnvFrom": [{"secretRef": {"name": "all"}}],
    }
    values = {**redis, "settings": {"redis": {"url": "redis://$(REDIS)"}}, "workerPools": {"default": {"spec": spec}}}

    def lifetime() -> None:
        scripts.apply(namespace, pools_of(namespace, values))
        made = kubernetes.get("-n", namespace, "gqp", "goqueue-default")["spec"]
        assert [one["name"] for one in made["env"]] == ["REDIS", "GOQUEUE_REDIS_URL", "APP_ENV"]
        assert [one["secretRef"]["name"] for one in made["envFrom"]] == ["all", "mine"]
        pod = made["podTemplate"]["spec"]
        assert [volume["name"] for volume in pod["volumes"]] == ["tmp", "cache"]
        worker, proxy = pod["containers"]
        assert [mount["mountPath"] for mount in worker["volumeMounts"]] == ["/tmp", "/cache"]
        assert worker["securityContext"]["readOnlyRootFilesystem"] is True
        assert proxy == beside

    await asyncio.to_thread(lifetime)
