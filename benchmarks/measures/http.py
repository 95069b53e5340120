"""The REST API under wrk, which counts and times from outside: GoQueue only, no peer has one."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from benchmarks.bench import Bench, Run
from benchmarks.children import Child, DriverFailed, descendants, memory_bytes
from benchmarks.systems import HERE, System
from goqueue.keys import Token

CONNECTIONS, SECONDS, PROCESSES = 50, 5, 2


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await(url: str, api: Child) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        api.alive()
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback
                return
        except OSError:
            time.sleep(0.05)
    raise DriverFailed("the API did not answer in 30 s")


def _wrk(url: str, script: str, seconds: int, key: str = "") -> tuple[float, float]:
    """Requests a second and p99 in ms, with an API key if there is one.

    Raises:
        DriverFailed: wrk failed, or a request was not answered as it should be.
    """
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(HERE / "wrk" / script), url]
    environment = {**os.environ, "BENCH_KEY": key}
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise DriverFailed(f"wrk failed: {done.stderr or done.stdout}")
    summary = json.loads(lines[-1])
    if summary["errors"]:
        raise DriverFailed(f"{summary['errors']} of {summary['requests']} requests to {url} failed")
    return summary["requests"] / summary["seconds"], summary["p99_ms"]


@contextlib.contextmanager
def _api(run: Run, **settings: str) -> Iterator[tuple[str, Child]]:
    """An API of two processes, and its address."""
    if shutil.which("wrk") is None:
        raise DriverFailed("wrk is not installed")
    base = f"http://127.0.0.1:{(port := _free_port())}"
    env = {
        "GOQUEUE_API_PORT": str(port),
        "GOQUEUE_API_HEALTH_PORT": "0",
        "GOQUEUE_API_PROCESSES": str(PROCESSES),
        **settings,
    }
    with run.start("api", **env) as api:
        _await(f"{base}/health/db", api)
        yield base, api


def requests(bench: Bench, system: System) -> dict[str, float]:
    """Measure 7."""
    with bench.run(system) as run, _api(run) as (base, api):
        _wrk(f"{base}/jobs/create", "create.lua", 1)
        created, create_p99 = _wrk(f"{base}/jobs/create", "create.lua", SECONDS)
        _all_accepted_are_kept(run)
        read, read_p99 = _wrk(f"{base}/jobs", "get.lua", SECONDS)
        # The server processes are the largest of the group; the supervisor above them serves nothing.
        memory = sorted((_alone(pid) for pid in descendants(api.process.pid)), reverse=True)[:PROCESSES]
    return {
        "POST /jobs/create": created,
        "POST /jobs/create p99": create_p99,
        "GET /jobs/{id}": read,
        "GET /jobs/{id} p99": read_p99,
        "API memory, each process": sum(memory) / len(memory) / 2**20,
    }


def guarded(bench: Bench, system: System) -> dict[str, float]:
    """Measure 10: what a key costs a request, and a key with both rate limits."""
    token = Token.new()
    key = {"GOQUEUE_API_AUTH": "required", "GOQUEUE_API_BOOTSTRAP_KEY": token.text}
    limits = {"GOQUEUE_API_RATE_LIMIT": "900000/second", "GOQUEUE_API_ADDRESS_RATE_LIMIT": "900000/second"}
    figures = {}
    for name, settings in (("open", {}), ("with a key", key), ("with a key and limits", {**key, **limits})):
        with bench.run(system) as run, _api(run, **settings) as (base, _):
            _wrk(f"{base}/jobs/create", "create.lua", 1, token.text)
            figures[f"POST, {name}"], _ = _wrk(f"{base}/jobs/create", "create.lua", SECONDS, token.text)
            _all_accepted_are_kept(run)
    return figures


def _alone(pid: int) -> int:
    children = [memory_bytes(child) for child in descendants(pid) if child != pid]
    return memory_bytes(pid) - sum(children[:1])


def _all_accepted_are_kept(run: Run) -> None:
    with run.stores() as stores:
        if run.counter.stored(stores) == 0:
            raise DriverFailed("the API answered, yet no job is stored")
