"""A real Valkey Cluster: masters on the loopback address that share the slots between them, and replicas."""

import contextlib
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from goqueue_cli.embedded import EmbeddedValkey, free_port

SLOTS = 16_384


class ValkeyCluster:
    """Its nodes, and what an administrator does with them. Each node has the same password."""

    def __init__(self, nodes: list[EmbeddedValkey], bus_ports: list[int], masters: int) -> None:
        self.nodes = nodes
        self._masters = masters
        self._bus_ports = bus_ports
        self._clients = [redis.Redis.from_url(node.url, socket_timeout=10) for node in nodes]

    @property
    def url(self) -> str:
        """The address of one node."""
        return self.nodes[0].url

    def ask(self, node: int, *command: Any) -> Any:
        """What a node answers to a command."""
        return self._clients[node].execute_command(*command)  # type: ignore[no-untyped-call]

    def form(self) -> None:
        """Let the nodes meet, and give each master an equal part of the slots."""
        borders = [SLOTS * number // self._masters for number in range(self._masters + 1)]
        for number in range(self._masters):
            self.ask(number, "CLUSTER", "ADDSLOTSRANGE", borders[number], borders[number + 1] - 1)
            self.ask(number, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(self.nodes[1:], 1):
            self.ask(0, "CLUSTER", "MEET", node.host, node.port, self._bus_ports[number])
        for number in range(len(self.nodes)):
            self._wait(lambda number=number: b"cluster_state:ok" in self.ask(number, "CLUSTER", "INFO"))
            self._wait(lambda number=number: len(self.ask(number, "CLUSTER", "SLOTS")) == self._masters)

    def is_master(self, node: int) -> bool:
        """Whether a node is no replica."""
        return bool(self.ask(node, "INFO", "replication").get("role") == "master")

    def owner(self, key: str) -> int:
        """The node that serves a key."""
        slot = self.ask(0, "CLUSTER", "KEYSLOT", key)
        for first, last, master, *_ in self.ask(0, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(number for number, node in enumerate(self.nodes) if node.port == master[1])
        raise LookupError(key)

    @contextlib.contextmanager
    def moving(self, key: str, target: int) -> Iterator[None]:
        """Move the slot of a key to another node. Within the block it is on its way: what has not moved yet is asked
        for where it was, what is missing there at the target (ASK). Afterwards the former node answers MOVED."""
        source = self.owner(key)
        slot = self.ask(0, "CLUSTER", "KEYSLOT", key)
        names = {number: self.ask(number, "CLUSTER", "MYID").decode() for number in (source, target)}
        self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        node = self.nodes[target]
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.ask(source, "MIGRATE", node.host, node.port, "", 0, 5000, "AUTH", node.password, "KEYS", *keys)
        yield
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.ask(source, "MIGRATE", node.host, node.port, "", 0, 5000, "AUTH", node.password, "KEYS", *keys)
        for number in (target, source, *range(len(self.nodes))):
            self.ask(number, "CLUSTER", "SETSLOT", slot, "NODE", names[target])

    def replicate(self, replica: int, master: int) -> None:
        """Make a node without slots the replica of a master, and wait until it has all of it."""
        name = self.ask(master, "CLUSTER", "MYID").decode()
        self._wait(lambda: name in self.ask(replica, "CLUSTER", "NODES").decode())
        self.ask(replica, "CLUSTER", "REPLICATE", name)
        self._wait(lambda: self.ask(replica, "INFO", "replication").get("master_link_status") == "up")

    @staticmethod
    def _wait(holds: Any, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError("the cluster is not ready")
            time.sleep(0.05)  # a cluster tells nobody when its nodes have talked

    def close(self) -> None:
        """Hang up; the nodes are whose started them."""
        for client in self._clients:
            client.close()


@contextlib.contextmanager
def run_cluster(masters: int = 3, spare: int = 0) -> Iterator[ValkeyCluster]:
    """A cluster until the block ends; `spare` nodes follow the masters and have no slots."""
    password = secrets.token_urlsafe(24)
    with contextlib.ExitStack() as stack:
        nodes, bus_ports = [], []
        for _ in range(masters + spare):
            folder = Path(tempfile.mkdtemp(prefix="goqueue-cluster-"))
            (folder / "password").write_text(password)
            bus_ports.append(free_port())
            settings = {
                "cluster-enabled": "yes",
                "cluster-node-timeout": "2000",
                "cluster-port": str(bus_ports[-1]),
                "masterauth": password,
            }
            nodes.append(stack.enter_context(EmbeddedValkey(folder, ephemeral=True, settings=settings)))
        cluster = ValkeyCluster(nodes, bus_ports, masters)
        stack.callback(cluster.close)
        cluster.form()
        yield cluster
