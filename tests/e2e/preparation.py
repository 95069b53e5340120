"""What the cluster has before GoQueue is installed: namespaces, the receiver, Prometheus, Jaeger, job types."""

import json

from tests.cluster import images, receiver
from tests.cluster.cluster import Cluster
from tests.cluster.receiver import config_map
from tests.e2e.system import NAMESPACE, OTHER, PODS, Object


def namespace(name: str) -> Object:
    """A namespace whose pods must fit the strictest Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def prepare(cluster: Cluster) -> None:
    """Make all of it."""

    def apply(*objects: Object, into: str) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": objects}
        cluster.kubectl("-n", into, "apply", "-f", "-", stdin=json.dumps(whole).encode())

    apply(namespace(NAMESPACE), namespace(OTHER), into="default")
    apply(config_map("e2e", [PODS / "e2e_jobs.py"]), into=NAMESPACE)
    receiver.install(cluster, NAMESPACE)
    for name in ("prometheus", "jaeger"):
        cluster.load(images.archive_of(name))
    for pods in ("prometheus", "jaeger"):
        cluster.kubectl("-n", NAMESPACE, "apply", "-f", str(PODS / f"{pods}.yaml"))


def undo(cluster: Cluster) -> None:
    """Remove all of it."""
    cluster.kubectl("delete", "namespace", NAMESPACE, OTHER, "--ignore-not-found", "--timeout=60s", timeout=70)
    receiver.remove_names(cluster)
