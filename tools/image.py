"""Build GoQueue's container image.

    tools/image.py [--engine docker|podman|buildah|none] REFERENCE

With a container engine the Dockerfile is built into the engine's own store. Without one (`none`) the image is assembled
from Debian packages and the locked wheels, and written to .build/image/ as an OCI archive: as root, on Debian
or Ubuntu, for x86-64.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / ".build" / "image"

# Engine → a command that fails where the engine does not work; a client alone, without its server, is no engine.
ENGINES = {"docker": ["docker", "info"], "podman": ["podman", "info"], "buildah": ["buildah", "info"]}

_NEXT = {
    "docker": "docker push {reference}\n  kind load docker-image {reference}",
    "podman": "podman push {reference}\n  podman save --output g.tar {reference}; kind load image-archive g.tar",
    "buildah": "buildah push {reference}",
    "none": "kind load image-archive {archive}\n  skopeo copy oci-archive:{archive} docker://{reference}",
}


def working_engine() -> str:
    """The first engine that works; `none` where there is none."""
    for engine, probe in ENGINES.items():
        if shutil.which(engine) and subprocess.run(probe, capture_output=True, timeout=30).returncode == 0:
            return engine
    return "none"


def build(engine: str, reference: str) -> int:
    """Build the Dockerfile; the engine prints as it goes. Returns its exit code."""
    return subprocess.run([engine, "build", "--tag", reference, str(ROOT)]).returncode


def assemble(reference: str) -> Path:
    """Assemble the image without an engine.

    Raises:
        ClusterError: a part of it could not be made; the message says which.
    """
    sys.path.insert(0, str(ROOT))
    from tests.cluster import host, images

    host.install_packages()
    archive = images.application(reference)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    target = OUTPUT / "goqueue.tar"
    target.unlink(missing_ok=True)
    shutil.copyfile(archive, target)
    return target


def main() -> int:
    """Build the image and say what to do with it."""
    parser = argparse.ArgumentParser(description="Build GoQueue's container image.")
    parser.add_argument("--engine", choices=[*ENGINES, "none"])
    parser.add_argument("reference", metavar="REFERENCE", help="name and tag, as a registry knows it")
    arguments = parser.parse_args()
    engine = arguments.engine or working_engine()
    archive = OUTPUT / "goqueue.tar"
    if engine != "none":
        if code := build(engine, arguments.reference):
            print(f"{engine} could not build the image; ENGINE=none assembles it without {engine}", file=sys.stderr)
            return code
    elif os.geteuid() != 0:
        print("no container engine works here, and assembling the image without one needs root", file=sys.stderr)
        return 1
    else:
        archive = assemble(arguments.reference)
    print(f"built {arguments.reference}; to make it known to a cluster:")
    print("  " + _NEXT[engine].format(reference=arguments.reference, archive=os.path.relpath(archive)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
