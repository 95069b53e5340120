"""The node image of the assembled cluster: Debian packages, kind's own node files, Kubernetes built from Go modules."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import archive, debian, programs, versions
from tests.cluster.cache import cached, hash_of
from tests.cluster.shell import Argv, run, wait_for

NODE = versions.HERE / "node"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "bash", "ca-certificates", "curl", "jq", "procps", "hostname", "util-linux"),
    *("mount", "kmod", "e2fsprogs", "iproute2", "ethtool", "conntrack", "iptables", "nftables", "socat", "pigz"),
    *("libseccomp2", "containerd", "runc", "containernetworking-plugins"),
)
MANIFESTS = ("default-cni.yaml", "default-storage.yaml")
PROXY_PACKAGES = ("iptables", "nftables", "conntrack", "kmod")
PREINSTALLED = (  # what is in the node's containerd from the start
    *(f"registry.k8s.io/{name}:{versions.KUBERNETES}" for name in versions.KUBERNETES_IMAGES),
    *(versions.ETCD_IMAGE, versions.COREDNS_IMAGE, versions.PAUSE_IMAGE, versions.AGENT_IMAGE),
)


def key() -> str:
    """Hash of all that goes into the image; known without building anything."""
    used = dict.fromkeys((versions.RELEASE.module, programs.OWN_MODULE, "etcd", "coredns"))
    modules = [programs.GO / name for name in used]
    files = [NODE / name for name in ("prepare.sh", *MANIFESTS)]
    return hash_of(modules, files, Path(__file__), versions.KIND, *PREINSTALLED, versions.DEBIAN)


def node_image() -> Path:
    """The packed file system of a node (tar, zstd), built if this machine has none."""

    def make(partial: Path) -> None:
        with tempfile.TemporaryDirectory(dir=partial) as name:
            root = Path(name) / "root"
            root.mkdir(mode=0o755)
            _assemble(root, Path(name))
            pack = f"tar -C {root} --numeric-owner --xattrs -cf - . | zstd -q -T0 -3 -o {partial / 'node.tar.zst'}"
            run(["bash", "-o", "pipefail", "-c", pack], what="pack the node image", timeout=300)

    return cached(programs.named("node-image"), key(), make) / "node.tar.zst"


def _assemble(root: Path, work: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        # Two long chains side by side: compiling (all cores, by itself) and unpacking packages (disk and one core).
        base = pool.submit(debian.file_system, "node-base", PACKAGES)
        proxy_base = pool.submit(debian.file_system, "proxy-base", PROXY_PACKAGES, variant="extract")
        kubernetes, own = programs.kubernetes(), programs.node_programs()
        images = _images(work, kubernetes, own, proxy_base.result())
        run(["tar", "-C", root, "-xpf", base.result(), "--exclude=./dev/*"], what="unpack the base", timeout=300)
    _install_kind_files(root)
    for name in ("kubeadm", "kubectl", "kubelet"):
        shutil.copy2(kubernetes / name, root / "usr/bin" / name)
    (root / "opt/cni").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / "opt/cni/bin", ignore_errors=True)
    (root / "opt/cni/bin").symlink_to("/usr/lib/cni")
    manifests = root / "kind/manifests"
    manifests.mkdir(parents=True)
    for name in MANIFESTS:
        shutil.copy2(NODE / name, manifests / name)
    (root / "kind/version").write_text(versions.KUBERNETES)
    prepare = (NODE / "prepare.sh").read_bytes()
    run(["chroot", root, "/bin/sh", "-s"], stdin=prepare, what="prepare the node", timeout=120)
    with _proc(root):
        _runtime_spec(root)
        _preinstall(root, images)


def _install_kind_files(root: Path) -> None:
    """What kind's own Dockerfile copies into its base image, from the module that also built `kind`."""
    files = programs.module_folder(f"sigs.k8s.io/kind@{versions.KIND}") / "images/base/files"
    for source in sorted(files.rglob("*")):
        relative = source.relative_to(files)
        if source.is_dir() or "fuse-overlayfs" in source.name or relative.parts[0] == "LICENSES":
            continue
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755 if "bin" in relative.parts else 0o644)
    for name in ("containerd", "ctr"):  # where kind's units look for them; Debian has them in /usr/bin
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{name}")
    (root / "etc/kubernetes/manifests").mkdir(parents=True, exist_ok=True)
    config = root / "etc/containerd/config.toml"
    text = config.read_text()
    for before, after in {
        'sandbox_image = "registry.k8s.io/pause:3.10"': f'sandbox_image = "{versions.PAUSE_IMAGE}"',
        # Root may lack CAP_SYS_RESOURCE: runc then cannot lower a score, and no pod would start.
        "restrict_oom_score_adj = false": "restrict_oom_score_adj = true",
        # No program for it is installed.
        text[text.index("[proxy_plugins]") : text.index('[plugins."io.containerd')]: "",
    }.items():
        assert before in text, f"kind {versions.KIND} changed its containerd configuration: {before!r} is gone"
        text = text.replace(before, after)
    config.write_text(text)


