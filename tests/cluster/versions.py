"""What the test cluster is made of. Every version is pinned here or in a go.mod beside its go.sum."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]

KIND = "v0.33.0"
HELM3 = "v3.19.5"
HELM3_KUBERNETES = "1.34"
"""Kubernetes of the client-go in Helm 3's go.mod: what `helm template` renders for unless it is told."""

HELM4 = "v4.2.4"

VARIABLE: Final = "GOQUEUE_KUBERNETES"
"""Environment variable that selects the Kubernetes release, e.g. `1.37`."""


@dataclass(frozen=True)
class Release:
    """A release of Kubernetes that the test cluster can run, with the names under which its kubeadm asks for images.

    `module` is the folder below `go/` that pins and builds it. The tags of the images come from
    `cmd/kubeadm/app/constants/constants.go` of that release.
    """

    version: str
    module: str
    etcd: str
    coredns: str
    pause: str


RELEASES: Final = {
    "1.34": Release("v1.34.4", "kubernetes", etcd="3.6.5-0", coredns="v1.12.1", pause="3.10.1"),
    "1.37": Release("v1.37.2", "kubernetes-1.37", etcd="3.7.0-0", coredns="v1.14.6", pause="3.10.2"),
}
"""The first is the default, and the one whose libraries the node agent uses."""

DEFAULT: Final = next(iter(RELEASES))


def selected() -> str:
    """The minor release that `GOQUEUE_KUBERNETES` names, else the default.

    Raises:
        ValueError: the variable names a release that is not pinned here.
    """
    minor = os.environ.get(VARIABLE) or DEFAULT
    if minor not in RELEASES:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(RELEASES)}, not {minor!r}")
    return minor


RELEASE = RELEASES[selected()]
KUBERNETES = RELEASE.version

STOCK_NODE_IMAGE = f"docker.io/kindest/node:v{selected()}.0"
"""Used where a Docker engine and an image registry answer."""

DEBIAN = "bookworm"
"""Base of the assembled images: its systemd 252 is the last that also runs on cgroup v1 and hybrid hosts."""

KUBERNETES_IMAGES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
ETCD_IMAGE = f"registry.k8s.io/etcd:{RELEASE.etcd}"
COREDNS_IMAGE = f"registry.k8s.io/coredns/coredns:{RELEASE.coredns}"
PAUSE_IMAGE = f"registry.k8s.io/pause:{RELEASE.pause}"
AGENT_IMAGE = "localhost/goqueue-node-agent:1"
