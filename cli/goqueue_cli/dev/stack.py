"""The parts of `goqueue dev`, in the order in which they start; they stop the other way round."""

import contextlib
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from goqueue import settings
from goqueue.errors import GoQueueError
from goqueue.keys import Token
from goqueue.settings import ApiSettings, EncryptionSettings, EngineSettings, RedisSettings
from goqueue.store import migrate
from goqueue_cli.child import Child, ChildError
from goqueue_cli.dev.receivers import MailCatcher, Note, WebhookReceiver
from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey, free_port
from goqueue_cli.keeper import LOOPBACK

STOP_SECONDS = 30.0
"""Longest wait for one process to end in order: the worker first lets its jobs finish."""


class PartEnded(GoQueueError):
    """A part ended though nobody asked it to. The message has the end of its log."""


class Stack:
    """PostgreSQL, Valkey, mail catcher, webhook receiver, worker, scheduler, API: all of them, or none."""

    def __init__(self, folder: Path, note: Note) -> None:
        self.folder = folder.absolute()
        self._port = settings.load(ApiSettings).port or free_port()
        self.api = f"http://{LOOPBACK}:{self._port}"
        self.key_file = self.folder / "api-key"
        self.headers: dict[str, str] = {}
        """What a request to the API needs."""
        self._note = note
        self._exit = contextlib.ExitStack()
        self._children: dict[str, Child] = {}

    @property
    def environment_file(self) -> Path:
        """The settings of the running parts that commands and clients need, see `goqueue.development`."""
        return self.folder / "environment"

    def __enter__(self) -> Self:
        _refuse_taken_port(self._port)
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            self._exit = undo
            try:
                self._start()
            except (EmbeddedServerError, ChildError) as error:
                raise GoQueueError(str(error)) from error
            self._exit = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _start(self) -> None:
        postgres = EmbeddedPostgres(self.folder / "postgres")
        valkey = EmbeddedValkey(self.folder / "valkey")
        for server in (postgres, valkey):
            self._exit.callback(server.stop)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda server: server.start(), (postgres, valkey)))
        mails = self._exit.enter_context(MailCatcher(self.folder / "mails", self._note))
        self.webhooks = self._exit.enter_context(WebhookReceiver(self._note)).url
        migrate.upgrade(postgres.dsn)
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
        access = self._access()
        environment = {**stores, **_unless_set(_receivers(mails.port)), **_PROBES, **access}
        environment["GOQUEUE_API_PORT"] = str(self._port)
        for part in ("worker", "scheduler", "api"):
            self._launch(part, environment)
        self._children["api"].wait_for_port(self._port)

    def _access(self) -> dict[str, str]:
        """Here the API asks for no key, unless GOQUEUE_API_AUTH is `required`; then one for everything is kept."""
        api = settings.load(ApiSettings)
        if api.auth != "required":
            return {"GOQUEUE_API_AUTH": "off"}
        key = api.bootstrap_key.get_secret_value()
        if not key:
            kept = Token.read(self.key_file.read_text().strip()) if self.key_file.exists() else None
            key = (kept or Token.new()).text
        _write_private(self.key_file, key + "\n")
        self.headers = {"Authorization": f"Bearer {key}"}
        return {"GOQUEUE_API_BOOTSTRAP_KEY": key}

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

    def check(self) -> None:
        """See that all processes run.

        Raises:
            PartEnded: one does not.
        """
        for part, child in self._children.items():
            if child.returncode is not None:
                lines = child.log.read_text(errors="replace").splitlines()[-20:]
                raise PartEnded("\n".join([f"the {part} ended with exit code {child.returncode}:", *lines]))


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
    if (file := settings.load(EncryptionSettings).keys_file) is not None:
        chosen["GOQUEUE_ENCRYPTION_KEYS_FILE"] = str(file.absolute())
    return {name: value for name, value in chosen.items() if value}


def _write_private(path: Path, text: str) -> None:
    partial = path.with_suffix(".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


_PROBES = {f"GOQUEUE_{part}_HEALTH_PORT": "0" for part in ("WORKER", "SCHEDULER", "API")}


def _receivers(mail_port: int) -> dict[str, str]:
    return {
        "GOQUEUE_SMTP_HOST": LOOPBACK,
        "GOQUEUE_SMTP_PORT": str(mail_port),
        "GOQUEUE_SMTP_TLS": "none",
        # Here, and nowhere else by default, a webhook may call this machine, and payments charge nobody.
        "GOQUEUE_WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
        "GOQUEUE_PAYMENT_GATEWAY": "sandbox",
    }


def _unless_set(values: dict[str, str]) -> dict[str, str]:
    """Without those whose group of settings the user has set: who names an SMTP server means all of it."""
    groups = ("GOQUEUE_SMTP_", "GOQUEUE_WEBHOOK_", "GOQUEUE_PAYMENT_")
    taken = tuple(group for group in groups if any(name.startswith(group) for name in os.environ))
    return {name: value for name, value in values.items() if not (taken and name.startswith(taken))}


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise GoQueueError(
                f"port {port} of {LOOPBACK} cannot be had ({error.strerror}); GOQUEUE_API_PORT chooses another"
            ) from None
