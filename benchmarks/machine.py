"""What the figures were taken on: the machine and every version, so that a table can be read a year later."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.servers import POSTGRES_SETTINGS, Servers
from benchmarks.systems import System


def _first(pattern: str, path: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return "unknown"
    return found[1].strip() if found else "unknown"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "absent"


def describe(servers: Servers) -> dict[str, str]:
    """The machine, the servers and the tools."""
    with servers.connect("postgres") as connection:
        row = connection.execute("SELECT current_setting('server_version')").fetchone()
    with servers.redis() as redis:
        server = redis.info("server")
    load = os.getloadavg()
    processor = _first(r"^model name\s*: (.*)$", "/proc/cpuinfo")
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load when the run began": f"{load[0]:.1f} (1 min), {load[1]:.1f} (5 min)",
        "Python": platform.python_version(),
        "Go": _output("go", "env", "GOVERSION"),
        "wrk": _output("sh", "-c", "wrk -v 2>&1 | head -n 1 | cut -d' ' -f2"),
        "PostgreSQL": str(row[0]) if row else "unknown",
        "PostgreSQL settings": ", ".join(f"{name}={value}" for name, value in POSTGRES_SETTINGS.items()),
        "Valkey": str(server.get("valkey_version") or server.get("redis_version")),
        "Valkey settings": "no snapshots, no append-only file",
    }


def versions(systems: list[System]) -> dict[str, str]:
    """The version of each system."""
    try:
        own = version("goqueue")
    except PackageNotFoundError:
        own = "unknown"
    commit = _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    return {system.name: system.version or f"{own} ({commit})" for system in systems}
