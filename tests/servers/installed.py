"""GoQueue as `pip install goqueue` leaves it: the packages of the environment without those of its extras."""

import os
import subprocess
import sys
from importlib.metadata import Distribution, distribution, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = (".", "api", "worker", "scheduler", "operator", "migrations", "cli")


def closure(project: str, extras: frozenset[str]) -> dict[str, Distribution]:
    """The distributions that an installation of a project brings along, itself not among them."""
    found: dict[str, Distribution] = {}
    waiting = [(project, extras)]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in done:
            continue
        done.add((name, wanted))
        for text in requires(name) or ():
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                key = canonicalize_name(needed.name)
                if key != project:
                    found[key] = distribution(key)
                waiting.append((key, frozenset(needed.extras)))
    return found


def install(folder: Path, *extras: str) -> None:
    """Fill a folder with links to what `pip install goqueue[extras]` would bring."""
    folder.mkdir()
    for found in closure("goqueue", frozenset(extras)).values():
        files = [Path(file) for file in found.files or () if file.parts[0] not in ("..", "__pycache__")]
        whole = {file.parts[0] for file in files if file.name == "__init__.py" and len(file.parts) == 2}
        for file in files:
            # Several distributions share a namespace package: of such a folder only this one's files are linked.
            path = Path(file.parts[0]) if file.parts[0] in whole else file
            link = folder / path
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(str(found.locate_file(path.as_posix()))))
    own = distribution("goqueue")
    metadata = next(file.parts[0] for file in own.files or () if file.parts[0].endswith(".dist-info"))
    (folder / metadata).symlink_to(Path(str(own.locate_file(metadata))))


PROGRAM: Final = "from goqueue_cli.main import main; main(prog_name='goqueue')"


def command(*words: str) -> list[str]:
    """`goqueue …` as a command that finds no packages but those of `environment`."""
    return [sys.executable, "-S", "-c", PROGRAM, *words]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What the command needs to find the packages of such a folder."""
    paths = [str(folder), *(str(ROOT / source) for source in SOURCES)]
    return {"PYTHONPATH": os.pathsep.join(paths), **more}


def run(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `goqueue …` with the packages of such a folder, and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GOQUEUE_", "POSTGRES_"))}
    return subprocess.run(
        command(*words),
        env=inherited | environment(folder, **more),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
