"""What stands in the cluster before GoQueue does: namespaces, the receiver with its certificate, Prometheus, Jaeger,
names, job types."""

import json
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cluster import images
from tests.cluster.cluster import Cluster
from tests.e2e.system import NAMES, NAMESPACE, OTHER, PODS, Object, config_map

_RECEIVER_ADDRESS = "10.96.0.77"  # as in receiver.yaml
_HOSTS = f"    hosts {{\n       {_RECEIVER_ADDRESS} {' '.join(NAMES)}\n       fallthrough\n    }}\n"


def namespace(name: str) -> Object:
    """A namespace whose pods must fit the strictest Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def secret(name: str, files: dict[str, Path]) -> Object:
    """A Secret with the contents of files."""
    data = {key: path.read_text() for key, path in files.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def certificate(folder: Path) -> None:
    """An authority (ca.crt), and a certificate by it (tls.crt, tls.key) for all names of the receiver."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)

    names = ",".join(f"DNS:{name}" for name in ("receiver", *NAMES))
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=e2e")
    openssl("req", *key, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=receiver")
    (folder / "names").write_text(f"subjectAltName={names}\n")
    sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "tls.csr", "-out", "tls.crt", *sign)


def point_names(cluster: Cluster, hosts: str) -> None:
    """Tell the cluster's DNS some names of its own, instead of those it knows from here."""
    system = ("-n", "kube-system")
    corefile = cluster.kubectl(*system, "get", "configmap", "coredns", "-o", "jsonpath={.data.Corefile}")
    without = re.sub(r"    hosts \{.*?\n    \}\n", "", corefile, flags=re.DOTALL)
    wanted = without.replace("    errors\n", f"    errors\n{hosts}", 1)
    if wanted == corefile:
        return
    body = json.dumps(config_map("coredns", Corefile=wanted)).encode()
    cluster.kubectl(*system, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=body)
    cluster.kubectl(*system, "rollout", "restart", "deployment/coredns")


def prepare(cluster: Cluster) -> None:
    """Make all of it."""

    def apply(*objects: Object, into: str) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": objects}
        cluster.kubectl("-n", into, "apply", "-f", "-", stdin=json.dumps(whole).encode())

    apply(namespace(NAMESPACE), namespace(OTHER), into="default")
    with TemporaryDirectory() as name:
        folder = Path(name)
        certificate(folder)
        apply(
            config_map("e2e", [PODS / "e2e_jobs.py", PODS / "receiver.py"]),
            config_map("e2e-trust", SSL_CERT_FILE="/etc/goqueue/certificates/ca.crt"),
            secret("receiver", {"tls.crt": folder / "tls.crt", "tls.key": folder / "tls.key"}),
            secret("receiver-ca", {"ca.crt": folder / "ca.crt"}),
            into=NAMESPACE,
        )
    for name in ("prometheus", "jaeger"):
        cluster.load(images.archive_of(name))
    for pods in ("receiver", "prometheus", "jaeger"):
        cluster.kubectl("-n", NAMESPACE, "apply", "-f", str(PODS / f"{pods}.yaml"))
    point_names(cluster, _HOSTS)


def undo(cluster: Cluster) -> None:
    """Remove all of it."""
    cluster.kubectl("delete", "namespace", NAMESPACE, OTHER, "--ignore-not-found", "--timeout=60s", timeout=70)
    point_names(cluster, "")
