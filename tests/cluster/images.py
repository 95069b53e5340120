"""The images that the chart runs, as archives for `Cluster.load`.

Where a Docker engine with a registry answers they are built from the Dockerfile, or pulled. Elsewhere they are
assembled: Debian packages below, then wheels, then GoQueue itself in a layer that takes seconds.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

from tests.cluster import archive, debian, dockerfile, programs, services
from tests.cluster.archive import Added
from tests.cluster.cache import cached, hash_of
from tests.cluster.docker import Docker
from tests.cluster.shell import run
from tests.cluster.versions import CHECKOUT

APPLICATION = "/opt/goqueue/app"
DEPENDENCIES = "/opt/goqueue/dependencies"
IMAGES = {
    "goqueue": "docker.io/goqueue/goqueue:test",
    "postgres": "docker.io/library/postgres:18",
    "valkey": "docker.io/valkey/valkey:9",
    "traefik": "docker.io/library/traefik:v3.6",
    "prometheus": "docker.io/prom/prometheus:v2.42.0",
    "jaeger": "docker.io/jaegertracing/all-in-one:1.76.0",
}
"""Name → reference under which the nodes know the image."""

USER = ("goqueue", 10001)
PYTHON_PACKAGES = ("python3-minimal", "libpython3.11-stdlib")
RUNTIME_LOCK = CHECKOUT / "requirements" / "runtime.lock"
_BUILD_LOCK = CHECKOUT / "requirements" / "dev.lock"


def archive_of(name: str) -> Path:
    """The archive of one of `IMAGES`, made now if it is not in the cache.

    Raises:
        ClusterError: it could not be made.
    """
    if os.environ.get("GOQUEUE_CLUSTER_ENGINE") != "podman" and Docker.usable():
        return _by_docker(name)
    makers: dict[str, Callable[[], Path]] = {
        "goqueue": application,
        "postgres": lambda: services.postgres(IMAGES["postgres"], python_base()),
        "valkey": lambda: services.valkey(IMAGES["valkey"], python_base()),
        "traefik": lambda: services.traefik(IMAGES["traefik"]),
        "prometheus": lambda: services.prometheus(IMAGES["prometheus"], python_base()),
        "jaeger": lambda: services.jaeger(IMAGES["jaeger"]),
    }
    return makers[name]()


def application(reference: str = IMAGES["goqueue"], *, lock: Path = RUNTIME_LOCK) -> Path:
    """The image of GoQueue as the checkout stands: the Dockerfile's user, variables, entry point and application files.

    What differs from the Dockerfile's image: Debian's own Python 3.11 instead of the official image's 3.13.

    Args:
        reference: Name of the image; a test that rolls out an upgrade gives the second one another tag.
        lock: What to install GoQueue's dependencies from.
    """
    base, dependencies = python_base(), dependency_layer(lock)
    with tempfile.TemporaryDirectory() as name:
        wheel = build_wheel(CHECKOUT, Path(name))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        config = dockerfile.image_config()
        key = hash_of(digest, dependencies.parent.name, base.parent.name, reference, repr(config), Path(__file__))

        def make(partial: Path) -> None:
            tree = partial / "tree"
            unpack_wheel(wheel, tree)
            layer = partial / "layer.tar"
            archive.write_layer(layer, [*archive.tree(tree, APPLICATION), *_compiled(tree, APPLICATION)])
            archive.write_archive(partial / "goqueue.tar", [reference], [base, dependencies, layer], config)
            shutil.rmtree(tree)
            layer.unlink()

        return cached("image-goqueue", key, make) / "goqueue.tar"


def python_base() -> Path:
    """Layer: a Debian with its Python 3.11."""
    # Full Perl comes along for a package that merges /usr at the installation, and is a third of the size.
    perl = ["usr/share/perl", "usr/share/perl5", "usr/lib/*/perl", "usr/lib/*/libperl.so*"]
    return debian.file_system("python-base", PYTHON_PACKAGES, variant="essential", without=perl)


def dependency_layer(lock: Path) -> Path:
    """Layer: GoQueue's user, and the wheels of a lock, those for the Python in the image."""

    def make(partial: Path) -> None:
        tree = partial / "tree"
        # uv, not pip: pip evaluates the lock's markers for the interpreter that runs it.
        programs.install_wheels(tree, lock, "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_36")
        shutil.rmtree(tree / "bin", ignore_errors=True)  # start this machine's Python
        for unneeded in tree.glob("*/tests"):
            shutil.rmtree(unneeded)
        files = [*archive.tree(tree, DEPENDENCIES), *_compiled(tree, DEPENDENCIES), *debian.user(python_base(), *USER)]
        archive.write_layer(partial / "layer.tar", files)
        shutil.rmtree(tree)

    return cached("dependencies", hash_of(lock, python_base().parent.name), make) / "layer.tar"


