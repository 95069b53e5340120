"""The receiver of a test installation: what its e-mails and webhooks reach instead of the outside world.

A pod accepts SMTP with STARTTLS and HTTPS. The cluster's DNS leads the names of `manifests/samples` to it.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.cluster.cluster import Cluster

NAMES: Final = ("hooks.example.org", "reports.example.org")
"""Host names of the samples' webhooks."""

TRUST: Final = "receiver-trust"
"""ConfigMap that makes workers trust the receiver's certificate."""

_CERTIFICATES: Final = "/etc/goqueue/certificates/ca.crt"
VALUES: Final[Mapping[str, Any]] = {
    "certificates": {"secretName": "receiver-ca"},
    "settings": {
        "operator": {"workerEnvFrom": [f"configmap/{TRUST}"]},
        "email": {"host": "receiver", "port": 25, "tlsCa": _CERTIFICATES},
        "webhook": {"allowNetworks": ["10.0.0.0/8"]},
        "payment": {"gateway": "sandbox"},
    },
}
"""What the chart needs to know of the receiver."""

_FOLDER = Path(__file__).parent
_ADDRESS = "10.96.0.77"  # as in pod.yaml
_HOSTS = f"    hosts {{\n       {_ADDRESS} {' '.join(NAMES)}\n       fallthrough\n    }}\n"
Object = dict[str, Any]


def install(cluster: Cluster, namespace: str) -> None:
    """Start the receiver in a namespace that exists, and point the names to it. GoQueue's image must be loaded."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        _make_certificate(folder)
        objects = [
            config_map("receiver", [_FOLDER / "server.py"]),
            config_map(TRUST, SSL_CERT_FILE=_CERTIFICATES),
            _secret("receiver", {"tls.crt": folder / "tls.crt", "tls.key": folder / "tls.key"}),
            _secret("receiver-ca", {"ca.crt": folder / "ca.crt"}),
        ]
        whole = {"apiVersion": "v1", "kind": "List", "items": objects}
        cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(whole).encode())
    cluster.kubectl("-n", namespace, "apply", "-f", str(_FOLDER / "pod.yaml"))
    _point_names(cluster, _HOSTS)


def remove_names(cluster: Cluster) -> None:
    """Take the names out of the cluster's DNS again. The receiver itself goes with its namespace."""
    _point_names(cluster, "")


def received(cluster: Cluster, namespace: str) -> dict[str, list[Object]]:
    """All that has come so far, by `mail` and `http`."""
    path = f"/api/v1/namespaces/{namespace}/services/receiver:http/proxy/"
    found: dict[str, list[Object]] = json.loads(cluster.kubectl("get", "--raw", path))
    return found


def config_map(name: str, files: Iterable[Path] = (), **data: str) -> Object:
    """A ConfigMap with the contents of files."""
    content = {file.name: file.read_text() for file in files} | data
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": content}


def _secret(name: str, files: dict[str, Path]) -> Object:
    data = {key: path.read_text() for key, path in files.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def _make_certificate(folder: Path) -> None:
    """Make an authority (ca.crt), and a certificate by it (tls.crt, tls.key) for all names of the receiver."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)

    names = ",".join(f"DNS:{name}" for name in ("receiver", *NAMES))
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=receiver")
    openssl("req", *key, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=receiver")
    (folder / "names").write_text(f"subjectAltName={names}\n")
    sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "names")
    openssl("x509", "-req", "-in", "tls.csr", "-out", "tls.crt", *sign)


def _point_names(cluster: Cluster, hosts: str) -> None:
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
