"""The cluster that tests and people use: one control plane and two workers."""

import calendar
import contextlib
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.cluster import loading
from tests.cluster.cache import cache_dir, hash_of, locked
from tests.cluster.docker import Docker
from tests.cluster.podman import Podman
from tests.cluster.programs import Tools
from tests.cluster.shell import Argv, ClusterError, run, say, wait_for

NAME = "goqueue"
WORKERS = 2

Engine = Docker | Podman
_ENGINES: dict[str, type[Docker] | type[Podman]] = {"docker": Docker, "podman": Podman}


def choose_engine() -> Engine:
    """Stock kind where a Docker engine and a registry answer, else the assembled node on podman.

    `GOQUEUE_CLUSTER_ENGINE=docker|podman` decides without asking.
    """
    wanted = os.environ.get("GOQUEUE_CLUSTER_ENGINE") or ("docker" if Docker.usable() else "podman")
    if wanted not in _ENGINES:
        raise ClusterError(f"GOQUEUE_CLUSTER_ENGINE is {wanted!r}, not docker or podman")
    return _ENGINES[wanted]()


@dataclass
class Cluster:
    """A kind cluster by name. Making the object starts nothing; `up` does."""

    name: str = NAME
    workers: int = WORKERS
    _engine: Engine | None = field(default=None, repr=False)
    tools: Tools = field(default_factory=Tools, repr=False)
    """Paths of kubectl, helm3, helm4 and kind."""

    # What it is made of

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the cluster's administrator; there while the cluster is up."""
        return self._state / "kubeconfig"

    @property
    def engine(self) -> Engine:
        """What runs the nodes: the one the cluster was made with, else the one this machine allows."""
        if self._engine is None:
            made_with = self._made_with().get("engine")
            self._engine = _ENGINES[made_with]() if made_with else choose_engine()
        return self._engine

    @property
    def _state(self) -> Path:
        return cache_dir() / "state" / self.name

    def _made_with(self) -> dict[str, Any]:
        """Engine, hash of the configuration and the nodes' addresses; empty while there is no cluster."""
        file = self._state / "made-with.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def _remember(self, **facts: object) -> None:
        self._state.mkdir(parents=True, exist_ok=True)
        partial = self._state / "made-with.new"
        partial.write_text(json.dumps(facts))
        partial.rename(self._state / "made-with.json")

    # Up and down

    def up(self, *, reuse: bool = True) -> None:
        """Bring the cluster up, until all nodes are Ready and DNS answers.

        Args:
            reuse: Keep a cluster that runs and is made as this checkout would make it; False makes a new one.

        Raises:
            ClusterError: something did not come about in its time; says what. `down` cleans up.
        """
        with locked(f"state-{self.name}"):
            if self._made_with():
                if reuse and self._as_wanted():
                    return
                self._remove()
            engine, config = self.engine, self._config()
            engine.prepare()
            self._remember(engine=engine.name)  # from here on there is something to remove
            say("creating the cluster")
            self._kind(
                *("create", "cluster", "--name", self.name, "--config", "-"),
                *("--kubeconfig", str(self.kubeconfig), "--wait", "120s"),
                what="create the kind cluster",
                timeout=400,
                stdin=config.encode(),
            )
            self.kubeconfig.chmod(0o600)
            addresses = {node: engine.node_address(node) for node in self.node_names()}
            if engine.sealed:
                self._address_control_plane(addresses)
                for node in addresses:
                    self._seal(node, addresses)
            self._wait_ready()
            self._remember(engine=engine.name, config=hash_of(config), addresses=addresses)

    def down(self) -> None:
        """Remove the cluster and all it changed on the machine. What was built stays in the cache."""
        with locked(f"state-{self.name}"):
            if self._made_with() or Podman.left_something():
                self._remove()

    def _remove(self) -> None:
        if self._made_with():
            # At once: else each node in turn is given its time to shut down in order.
            for node in self.node_names(running=True):
                with contextlib.suppress(ClusterError):  # it died with the machine, and podman did not notice
                    self.stop_node(node)
            delete = ("delete", "cluster", "--name", self.name, "--kubeconfig", str(self.kubeconfig))
            self._kind(*delete, what="delete the kind cluster", timeout=180)
        self.engine.clean_up()
        for file in ("kubeconfig", "made-with.json"):
            (self._state / file).unlink(missing_ok=True)
        self._engine = None

    def is_up(self) -> bool:
        """Whether the API server answers and every node is Ready."""
        if not self.kubeconfig.exists():
            return False
        try:
            nodes = json.loads(self.kubectl("get", "nodes", "-o", "json", timeout=10))["items"]
        except ClusterError:
            return False
        return len(nodes) == 1 + self.workers and all(_is_ready(node) for node in nodes)

    def _as_wanted(self) -> bool:
        return self._made_with().get("config") == hash_of(self._config()) and self.is_up()

    def _config(self) -> str:
        """Kind's configuration. Faster than Kubernetes' defaults: a lost node is noticed, and its pods are replaced."""
        nodes = "\n".join(
            f"- {{role: {role}, image: {json.dumps(self.engine.image)}}}"
            for role in ["control-plane", *["worker"] * self.workers]
        )
        return (Path(__file__).with_name("node") / "kind.yaml").read_text() + nodes + "\n"

    def _wait_ready(self) -> None:
        wait_for("all nodes to be Ready", self.is_up, timeout=120)
        self.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s", timeout=130)

    def _kind(self, *arguments: str, what: str, timeout: float, stdin: bytes | None = None) -> str:
        command = [str(self.tools.kind), *arguments]
        return run(command, what=what, timeout=timeout, env=self.engine.env, stdin=stdin)

    def _address_control_plane(self, addresses: dict[str, str]) -> None:
        """Make the kubeconfig name the control plane's own address.

        A published port does not answer on a network that nothing leaves; the node's own does, on every engine.
        """
        node = self.node_names()[0]
        server = f"server: https://{addresses[node]}:6443\n    tls-server-name: {node}\n"
        self.kubeconfig.write_text(re.sub(r"server: https://.*\n", server, self.kubeconfig.read_text()))

    def _seal(self, node: str, addresses: dict[str, str]) -> None:
        """Keep a node's questions for names on the machine.

        The network's own name server knows the nodes, but asks the machine's for everything else. So the nodes know
        each other by file, and have no name server at all.
        """
        hosts = "".join(f"{address} {other}\n" for other, address in addresses.items() if other != node)
        script = "cat >> /etc/hosts; echo '# none: see /etc/hosts' > /etc/resolv.conf"
        self.node_exec(node, ["sh", "-ec", script], stdin=hosts.encode())

    # Images

    def load(self, archive: Path, *, nodes: Sequence[str] | None = None) -> None:
        """Put the images of an archive (OCI or docker layout) on nodes; only what they have not got.

        Pods need `imagePullPolicy: Never` or `IfNotPresent`, and a tag that is not `latest`.

        Args:
            nodes: By default the workers that run: on the control plane no pod is placed that does not ask for it.
        """
        chosen = (
            list(nodes)
            if nodes is not None
            else [node for node in self.node_names(running=True) if node != self.node_names()[0]]
        )
        if not loading.load(archive, chosen, self.node_exec):
            command = ["load", "image-archive", str(archive), "--name", self.name, "--nodes", ",".join(chosen)]
            self._kind(*command, what=f"load {archive.name}", timeout=300)

    # Nodes

    def node_names(self, *, running: bool = False) -> list[str]:
        """The nodes, control plane first; with `running`, those that are not stopped."""
        names = [f"{self.name}-control-plane", f"{self.name}-worker"]
        names += [f"{self.name}-worker{number}" for number in range(2, self.workers + 1)]
        names = names[: 1 + self.workers]
        if not running:
            return names
        told = self._container("ps", "--format", "{{.Names}}", what="list the running nodes").split()
        return [name for name in names if name in told]

    def node_exec(
        self, node: str, argv: Sequence[str], *, stdin: bytes | IO[bytes] | None = None, timeout: float = 60
    ) -> str:
        """Run a command on a node, as root; returns its standard output."""
        return self._container("exec", "-i", node, *argv, what=f"run {argv[0]} on {node}", stdin=stdin, timeout=timeout)

    def stop_node(self, node: str) -> None:
        """Let a node die at once, with everything on it, as if its power went. Kubernetes is not told."""
        self._container("kill", node, what=f"kill {node}")

    def start_node(self, node: str, *, timeout: float = 120) -> None:
        """Start a dead node again and wait until it is Ready. It keeps its disk and its address."""
        addresses: dict[str, str] = self._made_with()["addresses"]
        began = time.time()
        self.engine.start_node(node, addresses[node])
        if self.engine.sealed:
            self._seal(node, addresses)
        wait_for(f"{node} to be Ready", lambda: self._ready_since(node, began), timeout=timeout)

    def _ready_since(self, node: str, began: float) -> bool:
        """Ready by a word of the node itself: what the API says may still be from before it died."""
        try:
            told = json.loads(self.kubectl("get", "node", node, "-o", "json", timeout=10))
            lease = json.loads(self.kubectl("-n", "kube-node-lease", "get", "lease", node, "-o", "json", timeout=10))
        except ClusterError:
            return False
        renewed = time.strptime(lease["spec"]["renewTime"][:19] + "UTC", "%Y-%m-%dT%H:%M:%S%Z")
        return _is_ready(told) and calendar.timegm(renewed) >= began

    def _container(
        self, *arguments: str, what: str, stdin: bytes | IO[bytes] | None = None, timeout: float = 60
    ) -> str:
        return run(self.engine.command(*arguments), what=what, timeout=timeout, env=self.engine.env, stdin=stdin)

    def host_address(self) -> str:
        """The address at which pods reach servers of this machine (those that listen on it, or on 0.0.0.0)."""
        return self.engine.host_address()

    def node_address(self, node: str) -> str:
        """The address at which this machine reaches a node, with its NodePorts."""
        return self.engine.node_address(node)

    # Pods

    def kill_container(
        self, pod: str, *, namespace: str = "default", container: str | None = None, signal: str = "SIGKILL"
    ) -> None:
        """Send a signal to the first process of a pod's container, from the node.

        From inside the pod this is impossible: the kernel shields the first process of a pid namespace.
        """
        told: dict[str, Any] = json.loads(self.kubectl("-n", namespace, "get", "pod", pod, "-o", "json"))
        statuses = told["status"].get("containerStatuses", [])
        found = [status for status in statuses if container in (None, status["name"])]
        if not found or "running" not in found[0]["state"]:
            raise ClusterError(f"pod {namespace}/{pod} has no running container {container or ''}".rstrip())
        ident = found[0]["containerID"].removeprefix("containerd://")
        kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", signal, ident]
        self.node_exec(told["spec"]["nodeName"], kill)

    def kubectl(self, *arguments: str, stdin: bytes | None = None, timeout: float = 60) -> str:
        """Run kubectl with this cluster's kubeconfig; returns its standard output."""
        command: Argv = [self.tools.kubectl, "--kubeconfig", self.kubeconfig, *arguments]
        return run(command, what=f"run kubectl {arguments[0]}", timeout=timeout, stdin=stdin)


def _is_ready(node: dict[str, Any]) -> bool:
    return any(part["type"] == "Ready" and part["status"] == "True" for part in node["status"]["conditions"])
