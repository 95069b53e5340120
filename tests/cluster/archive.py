"""Image archives (OCI layout in a tar) written from layers, for `kind load` and `ctr images import`."""

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EPOCH = "1980-01-01T00:00:00Z"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Config:
    """How a container of the image runs: what a Dockerfile says with ENV, USER, WORKDIR and so on."""

    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    workdir: str = "/"
    ports: Sequence[str] = ()
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""

    def as_json(self) -> dict[str, Any]:
        """As the image specification has it."""
        env = {"PATH": PATH, **self.env}
        told: dict[str, Any] = {"Env": [f"{name}={value}" for name, value in env.items()], "WorkingDir": self.workdir}
        optional = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.command),
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.ports},
            "Labels": self.labels,
            "StopSignal": self.stop_signal,
        }
        return told | {name: value for name, value in optional.items() if value}


def write_archive(target: Path, names: Sequence[str], layers: Sequence[Path], config: Config) -> None:
    """Write an image archive.

    Args:
        names: Full references, e.g. `docker.io/library/postgres:18`.
        layers: Tar archives, lowest first. They go in uncompressed: reading is faster than unpacking.
    """
    blobs: dict[str, bytes | Path] = {}
    described = []
    for layer in layers:
        with open(layer, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        blobs[digest] = layer
        described.append({"mediaType": LAYER, "digest": f"sha256:{digest}", "size": layer.stat().st_size})

    def blob(content: object, media_type: str) -> dict[str, Any]:
        text = json.dumps(content, sort_keys=True).encode()
        digest = hashlib.sha256(text).hexdigest()
        blobs[digest] = text
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(text)}

    platform = {"architecture": "amd64", "os": "linux"}
    image = {
        **platform,
        "created": EPOCH,  # the same input gives the same image
        "config": config.as_json(),
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(image, "application/vnd.oci.image.config.v1+json"),
        "layers": described,
    }
    described_manifest = blob(manifest, MANIFEST)
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {**described_manifest, "platform": platform, "annotations": {"io.containerd.image.name": name}}
            for name in names
        ],
    }
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", json.dumps(index).encode())
        for digest, content in blobs.items():
            _add(archive, f"blobs/sha256/{digest}", content)


def _add(archive: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    member = tarfile.TarInfo(name)
    if isinstance(content, bytes):
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
        return
    member.size = content.stat().st_size
    with open(content, "rb") as file:
        archive.addfile(member, file)


@dataclass(frozen=True)
class Added:
    """One file of a layer: where it stands in the image, and from where it comes (a file, or bytes)."""

    path: str
    content: Path | bytes
    mode: int = 0o644
    owner: int = 0


def write_layer(target: Path, files: Sequence[Added], folders: Sequence[Added] = ()) -> None:
    """Write a layer: the same bytes for the same files, owned by root unless said otherwise, with no time stamps.

    Args:
        files: Their parent folders are made.
        folders: Empty folders, or ones whose mode or owner matters (their `content` is not used).
    """
    own = {folder.path.strip("/"): folder for folder in folders}
    parents = {str(parent) for file in files for parent in PurePosixPath(file.path.strip("/")).parents}
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as layer:
        for path in sorted((parents | set(own)) - {"."}):
            member = tarfile.TarInfo(path)
            member.type = tarfile.DIRTYPE
            member.mode, member.uid = (own[path].mode, own[path].owner) if path in own else (0o755, 0)
            member.gid = member.uid
            layer.addfile(member)
        for file in sorted(files, key=lambda file: file.path):
            member = tarfile.TarInfo(file.path.strip("/"))
            member.mode, member.uid, member.gid = file.mode, file.owner, file.owner
            if isinstance(file.content, Path) and file.content.is_symlink():
                member.type, member.linkname = tarfile.SYMTYPE, str(file.content.readlink())
                layer.addfile(member)
            elif isinstance(file.content, Path):
                member.size = file.content.stat().st_size
                with open(file.content, "rb") as content:
                    layer.addfile(member, content)
            else:
                member.size = len(file.content)
                layer.addfile(member, io.BytesIO(file.content))


def tree(source: Path, target: str) -> list[Added]:
    """All files below a folder, to stand below `target` in the image; those that can be executed stay so."""
    found = []
    for path in sorted(source.rglob("*")):
        if path.is_symlink() or path.is_file():
            mode = 0o755 if not path.is_symlink() and path.stat().st_mode & 0o100 else 0o644
            found.append(Added(f"{target}/{path.relative_to(source)}", path, mode))
    return found


@contextlib.contextmanager
def opened(archive: Path) -> Iterator[tuple[dict[str, Any], list[IO[bytes]]]]:
    """The configuration of an archive's image and its layers, lowest first, open for reading."""
    with tarfile.open(archive) as outer:

        def read(name: str) -> IO[bytes]:
            file = outer.extractfile(name)
            assert file is not None, f"{archive} has no {name}"
            return file

        def blob(described: dict[str, Any]) -> IO[bytes]:
            return read("blobs/" + described["digest"].replace(":", "/"))

        manifest = json.load(blob(json.load(read("index.json"))["manifests"][0]))
        yield json.load(blob(manifest["config"])), [blob(layer) for layer in manifest["layers"]]
