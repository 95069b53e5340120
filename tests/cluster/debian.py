"""File systems made of Debian packages alone, by mmdebstrap: no image, no registry, no daemon."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import versions
from tests.cluster.archive import Added
from tests.cluster.cache import cached, hash_of
from tests.cluster.shell import run

_UNWANTED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/i18n/*", "/usr/share/info/*")
_SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")


def file_system(name: str, packages: Sequence[str], *, variant: str = "minbase", without: Sequence[str] = ()) -> Path:
    """A tar archive of a Debian with some packages; needs root.

    Args:
        name: Of the entry in the cache.
        variant: mmdebstrap's: `minbase` is a system with apt, `essential` one without, `extract` only unpacks.
        without: Paths removed at the end, which only the installation of packages needed.
    """
    key = hash_of(versions.DEBIAN, variant, *packages, *_UNWANTED, *without)

    def make(partial: Path) -> None:
        command = ["mmdebstrap", "--quiet", "--mode=root", f"--variant={variant}", f"--include={','.join(packages)}"]
        command += [f"--dpkgopt=path-exclude={path}" for path in _UNWANTED]
        command += [f'--customize-hook=rm -rf "$1"/{path}' for path in without]
        command += ['--aptopt=APT::Install-Recommends "false"', versions.DEBIAN, str(partial / "root.tar")]
        # The machine's own sources if it is a Debian of that release: they name the mirror that it can reach.
        command += [source for source in _SOURCES if _names_release(Path(source))][:1]
        run(["nice", "-n", "5", *command], what=f"assemble {name} from Debian packages", timeout=900)

    return cached(name, key, make) / "root.tar"


def user(base: Path, name: str, number: int) -> list[Added]:
    """The files that give a file system one more user and group, for a layer above it."""
    lines = {
        "etc/passwd": f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n",
        "etc/group": f"{name}:x:{number}:\n",
    }
    found = []
    with tarfile.open(base) as content:
        for path, line in lines.items():
            file = content.extractfile(f"./{path}")
            assert file is not None
            found.append(Added(path, file.read() + line.encode()))
    return found


def _names_release(sources: Path) -> bool:
    return sources.is_file() and versions.DEBIAN in sources.read_text()
