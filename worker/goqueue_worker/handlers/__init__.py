"""The functions of the built-in job types, attached by `install`.

Each has a class that holds its settings and what its jobs share (connections, TLS context). The libraries that speak to
the outside are imported by the first job that needs them, so that a worker without such jobs stays small.
"""

import importlib.util
import logging
import os
from dataclasses import dataclass
from typing import Final

import structlog

from goqueue import settings
from goqueue.builtin import PROCESS_PAYMENT, SEND_EMAIL, SEND_WEBHOOK
from goqueue.errors import SettingsError
from goqueue.registry import Handler, JobContext
from goqueue.settings import EmailSettings, PaymentSettings, WebhookSettings
from goqueue.store import declines, installation
from goqueue.store.connect import Database
from goqueue_worker.handlers.outcome import TryAgain
from goqueue_worker.handlers.process_payment import PaymentProcessor
from goqueue_worker.handlers.send_email import EmailSender
from goqueue_worker.handlers.send_webhook import WebhookSender

log = structlog.get_logger(__name__)

_NEEDED: Final = (
    (SEND_EMAIL, ("aiosmtplib",)),
    (SEND_WEBHOOK, ("httpx", "standardwebhooks")),
    (PROCESS_PAYMENT, ("stripe",)),
)
"""The packages of the extra `worker` that each built-in type needs. A worker for other types does without."""


@dataclass(frozen=True, slots=True)
class Handlers:
    """The installed handlers; `close()` ends the connections they share."""

    email: EmailSender
    webhook: WebhookSender
    payment: PaymentProcessor

    async def attach(self, database: Database) -> None:
        """Let them know which installation they work for, and remember what must outlive this process. Call it before
        the first job.

        Raises:
            StoreUnavailable: the database cannot be asked.
        """
        async with database.connection() as connection:
            self.email.installation = self.webhook.installation = await installation.identity(connection)
        self.payment.declines = StoredDeclines(database)

    async def close(self) -> None:
        """Close what the jobs shared. Call it in the loop that ran them, after the last one."""
        await self.webhook.close()
        await self.payment.close()


class StoredDeclines:
    """The declines of payments, in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, payment_id: str) -> int:
        """See `Declines`."""
        async with self._database.connection() as connection:
            return await declines.count(connection, payment_id)

    async def add(self, payment_id: str, before: int) -> None:
        """See `Declines`."""
        async with self._database.connection() as connection:
            await declines.add(connection, payment_id, before)


def install(
    email: EmailSettings | None = None,
    webhook: WebhookSettings | None = None,
    payment: PaymentSettings | None = None,
) -> Handlers:
    """Give the built-in job types their functions; settings that are not given come from the environment.

    Raises:
        SettingsError: a setting is wrong; the message names it in one line.
    """
    if (path := os.environ.get("SSL_CERT_FILE")) and not os.path.isfile(path):
        raise SettingsError("SSL_CERT_FILE: no such file")  # else each webhook and each payment would fail of it
    handlers = Handlers(
        EmailSender(email or settings.load(EmailSettings)),
        WebhookSender(webhook or settings.load(WebhookSettings)),
        PaymentProcessor(payment or settings.load(PaymentSettings)),
    )
    SEND_EMAIL.implements(handlers.email.send)
    SEND_WEBHOOK.implements(handlers.webhook.send)
    PROCESS_PAYMENT.implements(handlers.payment.process)
    for kind, packages in _NEEDED:
        if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
            reason = f"{kind.name} needs the extra worker: pip install 'goqueue[worker]' (no {', '.join(missing)})"
            log.warning("job type cannot run in this worker", type=kind.name, reason=reason)
            kind.implements(_unavailable(reason))
    for library in ("httpx", "httpcore", "stripe", "aiosmtplib"):
        # They log URLs, headers and parameters, which may hold their owners' secrets.
        logging.getLogger(library).setLevel(logging.WARNING)
    return handlers


def _unavailable(reason: str) -> Handler:
    """A handler that fails, so that the job is tried again, on a worker that has what it needs or once this one has."""

    async def fail(_: object, __: JobContext) -> None:
        raise TryAgain(reason)

    return fail