def build_wheel(source: Path, target: Path) -> Path:
    """Build GoQueue's wheel from a folder with its source, exactly as the Dockerfile does."""
    build = [programs.uv_command(), "build", "--quiet", "--wheel", "--require-hashes"]
    build += ["--build-constraints", str(_BUILD_LOCK), "--out-dir", str(target), str(source)]
    run(build, what="build GoQueue's wheel", timeout=120, env=programs.index_settings())
    (wheel,) = target.glob("goqueue-*.whl")
    return wheel


def unpack_wheel(wheel: Path, target: Path) -> None:
    """Install a pure wheel into a folder: its files, and a script for each of its commands."""
    with zipfile.ZipFile(wheel) as content:
        content.extractall(target)  # noqa: S202 - this checkout built it a moment ago
        (entry_points,) = (name for name in content.namelist() if name.endswith(".dist-info/entry_points.txt"))
        commands = ConfigParser()
        commands.read_string(content.read(entry_points).decode())
    (target / "bin").mkdir()
    for name, call in commands["console_scripts"].items():
        module, _, function = call.partition(":")
        script = target / "bin" / name
        script.write_text(
            f"#!/usr/bin/python3\nimport sys\n\nfrom {module} import {function}\n\n"
            f'if __name__ == "__main__":\n    sys.exit({function}())\n'
        )
        script.chmod(0o755)


def application_files(image: Path) -> dict[str, str]:
    """Path below `APPLICATION` → SHA-256 of the files of GoQueue in an image's archive.

    Left out is what an installer adds in its own way: compiled files, the command's script, its notes in dist-info.
    """
    found: dict[str, str] = {}
    prefix = APPLICATION.strip("/") + "/"
    with archive.opened(image) as (_, layers):
        for layer in layers:
            with tarfile.open(fileobj=layer) as content:
                for member in content:
                    name = member.name.removeprefix("./")
                    path = name.removeprefix(prefix)
                    if member.isfile() and name.startswith(prefix) and not _installers(path):
                        file = content.extractfile(member)
                        assert file is not None
                        found[path] = hashlib.sha256(file.read()).hexdigest()
    return found


def dockerfile_files() -> dict[str, str]:
    """The same for the image that the Dockerfile would make: the wheel that its own build context gives."""
    with tempfile.TemporaryDirectory() as name:
        context = Path(name) / "context"
        dockerfile.build_context(context)
        with zipfile.ZipFile(build_wheel(context, Path(name))) as wheel:
            return {
                path: hashlib.sha256(wheel.read(path)).hexdigest()
                for path in wheel.namelist()
                if not path.endswith("/") and not _installers(path)
            }


def _installers(path: str) -> bool:
    notes = ("/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json", "/uv_cache.json")
    return path.endswith((".pyc", *notes)) or path.startswith("bin/")


def _compiled(tree: Path, target: str) -> list[Added]:
    """Compile a tree with the image's own Python: with a read-only root nothing could be compiled later.

    Each file's compiled form is trusted without a look at its source, so it depends on no time stamp.
    """
    root = cached("python-root", hash_of(python_base().parent.name), _unpack_base)
    with tempfile.TemporaryDirectory(dir=root / "tmp") as name:
        inside = Path(name).relative_to(root)
        shutil.copytree(tree, Path(name) / "tree", symlinks=True)
        command = ["chroot", str(root), "python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        paths = ["-s", f"/{inside}/tree", "-p", target, f"/{inside}/tree"]
        # A template in a package need not be valid Python: that is no reason to stop.
        run(["sh", "-c", '"$@" || true', "sh", *command, *paths], what="compile", timeout=300)
        found = archive.tree(Path(name) / "tree", target)
        return [
            Added(added.path, added.content.read_bytes(), added.mode)
            for added in found
            if added.path.endswith(".pyc") and isinstance(added.content, Path)
        ]


def _unpack_base(partial: Path) -> None:
    run(["tar", "-C", partial, "-xpf", python_base(), "--exclude=./dev/*"], what="unpack the base", timeout=120)
    (partial / "tmp").mkdir(exist_ok=True)


def _by_docker(name: str) -> Path:
    """Build or pull an image with the machine's Docker, and save it."""
    reference = IMAGES[name]
    folder = Path(tempfile.gettempdir()) / f"goqueue-images-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if name == "goqueue":
        run(["docker", "build", "--quiet", "--tag", reference, CHECKOUT], what="build the image", timeout=900)
    else:
        run(["docker", "pull", "--quiet", reference], what=f"pull {reference}", timeout=600)
    target = folder / f"{name}.tar"
    run(["docker", "save", "--output", target, reference], what=f"save {reference}", timeout=300)
    return target
