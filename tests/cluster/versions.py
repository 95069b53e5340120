"""What the test cluster is made of. Every version is pinned here or in a go.mod beside its go.sum."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]

KIND = "v0.33.0"
KUBERNETES = "v1.34.4"  # as in go/kubernetes/go.mod
HELM3 = "v3.19.5"
HELM4 = "v4.2.4"

STOCK_NODE_IMAGE = "docker.io/kindest/node:v1.34.0"
"""Used where a Docker engine and an image registry answer."""

DEBIAN = "bookworm"
"""Base of the assembled images: its systemd 252 is the last that also runs on cgroup v1 and hybrid hosts."""

# The names under which kubeadm v1.34.4 looks for its images.
KUBERNETES_IMAGES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
ETCD_IMAGE = "registry.k8s.io/etcd:3.6.5-0"
COREDNS_IMAGE = "registry.k8s.io/coredns/coredns:v1.12.1"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10.1"
AGENT_IMAGE = "localhost/goqueue-node-agent:1"