def _images(work: Path, kubernetes: Path, own: Path, proxy_base: Path) -> list[Path]:
    """Archives of the images that kubeadm and the runtime ask for, each of one program."""
    made: list[Path] = []

    def image(reference: str, program: Path, *below: Path, entrypoint: bool = False) -> None:
        path = f"/usr/local/bin/{program.name}"
        layer, target = work / f"layer-{len(made)}.tar", work / f"image-{len(made)}.tar"
        archive.write_layer(layer, [archive.Added(path, program, 0o755)])
        config = archive.Config(entrypoint=(path,) if entrypoint else ())
        archive.write_archive(target, [reference], [*below, layer], config)
        layer.unlink()
        made.append(target)

    for name in versions.KUBERNETES_IMAGES:
        below = [_proxy_layer(work, proxy_base)] if name == "kube-proxy" else []
        image(f"registry.k8s.io/{name}:{versions.KUBERNETES}", kubernetes / name, *below)
    etcd = work / "etcd"
    shutil.copy2(programs.etcd(), etcd)
    image(versions.ETCD_IMAGE, etcd)
    image(versions.COREDNS_IMAGE, programs.coredns(), entrypoint=True)
    image(versions.PAUSE_IMAGE, own / "pause", entrypoint=True)
    image(versions.AGENT_IMAGE, own / "agent", entrypoint=True)
    return made


def _proxy_layer(work: Path, base: Path) -> Path:
    """Iptables and nft with their libraries. No package's script has run: the links they make are made here."""
    root, layer = work / "proxy", work / "proxy.tar"
    root.mkdir()
    run(["tar", "-C", root, "-xpf", base], what="unpack kube-proxy's base", timeout=120)
    for unneeded in ("dev", "var", "usr/share", "usr/lib/x86_64-linux-gnu/perl-base"):
        shutil.rmtree(root / unneeded, ignore_errors=True)
    for family in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            (root / "usr/sbin" / (family + suffix)).symlink_to("xtables-nft-multi")
    pack: Argv = ["tar", "-C", root, "--numeric-owner", "--mtime=@0", "--sort=name", "-cf", layer, "."]
    run(pack, what="pack kube-proxy's base", timeout=120)
    shutil.rmtree(root)
    return layer


@contextlib.contextmanager
def _proc(root: Path) -> Iterator[None]:
    run(["mount", "-t", "proc", "proc", root / "proc"], what="mount /proc of the node", timeout=20)
    try:
        yield
    finally:
        run(["umount", root / "proc"], what="unmount /proc of the node", timeout=20)


def _runtime_spec(root: Path) -> None:
    """The specification every container starts from, with kind's hook that hides the host's product name."""
    spec = json.loads(run(["chroot", root, "ctr", "oci", "spec"], what="print the runtime's specification", timeout=30))
    hooks = spec.setdefault("hooks", {}).setdefault("createContainer", [])
    hooks.append({"path": "/kind/bin/mount-product-files.sh"})
    spec["process"].pop("rlimits", None)
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(spec))


_PRELOAD = """
version = 2
oom_score = 0
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
]
[grpc]
address = "/run/preload.sock"
"""


def _preinstall(root: Path, images: list[Path]) -> None:
    """Put images into the node's containerd, packed; each node unpacks those that it runs."""
    (root / "preload.toml").write_text(_PRELOAD)
    (root / "run").mkdir(exist_ok=True)
    ctr: Argv = ["chroot", root, "ctr", "--address", "/run/preload.sock", "--namespace", "k8s.io", "images"]
    with tempfile.TemporaryFile() as log:
        daemon = subprocess.Popen(
            ["chroot", root, "/usr/bin/containerd", "-c", "/preload.toml", "--state", "/run/preload"],
            stdout=log,
            stderr=log,
            env={**os.environ, "NOTIFY_SOCKET": ""},
        )
        try:
            wait_for("containerd's socket", (root / "run/preload.sock").exists, timeout=30, every=0.1)
            for image in images:
                with open(image, "rb") as content:
                    load: Argv = [*ctr, "import", "--all-platforms", "--no-unpack", "--digests", "-"]
                    run(load, what=f"preinstall {image.name}", timeout=120, stdin=content)
            present = run([*ctr, "ls", "-q"], what="list the preinstalled images", timeout=30).split()
            assert set(PREINSTALLED) <= set(present), f"missing: {set(PREINSTALLED) - set(present)}"
        finally:
            daemon.terminate()
            daemon.wait(30)
    (root / "preload.toml").unlink()
    shutil.rmtree(root / "run")
    (root / "run").mkdir()
