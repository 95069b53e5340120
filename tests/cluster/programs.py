"""Programs, built from Go modules."""

import os
import platform
import shutil
import sys
from functools import cached_property
from pathlib import Path

from tests.cluster import versions
from tests.cluster.cache import cached, hash_of
from tests.cluster.shell import ClusterError, run

GO = versions.HERE / "go"
OWN_MODULE = "kubernetes"
"""Folder with the sources of the node agent and of `pause`. They are the same for all releases."""

PROGRAMS = (*versions.KUBERNETES_IMAGES, "kubelet", "kubeadm", "kubectl")


class Tools:
    """The commands a test calls, each of a pinned version and built when it is asked for first."""

    @cached_property
    def kind(self) -> Path:
        return go_install("kind", f"sigs.k8s.io/kind@{versions.KIND}")

    @cached_property
    def kubectl(self) -> Path:
        return kubectl()

    @cached_property
    def helm3(self) -> Path:
        return helm3()

    @cached_property
    def helm4(self) -> Path:
        return helm4()

    def build(self) -> None:
        """Build all of them now."""
        _ = self.kind, self.kubectl, self.helm3, self.helm4


def kubectl() -> Path:
    """The kubectl of the release."""
    package = "k8s.io/kubernetes/cmd/kubectl"
    return go_build(named("kubectl"), versions.RELEASE.module, [package], ldflags=_kubernetes_version()) / "kubectl"


def helm3() -> Path:
    """Helm 3, with the variables that its Makefile sets.

    Without them `helm template` renders for Kubernetes 1.20, and `helm version` leaves out the patch.
    """
    major, minor = versions.HELM3_KUBERNETES.split(".")
    variables = {"internal/version.version": versions.HELM3}
    for package in ("pkg/chartutil", "pkg/lint/rules"):
        variables |= {f"{package}.k8sVersionMajor": major, f"{package}.k8sVersionMinor": minor}
    return _helm("helm3", "helm.sh/helm/v3", versions.HELM3, variables)


def helm4() -> Path:
    """Helm 4, with the variable that its Makefile sets."""
    return _helm("helm4", "helm.sh/helm/v4", versions.HELM4, {"internal/version.version": versions.HELM4})


def _helm(name: str, module: str, version: str, variables: dict[str, str]) -> Path:
    ldflags = " ".join(f"-X {module}/{variable}={value}" for variable, value in variables.items())
    return go_install(name, f"{module}/cmd/helm@{version}", ldflags=ldflags)


def kubernetes() -> Path:
    """Folder with the seven programs of Kubernetes (7 minutes on two cores; 1.5 with a warm build cache of Go)."""
    packages = [f"k8s.io/kubernetes/cmd/{name}" for name in PROGRAMS]
    return go_build(named("kubernetes"), versions.RELEASE.module, packages, ldflags=_kubernetes_version())


def node_programs() -> Path:
    """Folder with `agent` and `pause`, this project's own."""
    return go_build("node-programs", OWN_MODULE, ["./agent", "./pause"], sources=["agent", "pause"])


def etcd() -> Path:
    """The etcd program."""
    return go_build("etcd", "etcd", ["go.etcd.io/etcd/server/v3"]) / "server"


def coredns() -> Path:
    """The CoreDNS program."""
    return go_build("coredns", "coredns", ["."], sources=["main.go"]) / "coredns"


def named(name: str) -> str:
    """Name of a cache entry that depends on the release: one for each release, so that neither drops the other's."""
    minor = versions.selected()
    return name if minor == versions.DEFAULT else f"{name}-{minor}"


def go_build(
    name: str, module: str, packages: list[str], *, ldflags: str = "", sources: list[str] | None = None
) -> Path:
    """Folder with the programs of some packages, built in one of the modules under `go/` as its go.sum has them."""
    folder = GO / module
    own = [folder / source for source in sources or []]
    key = hash_of(folder / "go.mod", folder / "go.sum", *own, ldflags, platform.machine())

    def make(partial: Path) -> None:
        options = ["-mod=readonly", "-ldflags", f"-s -w {ldflags}", "-o", f"{partial}/"]
        _go(["build", *options, *packages], cwd=folder, what=name)

    return cached(name, key, make)


def go_install(name: str, package: str, *, ldflags: str = "") -> Path:
    """A program that its module builds by itself, e.g. `sigs.k8s.io/kind@v0.33.0`."""

    def make(partial: Path) -> None:
        _go(["install", "-ldflags", f"-s -w {ldflags}".rstrip(), package], cwd=partial, what=name, GOBIN=str(partial))
        (built,) = partial.iterdir()
        built.rename(partial / name)

    settings = [ldflags] if ldflags else []
    return cached(name, hash_of(package, *settings, platform.machine()), make) / name


def module_folder(module: str) -> Path:
    """Where Go unpacked the source of a module, e.g. `sigs.k8s.io/kind@v0.33.0`."""
    import json

    told = run(
        [go_command(), "mod", "download", "-json", module], what=f"download {module}", timeout=300, cwd=Path("/")
    )
    return Path(json.loads(told)["Dir"])


def go_command() -> str:
    """Go: the machine's own, else the one that the checkout's lock installs.

    Raises:
        ClusterError: there is none, and this Python has not the packages to install one.
    """
    for candidate in filter(None, [shutil.which("go"), "/usr/local/go/bin/go"]):
        if os.access(candidate, os.X_OK):
            return candidate
    try:
        from tests.servers import gotools
    except ImportError as error:
        raise ClusterError("Go is missing: install it, or use .venv/bin/python (`make setup` makes it)") from error
    return gotools.go_command()


def _go(arguments: list[str], *, cwd: Path, what: str, **env: str) -> None:
    # Static, so that the program runs in an image that has nothing else; nice, as others use the machine meanwhile.
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false", **env}
    run(["nice", "-n", "5", go_command(), *arguments], what=f"build {what}", timeout=2400, cwd=cwd, env=settings)


def _kubernetes_version() -> str:
    package = "k8s.io/component-base/version"
    major, minor, _ = versions.KUBERNETES.removeprefix("v").split(".")
    settings = {"gitVersion": versions.KUBERNETES, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X {package}.{name}={value}" for name, value in settings.items())


def uv_command() -> str:
    """Uv: the one beside this Python, else the machine's, else one installed into the cache from its lock."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    return found or str(cached("uv", hash_of(_BOOTSTRAP), _install_uv) / "bin" / "uv")


def index_settings() -> dict[str, str]:
    """Whoever pointed pip at a mirror means uv, too."""
    return {"UV_DEFAULT_INDEX": os.environ["PIP_INDEX_URL"]} if os.environ.get("PIP_INDEX_URL") else {}


def install_wheels(target: Path, lock: Path, *options: str) -> None:
    """Unpack the wheels of a lock into a folder, each checked against its hash. Needs no environment."""
    command = [uv_command(), "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    run(
        [*command, "--link-mode", "copy", *options, "--python", sys.executable, "--target", target, "-r", lock],
        what=f"install the wheels of {lock.name}",
        timeout=600,
        env=index_settings(),
    )


_BOOTSTRAP = versions.CHECKOUT / "requirements" / "bootstrap.lock"


def _install_uv(partial: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--target", str(partial)]
    run([*command, "--requirement", _BOOTSTRAP], what="install uv", timeout=300)
