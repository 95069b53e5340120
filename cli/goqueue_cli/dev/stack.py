"""The parts of `goqueue dev`, in the order in which they start; they stop the other way round."""

import contextlib
import ipaddress
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import psycopg

from goqueue import settings
from goqueue.errors import GoQueueError
from goqueue.keys import Token
from goqueue.settings import ApiSettings, EncryptionSettings, EngineSettings, RedisSettings
from goqueue.store import migrate
from goqueue_api.openness import is_loopback
from goqueue_cli.child import Child
from goqueue_cli.dev import surroundings
from goqueue_cli.dev.receivers import MailCatcher, Note, WebhookReceiver
from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey, free_port
from goqueue_cli.keeper import LOOPBACK

_PARTS: Final = ("worker", "scheduler", "api")

ERROR: Final = "goqueue: "
"""How the line begins with which a process of ours tells the error that ends it."""

STOP_SECONDS = 90.0
"""Longest wait for one process to end in order: the worker first lets its jobs finish, and may hear of its end late
where a handler blocks its event loop."""

START_SECONDS = 60.0
"""Longest wait for a process to listen on its ports."""

LAST_LINES = 20
"""Lines of its log that are shown of a process that ended."""


class PartEnded(GoQueueError):
    """A part ended though nobody asked it to. The message begins with the cause and has the end of its log."""


class Stack:
    """PostgreSQL, Valkey, mail catcher, webhook receiver, worker, scheduler, API: all of them, or none."""

    def __init__(self, folder: Path, note: Note) -> None:
        self.folder = folder.absolute()
        api = settings.load(ApiSettings)
        self._host = api.host
        self._port = api.port or free_port()
        self.api = f"http://{_reached_at(api.host)}:{self._port}"
        self.key_file = self.folder / "api-key"
        self.headers: dict[str, str] = {}
        """What a request to the API needs."""
        self.newest_job: int | None = None
        """Of earlier runs; None where there was never any."""
        self.received: frozenset[str] = frozenset()
        """Built-in types whose jobs reach nobody but the receivers here."""
        self._note = note
        self._exit = contextlib.ExitStack()
        self._children: dict[str, Child] = {}
        self._servers: tuple[EmbeddedPostgres | EmbeddedValkey, ...] = ()

    @property
    def environment_file(self) -> Path:
        """The settings of the running parts that commands and clients need, see `goqueue.development`."""
        return self.folder / "environment"

    def __enter__(self) -> Self:
        _refuse_taken_port(self._host, self._port)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GoQueueError(f"GOQUEUE_DEV_DIR: cannot make {self.folder}: {error.strerror}") from None
        with contextlib.ExitStack() as undo:
            self._exit = undo
            try:
                self._start()
            except EmbeddedServerError as error:
                raise GoQueueError(str(error)) from error
            except PermissionError as error:
                raise GoQueueError(f"GOQUEUE_DEV_DIR: {error.filename}: {error.strerror}") from None
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _start(self) -> None:
        postgres = EmbeddedPostgres(self.folder / "postgres")
        valkey = EmbeddedValkey(self.folder / "valkey")
        self._servers = (postgres, valkey)
        for server in self._servers:
            self._exit.callback(server.stop)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda server: server.start(), self._servers))
        mails = self._exit.enter_context(MailCatcher(self.folder / "mails", self._note))
        self.webhooks = self._exit.enter_context(WebhookReceiver(self._note)).url
        migrate.upgrade(postgres.dsn)
        self.newest_job = _newest_job(postgres.dsn)
        stores = {
            "POSTGRES_HOST": postgres.host,
            "POSTGRES_PORT": str(postgres.port),
            "POSTGRES_USER": postgres.user,
            "POSTGRES_PASSWORD": postgres.password,
            "POSTGRES_DB": postgres.database,
            "POSTGRES_SSLMODE": "disable",
            "GOQUEUE_REDIS_URL": valkey.url,
        }
        self._write_environment(stores | _for_clients())
        receivers = [one for one in surroundings.receivers(mails.port) if not one.is_the_users]
        self.received = frozenset(one.type for one in receivers)
        ours = {name: value for one in receivers for name, value in one.values.items()}
        ports = {part: free_port() for part in _PARTS}
        environment = {**stores, **ours, **_health(ports), **self._access(), "GOQUEUE_API_PORT": str(self._port)}
        for part in _PARTS:
            self._launch(part, environment)
        self._wait_until_up({*((LOOPBACK, port) for port in ports.values()), (_reached_at(self._host), self._port)})

    def _access(self) -> dict[str, str]:
        """Here the API asks for no key, unless GOQUEUE_API_AUTH is `required` or other machines reach it; then one for
        everything is kept."""
        api = settings.load(ApiSettings)
        if api.auth == "off" or (api.auth == "auto" and is_loopback(api.host)):
            return {"GOQUEUE_API_AUTH": "off"}
        key = api.bootstrap_key.get_secret_value()
        if not key:
            kept = Token.read(self.key_file.read_text().strip()) if self.key_file.exists() else None
            key = (kept or Token.new()).text
        _write_private(self.key_file, key + "\n")
        self.headers = {"Authorization": f"Bearer {key}"}
        return {"GOQUEUE_API_AUTH": "required", "GOQUEUE_API_BOOTSTRAP_KEY": key}

    def _launch(self, part: str, environment: dict[str, str]) -> None:
        log = self.folder / "logs" / f"{part}.log"
        log.parent.mkdir(exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        child = Child([sys.executable, "-m", "goqueue_cli", part], log=log, environment=environment)
        self._children[part] = child
        self._exit.callback(child.stop, STOP_SECONDS)

    def _write_environment(self, values: dict[str, str]) -> None:
        _write_private(self.environment_file, "".join(f"{name}={value}\n" for name, value in values.items()))
        self._exit.callback(self.environment_file.unlink, missing_ok=True)

    def _wait_until_up(self, addresses: set[tuple[str, int]]) -> None:
        """Wait until the processes listen on all of the addresses.

        Raises:
            PartEnded: one ended instead.
            GoQueueError: they still do not after `START_SECONDS`.
        """
        deadline = time.monotonic() + START_SECONDS
        while addresses:
            self.check()
            if time.monotonic() > deadline:
                raise GoQueueError(f"not up after {START_SECONDS:.0f} s; the logs are in {self.folder / 'logs'}")
            addresses = {address for address in addresses if not _listens(*address)}
            time.sleep(0.01)  # a refused connection answers at once: do not spin

    def check(self) -> None:
        """See that all processes run.

        Raises:
            PartEnded: one does not.
        """
        for server in self._servers:
            if not server.running:
                lines = server.log_path.read_text(errors="replace").splitlines()[-LAST_LINES:]
                raise PartEnded("\n".join([f"{server.kind} ended; the end of {server.log_path}:", *lines]))
        for part, child in self._children.items():
            if child.returncode is not None:
                raise PartEnded(_obituary(part, child.returncode, child.log))


def _obituary(part: str, code: int, log: Path) -> str:
    """Why a process ended: the cause in the first line, where its log has one, then the end of the log."""
    lines = log.read_text(errors="replace").splitlines()
    what = f"the {part} ended with exit code {code}"
    cause = _cause(lines)
    if part == "worker" and cause is None and code not in (0, 1):  # as by os._exit, a signal or want of memory
        what += " (a job may have ended it; the jobs are kept, and run at the next start)"
    first = what if cause is None else f"{cause}\n{what}"
    return "\n".join([f"{first}; the end of {log}:", *(f"  {line}" for line in lines[-LAST_LINES:])])


def _cause(lines: list[str]) -> str | None:
    """The error that a process of ours ended with: its own line for it, or the last line of a traceback."""
    for line in reversed(lines):
        if line.startswith(ERROR):
            return line.removeprefix(ERROR)
    if any(line.startswith("Traceback ") for line in lines):
        return next((line for line in reversed(lines) if line[:1].strip() and line[:1] not in "{["), None)
    return None


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=1):
            return True
    except OSError:
        return False


