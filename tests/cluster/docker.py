"""Stock kind with the published node image: for machines with a Docker engine and an image registry."""

import json

from tests.cluster import versions
from tests.cluster.shell import run, succeeds


class Docker:
    """The machine's Docker engine. Needs neither root nor any package."""

    name = "docker"
    sealed = False
    image = versions.STOCK_NODE_IMAGE

    def __init__(self) -> None:
        self.env = {"KIND_EXPERIMENTAL_PROVIDER": "docker"}

    @classmethod
    def usable(cls) -> bool:
        """Whether an engine answers and has, or gets, the node image (the pull may take minutes)."""
        if not succeeds(["docker", "info"], timeout=20):
            return False
        present = succeeds(["docker", "image", "inspect", cls.image], timeout=20)
        return present or succeeds(["docker", "pull", "--quiet", cls.image], timeout=600)

    def command(self, *arguments: str) -> list[str]:
        """A docker command line; to be run with `env`."""
        return ["docker", *arguments]

    def prepare(self) -> None:
        """Nothing: kind makes its own network, and the image is there."""

    def host_address(self) -> str:
        """The machine's address in kind's network: pods reach the host there."""
        told = run(self.command("network", "inspect", "kind"), what="inspect the network", timeout=30)
        gateways = [part["Gateway"] for part in json.loads(told)[0]["IPAM"]["Config"] if "Gateway" in part]
        return str(next(gateway for gateway in gateways if ":" not in gateway))

    def node_address(self, node: str) -> str:
        """A node's address in kind's network."""
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        inspect = self.command("inspect", "--format", template, node)
        return run(inspect, what=f"find the address of {node}", timeout=30).strip()

    def start_node(self, node: str, address: str) -> None:
        """Start a stopped node; Docker gives it the address it had if nothing else took it."""
        run(self.command("start", node), what=f"start {node}", timeout=60)

    def clean_up(self) -> None:
        """Nothing: kind's network is shared by all kind clusters of the machine."""
