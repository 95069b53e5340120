"""Putting images on nodes: only what a node has not got yet.

`kind load` sends every layer to every node each time. After a change of code all but the last small layer are there
already; containerd takes an archive without them, as it looks for a layer among its own content first.
"""

import json
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

CTR = ("ctr", "--namespace", "k8s.io")


class NodeExec(Protocol):
    """`Cluster.node_exec`, which also reads its input from a file."""

    def __call__(
        self, node: str, argv: Sequence[str], *, stdin: bytes | IO[bytes] | None = None, timeout: float = 60
    ) -> str: ...


@dataclass(frozen=True)
class _Archive:
    path: Path
    images: dict[str, str]  # reference → digest of its manifest
    layers: frozenset[str]  # names in the archive of everything but indexes, manifests and configurations


def load(archive: Path, nodes: Sequence[str], node_exec: NodeExec) -> bool:
    """Put an archive's images on the nodes, all at once.

    Returns:
        False if the archive is not one this module can read (no OCI layout in it): then nothing was done.
    """
    read = _read(archive)
    if read is None:
        return False
    with ThreadPoolExecutor(len(nodes)) as pool:
        present = list(pool.map(lambda node: _present(node, node_exec), nodes))
        wanting = [(node, has) for node, has in zip(nodes, present, strict=True) if not _complete(read, has)]
        if not wanting:
            return True
        common = frozenset.intersection(*(has for _, has in wanting)) & read.layers
        with tempfile.TemporaryDirectory() as folder:
            source = _without(read, common, Path(folder) / "partial.tar") if common else archive
            send: Callable[[str], str] = lambda node: _import(source, node, node_exec)  # noqa: E731
            list(pool.map(send, [node for node, _ in wanting]))
    return True


def _import(source: Path, node: str, node_exec: NodeExec) -> str:
    command = [*CTR, "images", "import", "--all-platforms", "--digests", "--snapshotter=overlayfs", "-"]
    with open(source, "rb") as content:
        return node_exec(node, command, stdin=content, timeout=300)


def _present(node: str, node_exec: NodeExec) -> frozenset[str]:
    """`blobs/…` of the content a node has, and `reference@digest` of its images."""
    content = node_exec(node, [*CTR, "content", "ls", "--quiet"]).split()
    images = (line.split() for line in node_exec(node, [*CTR, "images", "ls"]).splitlines()[1:])
    return frozenset(_blob(digest) for digest in content) | frozenset(f"{line[0]}@{line[2]}" for line in images)


def _complete(archive: _Archive, has: frozenset[str]) -> bool:
    return all(f"{reference}@{digest}" in has for reference, digest in archive.images.items())


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _read(path: Path) -> _Archive | None:
    images: dict[str, str] = {}
    layers: set[str] = set()
    with tarfile.open(path) as archive:

        def content(name: str) -> Any:
            file = archive.extractfile(name)
            assert file is not None
            return json.load(file)

        if "index.json" not in archive.getnames():
            return None
        for described in content("index.json")["manifests"]:
            reference = described.get("annotations", {}).get("io.containerd.image.name")
            manifest = content(_blob(described["digest"]))
            if reference is None or "layers" not in manifest:
                return None
            images[reference] = described["digest"]
            layers |= {_blob(layer["digest"]) for layer in manifest["layers"]}
    return _Archive(path, images, frozenset(layers))


def _without(archive: _Archive, names: frozenset[str], target: Path) -> Path:
    """A copy of the archive without some of its blobs."""
    with tarfile.open(archive.path) as source, tarfile.open(target, "w") as partial:
        for member in source:
            if member.name not in names:
                partial.addfile(member, source.extractfile(member) if member.isfile() else None)
    return target
