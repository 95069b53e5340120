"""A real Prometheus of Debian's package: the machine's own, else one unpacked into the cache; nothing is installed."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from goqueue_cli.embedded import free_port
from goqueue_cli.keeper import LOOPBACK
from tests.servers.gotools import cache_dir, making
from tests.servers.process import Process

PACKAGE = "prometheus"


def program(name: str) -> Path:
    """`prometheus` or `promtool`.

    Raises:
        RuntimeError: there is none, and apt cannot fetch the package; the message has what apt said.
    """
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    folder = cache_dir() / PACKAGE
    with making(folder) as partial:
        if partial is not None:
            _unpack(partial)
    return folder / "usr" / "bin" / name


def _unpack(target: Path) -> None:
    download = ["apt-get", "download", "-q", PACKAGE]
    # Where there are no lists of packages yet, as on a fresh machine, only root can fetch them.
    if _run(download, target) and (os.geteuid() or _run(["apt-get", "update", "-q"], target) or _run(download, target)):
        raise RuntimeError(f"cannot fetch Debian's package {PACKAGE}: {_said(download, target)}")
    (package,) = target.glob("*.deb")
    if _run(["dpkg-deb", "-x", str(package), str(target)], target):
        raise RuntimeError(f"cannot unpack {package.name}")
    package.unlink()


def _run(command: Sequence[str], folder: Path) -> int:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False).returncode


def _said(command: Sequence[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False).stderr


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: str | float) -> Any:
        """The data of an answer of its HTTP API, e.g. `query` with `query=…`.

        Raises:
            AssertionError: it answered with an error; says which.
        """
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=20)
        body = answer.json()
        assert body["status"] == "success", f"{parameters}: {body.get('error')}"
        return body["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series of an instant query, now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def query_range(self, expression: str, seconds: float, step: float) -> list[dict[str, Any]]:
        """Series of a range query that ends now."""
        now = time.time()
        data = self.get("query_range", query=expression, start=now - seconds, end=now, step=step)
        found: list[dict[str, Any]] = data["result"]
        return found

    def healthy_targets(self) -> int:
        """How many targets answered the last scrape."""
        answer = httpx.get(f"{self.url}/api/v1/targets", timeout=20).json()
        return sum(target["health"] == "up" for target in answer["data"]["activeTargets"])


@contextlib.contextmanager
def run_prometheus(
    folder: Path, targets: Mapping[str, Mapping[str, str]], *, interval: str = "1s", rules: str | None = None
) -> Iterator[Prometheus]:
    """Run Prometheus on a free port of the loopback until the block ends.

    Args:
        folder: Gets its configuration, data and log.
        targets: `host:port` → labels of what it scrapes.
        interval: Between two scrapes.
        rules: A file with rules, as text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        {"job_name": address, "static_configs": [{"targets": [address], "labels": dict(labels)}]}
        for address, labels in targets.items()
    ]
    settings = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    config: dict[str, Any] = {"global": settings, "scrape_configs": jobs}
    if rules is not None:
        (folder / "rules.yaml").write_text(rules)
        config["rule_files"] = ["rules.yaml"]
    (folder / "prometheus.yaml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [
        str(program("prometheus")),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--log.level=warn",
    ]
    with Process(command, log=folder / "prometheus.log") as process:
        process.wait_for_port(port)
        yield Prometheus(f"http://{LOOPBACK}:{port}")
        process.kill()
