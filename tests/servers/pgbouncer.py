"""PgBouncer: the machine's own, else Debian's or Ubuntu's package, unpacked into the cache without installing it."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from goqueue_cli.embedded import free_port
from goqueue_cli.keeper import LOOPBACK
from tests.servers.gotools import cache_dir, making, run
from tests.servers.process import Process
from tests.servers.stores import FreshDatabase

NOBODY: Final = 65534


@dataclass(frozen=True)
class PgBouncer:
    """A running PgBouncer in transaction mode, in front of one database."""

    database: FreshDatabase
    port: int

    @property
    def dsn(self) -> str:
        """Its address, as libpq understands it."""
        server = self.database.server
        return f"postgresql://{server.user}:x@{LOOPBACK}:{self.port}/{self.database.name}"

    @property
    def environment(self) -> dict[str, str]:
        """The same as GoQueue's settings, without `DB_PGBOUNCER`."""
        return {**self.database.environment, "POSTGRES_HOST": LOOPBACK, "POSTGRES_PORT": str(self.port)}


def find() -> Path | None:
    """The folder into which the package was unpacked; None where the machine has PgBouncer itself.

    Skips the test where there is none and none can be had.
    """
    if _installed():
        return None
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("needs PgBouncer, or apt to get it by")
    folder = cache_dir() / "pgbouncer" / f"{platform.machine()}-{_release()}"
    with making(folder) as partial:
        if partial is not None:
            _unpack(partial)
    return folder


def _installed() -> str | None:
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def _release() -> str:
    about = platform.freedesktop_os_release()
    return f"{about['ID']}-{about.get('VERSION_ID', 'rolling')}"


def _unpack(folder: Path) -> None:
    """Everything that an installation would add to this machine."""
    command = ["apt-get", "--simulate", "--no-install-recommends", "install", "pgbouncer"]
    planned = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    packages = re.findall(r"^Inst (\S+) ", planned.stdout, re.MULTILINE)
    if "pgbouncer" not in packages:
        pytest.skip(f"apt knows no PgBouncer: {planned.stderr.strip()}")
    with contextlib.chdir(folder):
        run(["apt-get", "--quiet", "download", *packages])
    for package in folder.glob("*.deb"):
        run(["dpkg-deb", "--extract", str(package), str(folder)])
        package.unlink()


@contextlib.contextmanager
def run_pgbouncer(database: FreshDatabase, **settings: str) -> Iterator[PgBouncer]:
    """Run PgBouncer in front of a database until the block ends.

    Args:
        database: The only one that it serves.
        settings: More lines of its section `[pgbouncer]`.
    """
    unpacked = find()
    server = database.server
    port = free_port()
    lines = {
        "listen_addr": LOOPBACK,
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        "default_pool_size": "4",
        **settings,
    }
    with tempfile.TemporaryDirectory(prefix="goqueue-pgbouncer-") as name:
        folder = Path(name)
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n{database.name} = host={server.host} port={server.port} user={server.user}"
            f" password={server.password}\n[pgbouncer]\n" + "".join(f"{key} = {text}\n" for key, text in lines.items())
        )
        program, environment = _installed(), {}
        if unpacked is not None:  # the cache may be closed to the user that it runs as
            root = Path(shutil.copytree(unpacked, folder / "root"))
            program = str(root / "usr" / "sbin" / "pgbouncer")
            environment = {"LD_LIBRARY_PATH": ":".join(map(str, (root / "usr" / "lib").glob("*-linux-gnu*")))}
        command = [str(program), str(configuration)]
        if os.getuid() == 0:  # it does not run as root
            command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        with Process(command, environment=environment, log=folder / "pgbouncer.log") as process:
            process.wait_for_port(port)
            yield PgBouncer(database, port)
            process.kill()
