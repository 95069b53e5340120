"""GoQueue on the test cluster: its images on the nodes, Traefik before it, and the chart as a release of Helm."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from tests.cluster import images
from tests.cluster.cache import locked
from tests.cluster.cluster import Cluster
from tests.cluster.loading import CTR
from tests.cluster.shell import run, say
from tests.cluster.versions import CHECKOUT, HERE

CHART = CHECKOUT / "charts" / "goqueue"
NODE_PORT = 30080
"""Where traefik.yaml answers on each node."""

_IMAGE = images.IMAGES["goqueue"]
Values = Mapping[str, Any]

VALUES: Values = {
    "ingress": {"enabled": True, "className": "traefik", "hosts": [{"host": ""}]},
}
"""What the chart needs to know of this cluster; all else stays as it is for anybody."""


@dataclass
class Installation:
    """A release by name, in a namespace of its own."""

    cluster: Cluster
    namespace: str = "goqueue"
    release: str = "goqueue"
    values: Values = field(default_factory=lambda: VALUES)
    helm: str = "helm4"

    @property
    def url(self) -> str:
        """The REST API by way of the ingress."""
        return f"http://{self.cluster.node_address(self.cluster.node_names()[1])}:{NODE_PORT}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs: the key that the chart made."""
        labels = f"app.kubernetes.io/component=api-key,app.kubernetes.io/instance={self.release}"
        key = '{{range .items}}{{index .data "GOQUEUE_API_BOOTSTRAP_KEY" | base64decode}}{{end}}'
        return {"Authorization": f"Bearer {self.kubectl('get', 'secret', '-l', labels, f'-ogo-template={key}')}"}

    def prepare(self) -> None:
        """Put the images on the nodes and Traefik into the cluster; quick where they are there.

        GoQueue's image gets a tag by its content: what runs is replaced when the code has changed.
        """
        with ThreadPoolExecutor(1) as one:
            # Traefik starts while the large image is on its way.
            for name in ("traefik", "postgres", "valkey", "goqueue"):
                self.cluster.load(images.archive_of(name))
                if name == "traefik":
                    applied = one.submit(self._apply_traefik)
            applied.result()
        listed = self.cluster.node_exec(self.cluster.node_names()[1], [*CTR, "images", "ls", f"name=={_IMAGE}"])
        (digest,) = re.findall("sha256:([0-9a-f]{12})", listed)
        self.values = {**self.values, "image": {"tag": self.tag(digest)}}

    def tag(self, name: str) -> str:
        """Give GoQueue's image another tag, on all nodes that run pods."""
        repository = _IMAGE.rpartition(":")[0]
        for node in self.cluster.node_names()[1:]:
            self.cluster.node_exec(node, [*CTR, "images", "tag", "--force", _IMAGE, f"{repository}:{name}"])
        return name

    def make_namespace(self) -> None:
        """Make the release's namespace, where something has to be in it before the release."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(namespace).encode())

    def _apply_traefik(self) -> None:
        self.cluster.kubectl("apply", "-f", str(HERE / "traefik.yaml"))
        self.cluster.kubectl(
            *("-n", "traefik", "rollout", "status", "deployment/traefik", "--timeout=120s"), timeout=130
        )

    def install(self, *options: str, timeout: int = 180) -> None:
        """Install or upgrade the release, until all that it starts is ready."""
        wait = ("--wait", "--wait-for-jobs", "--timeout", f"{timeout}s")
        say(f"helm upgrade --install {self.release} --namespace {self.namespace}")
        self.run_helm(
            *("upgrade", "--install", self.release, str(CHART), "--create-namespace", "--values", "-", *wait),
            *options,
            stdin=json.dumps(self.values).encode(),
            timeout=timeout + 30,
        )

    def uninstall(self, *options: str) -> None:
        """Remove the release, as a person would; what the chart keeps, stays."""
        self.run_helm("uninstall", self.release, "--wait", "--timeout", "180s", *options, timeout=220)

    def run_helm(self, *arguments: str, stdin: bytes | None = None, timeout: float = 60) -> str:
        """Run Helm in the release's namespace; returns its standard output."""
        program = getattr(self.cluster.tools, self.helm)
        place = ("--kubeconfig", self.cluster.kubeconfig, "--namespace", self.namespace)
        return run([program, *arguments, *place], what=f"helm {arguments[0]}", timeout=timeout, stdin=stdin)

    def kubectl(self, *arguments: str, stdin: bytes | None = None, timeout: float = 60) -> str:
        """Run kubectl in the release's namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, stdin=stdin, timeout=timeout)


def in_use(cluster: Cluster) -> AbstractContextManager[None]:
    """Keep others from installing and removing what this process installs; a second caller waits."""
    return locked(f"use-{cluster.name}")


def releases(cluster: Cluster) -> Iterator[Installation]:
    """All releases of the chart that the cluster has."""
    listed = Installation(cluster).run_helm("list", "--all-namespaces", "--output", "json")
    for one in json.loads(listed):
        if one["chart"].startswith("goqueue-"):
            yield Installation(cluster, one["namespace"], one["name"])


def remove_everything(cluster: Cluster) -> None:
    """Remove all releases with their namespaces, and what they keep in the cluster or could not take with them."""
    for found in list(releases(cluster)):
        say(f"removing release {found.release} and namespace {found.namespace}")
        found.uninstall()
        cluster.kubectl("delete", "namespace", found.namespace, "--timeout=120s", timeout=130)
    kinds = "crd,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
    cluster.kubectl("delete", kinds, "-l", "app.kubernetes.io/part-of=goqueue", "--timeout=60s", timeout=70)
