"""Kind on podman with the assembled node image: for machines without Docker or without an image registry."""

import json
import os
import resource
import subprocess
from pathlib import Path

from tests.cluster import host, node_image
from tests.cluster.programs import named
from tests.cluster.shell import ClusterError, run, say, succeeds

STORE = Path("/var/lib/goqueue-kind")
"""Podman's containers, images and networks: apart from any other podman of the machine, and never in the checkout."""

NETWORK = "goqueue-kind"
_SETTINGS = "settings.json"


class Podman:
    """Root's podman with a store and a network of its own."""

    name = "podman"
    sealed = True
    """Nothing leaves the machine: nodes have no way out, and the API server is reached at its node's own address."""

    _repository = f"localhost/{named('goqueue-node')}"

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise ClusterError("neither a Docker engine with a registry nor root: one of the two is needed")
        self._image = f"{self._repository}:{node_image.key()}"
        self.env = {
            "KIND_EXPERIMENTAL_PROVIDER": "podman",
            "KIND_EXPERIMENTAL_PODMAN_NETWORK": NETWORK,
            "CONTAINERS_CONF": str(STORE / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(STORE / "storage.conf"),
        }

    def command(self, *arguments: str) -> list[str]:
        """A podman command line; to be run with `env`."""
        return ["podman", *arguments]

    @property
    def image(self) -> str:
        """Reference of the node image of this checkout."""
        return self._image

    def prepare(self) -> None:
        """Make everything ready for `kind create`: packages, node image, network."""
        host.install_packages()
        self._configure()
        if not succeeds(self.command("image", "exists", self._image), env=self.env):
            self._import_image()
        host.remember_settings(STORE / _SETTINGS)
        # Kind mounts it into each node; docker makes it where it is missing, podman does not.
        Path("/lib/modules").mkdir(parents=True, exist_ok=True)
        if not succeeds(self.command("network", "exists", NETWORK), env=self.env):
            # Made before kind would: kind's own would let the nodes, and with them every pod, out.
            create = self.command("network", "create", "--internal", NETWORK)
            run(create, what="create the network of the nodes", timeout=60, env=self.env)

    def _configure(self) -> None:
        STORE.mkdir(mode=0o711, parents=True, exist_ok=True)
        files = min(_hard_limit(resource.RLIMIT_NOFILE), 1048576)
        processes = min(_hard_limit(resource.RLIMIT_NPROC), 32768)  # podman lowers its own: the hard limit itself fails
        # The limits: podman's defaults may exceed what root may set here. The runtime: crun refuses hybrid cgroups.
        (STORE / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{STORE}/networks"\n'
        )
        (STORE / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{STORE}/root"\nrunroot = "/run/goqueue-kind"\n'
        )

    def _import_image(self) -> None:
        packed = node_image.node_image()
        say("importing the node image")
        load = self.command(
            *("import", "--quiet", "--change", "ENV container=podman", "--change", "STOPSIGNAL SIGRTMIN+3"),
            *("--change", 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]', "-", self._image),
        )
        with subprocess.Popen(["zstd", "-q", "-dc", str(packed)], stdout=subprocess.PIPE) as unpack:
            run(load, what="import the node image", timeout=300, env=self.env, stdin=unpack.stdout)
        for line in run(
            self.command("images", "--format", "{{.Repository}}:{{.Tag}}"),
            what="list the images",
            timeout=30,
            env=self.env,
        ).split():
            if line.startswith(f"{self._repository}:") and line != self._image:
                succeeds(self.command("rmi", line), timeout=60, env=self.env)

    def host_address(self) -> str:
        """The machine's address in the network of the nodes: pods reach the host there."""
        told = run(self.command("network", "inspect", NETWORK), what="inspect the network", timeout=30, env=self.env)
        gateway: str = json.loads(told)[0]["subnets"][0]["gateway"]
        return gateway

    def node_address(self, node: str) -> str:
        """A node's address: the host reaches its API server and NodePorts there."""
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        inspect = self.command("inspect", "--format", template, node)
        return run(inspect, what=f"find the address of {node}", timeout=30, env=self.env).strip()

    def start_node(self, node: str, address: str) -> None:
        """Start a stopped node with the address it had: pods of other nodes know it; podman would give it a new one."""
        for command in (
            self.command("network", "disconnect", NETWORK, node),
            self.command("network", "connect", "--ip", address, NETWORK, node),
            self.command("start", node),
        ):
            run(command, what=f"start {node}", timeout=60, env=self.env)

    @staticmethod
    def left_something() -> bool:
        """Whether something of this machine was changed and not set back yet."""
        return (STORE / _SETTINGS).exists()

    def clean_up(self) -> None:
        """Remove what is left after `kind delete`: the network, rules, kernel settings. The imported image stays."""
        if succeeds(self.command("network", "exists", NETWORK), env=self.env):
            remove = self.command("network", "rm", "--force", NETWORK)
            run(remove, what="remove the network of the nodes", timeout=60, env=self.env)
        host.remove_leftover_rules()
        host.remove_leftover_groups()
        host.restore_settings(STORE / _SETTINGS)


def _hard_limit(which: int) -> int:
    limit = resource.getrlimit(which)[1]
    return limit if limit != resource.RLIM_INFINITY else 2**31
