"""Fetch and build the peers' drivers: Go programs by their go.mod, environments by pinned lists."""

import subprocess
import sys
import venv

from benchmarks.children import DriverFailed
from benchmarks.systems import HERE, System

LONGEST = 900.0
"""Seconds for one build, downloads included."""


def _run(command: list[str], **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise DriverFailed(f"`{' '.join(command)}` failed:\n{done.stderr[-2000:]}")


def install(system: System) -> None:
    """Make the system's driver ready to run.

    Raises:
        DriverFailed: it cannot be built here; the message says why.
    """
    if not system.peer:
        return
    system.home.parent.mkdir(parents=True, exist_ok=True)
    if system.language == "Go":
        # Go's own cache makes this cheap where nothing changed, so a changed driver is never run stale.
        _run(["go", "build", "-o", str(system.home), "."], cwd=HERE / "peers" / system.name)
        return
    wanted = HERE / "peers" / "requirements" / f"{system.driver or system.name}.txt"
    marker = system.home / "installed.txt"
    if marker.exists() and marker.read_text() == wanted.read_text():
        return
    print(f"installing {system.name} {system.version} …", file=sys.stderr)
    venv.create(system.home, with_pip=True, clear=True)
    _run([str(system.home / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(wanted)])
    marker.write_text(wanted.read_text())
