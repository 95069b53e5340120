"""`send_email`: one message to one recipient by SMTP.

What the server's answer decides: a 4xx code, a lost connection or silence is retried; a 5xx code (refused recipient,
refused sender, refused login) is final. The `Message-ID` is the same in each attempt of a job, so that a mail system
recognises a message it already has.
"""

import contextlib
import hashlib
import socket
import ssl
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, parseaddr
from typing import TYPE_CHECKING, Any, Final

from goqueue import tracing
from goqueue.builtin import SendEmail
from goqueue.errors import NeverRetry
from goqueue.registry import JobContext
from goqueue.settings import EmailSettings
from goqueue_worker.handlers.outcome import TryAgain, one_line

if TYPE_CHECKING:
    import aiosmtplib

POLICY: Final = SMTP_POLICY.clone(cte_type="7bit")
"""Headers and bodies as ASCII (encoded words, quoted-printable, base64), which every server takes."""


GOODBYE: Final = 2.0
"""Seconds that the server has to answer QUIT."""


class EmailSender:
    """The handler with its settings; a connection for each message, one TLS context for all."""

    def __init__(self, settings: EmailSettings) -> None:
        self._settings = settings
        self._name, self._address = parseaddr(settings.sender)
        self._tls: ssl.SSLContext | None = None

    async def send(self, payload: SendEmail, job: JobContext) -> dict[str, Any]:
        """Hand the message to the SMTP server; its last answer is the result.

        Raises:
            NeverRetry: no server is configured, or it refused for good.
            TryAgain: the server is away, or asked to come back later.
        """
        if not self._settings.host:
            raise NeverRetry("no SMTP server is configured: set GOQUEUE_SMTP_HOST")
        recipient = ascii_address(payload.to)
        message = compose(payload, recipient, self._name, ascii_address(self._address), job.job_id)
        with tracing.calling("smtp send", self._settings.host, self._settings.port, {"network.protocol.name": "smtp"}):
            answer = await self._deliver(message, recipient)
        return {"message_id": message["Message-ID"], "response": one_line(answer, 500)}

    async def _deliver(self, message: EmailMessage, recipient: str) -> str:
        import aiosmtplib

        server = f"{self._settings.host}:{self._settings.port}"
        client = self._client()
        try:
            await client.connect()
            _, answer = await client.send_message(message, sender=ascii_address(self._address), recipients=[recipient])
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=GOODBYE)  # the message is theirs; a bad farewell must not send it again
            return answer
        except aiosmtplib.SMTPRecipientsRefused as error:
            first = error.recipients[0]
            raise refusal(server, first.code, first.message, "the recipient") from None
        except aiosmtplib.SMTPResponseException as error:
            what = "the login" if isinstance(error, aiosmtplib.SMTPAuthenticationError) else "the message"
            raise refusal(server, error.code, error.message, what) from None
        except aiosmtplib.SMTPNotSupported as error:
            raise NeverRetry(f"{server} cannot take this message: {one_line(error.message)}") from None
        except (aiosmtplib.SMTPConnectError, aiosmtplib.SMTPServerDisconnected, OSError) as error:
            raise TryAgain(f"{server} cannot be reached: {one_line(str(error))}") from None
        except aiosmtplib.SMTPException as error:
            # What is left is about the set-up, such as a server without STARTTLS.
            raise NeverRetry(f"{server}: {one_line(error.message)} (see GOQUEUE_SMTP_*)") from None
        except ValueError as error:
            raise NeverRetry(f"the message cannot be sent: {one_line(str(error))}") from None
        finally:
            client.close()

    def _client(self) -> "aiosmtplib.SMTP":
        import aiosmtplib

        chosen = self._settings
        if chosen.tls != "none" and self._tls is None:
            self._tls = ssl.create_default_context(cafile=chosen.tls_ca)
        return aiosmtplib.SMTP(
            hostname=chosen.host,
            port=chosen.port,
            username=chosen.user or None,
            password=chosen.password.get_secret_value() if chosen.user else None,
            local_hostname=socket.gethostname(),
            timeout=chosen.timeout_seconds,
            use_tls=chosen.tls == "implicit",
            start_tls=chosen.tls == "starttls",
            tls_context=self._tls,
        )


def refusal(server: str, code: int, answer: str, what: str) -> Exception:
    """The exception for an SMTP error code: 5xx is final, the rest may pass."""
    text = f"{server} refused {what}: {code} {one_line(answer)}"
    return NeverRetry(text) if 500 <= code <= 599 else TryAgain(text)


def ascii_address(address: str) -> str:
    """The address with its domain in ASCII (IDNA); a local part outside ASCII stays (the server must know SMTPUTF8).

    Raises:
        NeverRetry: the domain has no such form.
    """
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    import idna

    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode()}"
    except idna.IDNAError as error:
        raise NeverRetry(f"the domain of {address} is no domain: {one_line(str(error))}") from None


def message_id(payload: SendEmail, job_id: int, domain: str) -> str:
    """The same for each attempt of a job. The digest tells apart jobs of the same id in two installations."""
    content = "\0".join((str(job_id), payload.to, payload.subject, payload.body))
    return f"<job-{job_id}.{hashlib.sha256(content.encode()).hexdigest()[:16]}@{domain}>"


def compose(payload: SendEmail, recipient: str, sender_name: str, sender: str, job_id: int) -> EmailMessage:
    """The message, plain text in UTF-8.

    Raises:
        NeverRetry: the standard library sees a line break in a header.
    """
    message = EmailMessage(policy=POLICY)
    try:
        message["From"] = Address(sender_name, addr_spec=sender) if sender.isascii() else sender
        message["To"] = recipient
        message["Subject"] = payload.subject
    except ValueError as error:
        raise NeverRetry(f"a header of the message is refused: {one_line(str(error))}") from None
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = message_id(payload, job_id, sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(payload.body)
    return message
