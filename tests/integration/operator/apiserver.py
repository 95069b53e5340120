"""A real Kubernetes API without nodes: etcd, kube-apiserver and the controllers that tests of the operator need.

Its programs are those of the test cluster, built once per machine. It starts in seconds; pods stay Pending.
`python -m tests.integration.operator.apiserver` runs one with our kinds for benchmarks, until it is interrupted.
"""

import contextlib
import json
import secrets
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from goqueue_cli.embedded import free_port
from goqueue_cli.keeper import LOOPBACK
from tests.cluster import programs
from tests.servers.process import Process

CONTROLLERS = ",".join(
    (
        *("namespace-controller", "garbage-collector-controller", "deployment-controller", "replicaset-controller"),
        "clusterrole-aggregation-controller",
    )
)
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}
"""Of service accounts the log has each request; of the tests' administrator none."""

CHECKOUT = Path(__file__).resolve().parents[3]
DEFINITIONS = CHECKOUT / "charts" / "goqueue" / "files" / "crds"


@dataclass(frozen=True)
class ApiServer:
    """A running API server."""

    folder: Path
    port: int
    token: str
    kubectl: Path
    etcd: str
    """Address of its etcd."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of an administrator."""
        return self.folder / "kubeconfig"

    def run(self, *arguments: str, stdin: Any = None) -> "subprocess.CompletedProcess[str]":
        """Run kubectl; `stdin` is sent as JSON."""
        command = [str(self.kubectl), "--kubeconfig", str(self.kubeconfig), *arguments]
        text = None if stdin is None else json.dumps(stdin)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)

    def __call__(self, *arguments: str, stdin: Any = None) -> str:
        """Run kubectl; its output.

        Raises:
            AssertionError: it failed.
        """
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refusal(self, manifest: Any) -> str:
        """What the person reads whose manifest is refused."""
        done = self.run("apply", "-f", "-", stdin=manifest)
        assert done.returncode != 0, f"accepted: {manifest}"
        return done.stderr

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`."""
        return json.loads(self("get", *arguments, "-o", "json"))

    def audited(self, user: str) -> list[dict[str, Any]]:
        """The requests of a user so far, as the audit log has them."""
        lines = (self.folder / "audit.log").read_text().splitlines()
        return [entry for line in lines if (entry := json.loads(line))["user"]["username"] == user]

    def install_definitions(self) -> None:
        """Make the kinds known, and wait until they are served and the policy is in force."""
        self("apply", "--server-side", "-f", str(DEFINITIONS))
        self("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
        bad = {
            "apiVersion": "goqueue.io/v1alpha1",
            "kind": "GoQueueJob",
            "metadata": {"name": "probe", "namespace": "default"},
            "spec": {"queue": "email", "payload": {}},
        }
        deadline = time.monotonic() + 30
        while self.run("create", "--dry-run=server", "-f", "-", stdin=bad).returncode == 0:
            assert time.monotonic() < deadline, "the policy does not come into force"
            time.sleep(0.1)


def _write_kubeconfig(folder: Path, url: str, token: str) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": "certs/apiserver.crt"}}],
        "users": [{"name": "admin", "user": {"token": token}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))


def _wait_ready(url: str, token: str, server: Process) -> None:
    context = ssl._create_unverified_context()  # noqa: S323 - it has made its certificate a moment ago
    request = urllib.request.Request(f"{url}/readyz", headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - http to a server of the test
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.returncode is None:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(request, timeout=2, context=context) as answer,  # noqa: S310 - https, see above
        ):
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"no API server:\n{server.log.read_text(errors='replace')[-4000:]}")


@contextlib.contextmanager
def api_server() -> Iterator[ApiServer]:
    """Start all of it; gone after the block."""
    kubernetes, etcd, kubectl = programs.kubernetes(), programs.etcd(), programs.kubectl()
    with tempfile.TemporaryDirectory(prefix="goqueue-kubernetes-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        token = secrets.token_hex(16)
        (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        (folder / "audit.yaml").write_text(json.dumps(AUDIT))
        key = folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        etcd_port, peer_port, port = free_port(), free_port(), free_port()
        store, peer = f"http://{LOOPBACK}:{etcd_port}", f"http://{LOOPBACK}:{peer_port}"
        etcd_command = [
            *(str(etcd), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", store, "--advertise-client-urls", store, "--listen-peer-urls", peer),
            *("--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
            f"--quota-backend-bytes={8 * 2**30}",  # the memory benchmark makes thousands of large objects
        ]
        stack.enter_context(Process(etcd_command, log=folder / "etcd.log"))
        server = stack.enter_context(
            Process(
                [
                    str(kubernetes / "kube-apiserver"),
                    f"--etcd-servers={store}",
                    f"--bind-address={LOOPBACK}",
                    f"--secure-port={port}",
                    f"--cert-dir={folder / 'certs'}",
                    f"--token-auth-file={folder / 'tokens.csv'}",
                    "--authorization-mode=RBAC",
                    "--service-cluster-ip-range=10.0.0.0/24",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={key}",
                    f"--service-account-signing-key-file={key}",
                    "--disable-admission-plugins=ServiceAccount",
                    f"--audit-policy-file={folder / 'audit.yaml'}",
                    f"--audit-log-path={folder / 'audit.log'}",
                ],
                log=folder / "apiserver.log",
            )
        )
        url = f"https://{LOOPBACK}:{port}"
        _wait_ready(url, token, server)
        _write_kubeconfig(folder, url, token)
        manager = [
            str(kubernetes / "kube-controller-manager"),
            f"--kubeconfig={folder / 'kubeconfig'}",
            f"--controllers={CONTROLLERS}",
            "--leader-elect=false",
            f"--secure-port={free_port()}",
            f"--cert-dir={folder / 'manager'}",
        ]
        stack.enter_context(Process(manager, log=folder / "manager.log"))
        yield ApiServer(folder, port, token, kubectl, store)


if __name__ == "__main__":
    with api_server() as running, contextlib.suppress(KeyboardInterrupt):
        running.install_definitions()
        print(f"export KUBECONFIG={running.kubeconfig} ETCD={running.etcd}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
