"""`send_email`: one message to one recipient by SMTP.

What the server's answer decides: a 4xx code, a lost connection or silence is retried; a 5xx code (refused recipient,
refused sender, refused login) is final, but for one that is about the name in EHLO. The `Message-ID` is the same in
each attempt of a job, so that a mail system recognises a message it already has.
"""

import asyncio
import ssl
from typing import Any

from goqueue import mailbox, tracing
from goqueue.builtin import SendEmail
from goqueue.errors import NeverRetry, SettingsError
from goqueue.registry import JobContext
from goqueue.settings import EmailSettings
from goqueue_worker.handlers.message import compose
from goqueue_worker.handlers.outcome import one_line
from goqueue_worker.handlers.smtp import Conversation, full_name


class EmailSender:
    """The handler with its settings; a connection for each message, one TLS context for all.

    `installation` tells this installation's messages from those of others.
    """

    def __init__(self, settings: EmailSettings, installation: str = "") -> None:
        self.installation = installation
        self._settings = settings
        self._sender = mailbox.sender(settings.sender)
        self._tls = tls_context(settings)
        self._full_name: str | None = None

    async def send(self, payload: SendEmail, job: JobContext) -> dict[str, Any]:
        """Hand the message to the SMTP server; its last answer is the result.

        Raises:
            NeverRetry: no server is configured, or it refused for good.
            TryAgain: the server cannot be reached, or asked to come back later.
        """
        if not self._settings.host:
            raise NeverRetry("no SMTP server is configured: set GOQUEUE_SMTP_HOST")
        message = compose(payload, self._sender, job.job_id, job.created, self.installation)
        if self._full_name is None and not self._settings.helo:
            self._full_name = await asyncio.to_thread(full_name)
        conversation = Conversation(self._settings, self._tls, self._full_name or "")
        with tracing.calling("smtp send", self._settings.host, self._settings.port, {"network.protocol.name": "smtp"}):
            answer = await conversation.deliver(message)
        return {"message_id": message.id, "response": one_line(answer, 500)}


def tls_context(settings: EmailSettings) -> ssl.SSLContext | None:
    """What checks the server's certificate; nothing without TLS.

    Raises:
        SettingsError: the file of the CA cannot be used.
    """
    if not settings.host or settings.tls == "none":
        return None
    try:
        return ssl.create_default_context(cafile=settings.tls_ca)
    except (ssl.SSLError, ValueError):
        raise SettingsError("GOQUEUE_SMTP_TLS_CA: not a certificate in PEM") from None
    except OSError as error:
        raise SettingsError(f"GOQUEUE_SMTP_TLS_CA: {error.strerror or error}") from None