def _newest_job(dsn: str) -> int | None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT max(id) FROM jobs").fetchone()
    return row[0] if row else None


def _for_clients() -> dict[str, str]:
    """What a client needs beside the stores, of the settings that the parts have from this environment.

    No encryption key: it does not belong on the disk that holds what it encrypts.
    """
    engine = settings.load(EngineSettings)
    chosen = {
        "GOQUEUE_QUEUES": ",".join(engine.queues),
        "GOQUEUE_JOBS": ",".join(engine.jobs),
        "GOQUEUE_REDIS_PREFIX": settings.load(RedisSettings).prefix,
    }
    if engine.jobs and (path := os.environ.get("PYTHONPATH")):
        chosen["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in path.split(os.pathsep) if entry)
    if (file := settings.load(EncryptionSettings).keys_file) is not None:
        chosen["GOQUEUE_ENCRYPTION_KEYS_FILE"] = str(file.absolute())
    return {name: value for name, value in chosen.items() if value}


def _write_private(path: Path, text: str) -> None:
    partial = path.with_suffix(".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def _health(ports: dict[str, int]) -> dict[str, str]:
    """Ports of the processes' probes by which they are known to be up, each a free one."""
    hosts = {f"GOQUEUE_{part.upper()}_HEALTH_HOST": LOOPBACK for part in ports}
    return hosts | {f"GOQUEUE_{part.upper()}_HEALTH_PORT": str(port) for part, port in ports.items()}


def _reached_at(host: str) -> str:
    """Where this machine reaches a server that listens on an address, as a part of a URL."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return LOOPBACK
    return f"[{address}]" if address.version == 6 else host


def _refuse_taken_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise GoQueueError(
                f"port {port} of {host} cannot be had ({error.strerror}); GOQUEUE_API_PORT chooses another"
            ) from None
