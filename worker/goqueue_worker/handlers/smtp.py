"""One message over one SMTP connection, step by step, so that a failure says at which step it came."""

import contextlib
import re
import socket
import ssl
from typing import TYPE_CHECKING, Final

from goqueue.errors import NeverRetry
from goqueue.settings import EmailSettings
from goqueue_worker.handlers.message import Message
from goqueue_worker.handlers.outcome import TryAgain, one_line

if TYPE_CHECKING:
    import aiosmtplib

GOODBYE: Final = 2.0
"""Seconds that the server has to answer QUIT."""

BAD_HELO: Final = 504
"""What Postfix answers to a host name that is not full; as a rule it waits for RCPT before it says so."""

PARTS: Final = {"connect": "the connection", "AUTH": "the login", "RCPT": "the recipient"}
"""What a server refuses at which step; at MAIL and DATA it is the message."""


HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


class Conversation:
    """What is said to the server for one message. `full_name` is the host's, or empty; used once."""

    def __init__(self, settings: EmailSettings, tls: ssl.SSLContext | None, full_name: str) -> None:
        import aiosmtplib

        self._settings = settings
        self._step = "connect"
        self._greeted_as = settings.helo or full_name
        self._server = f"{settings.host}:{settings.port}"
        self._client = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            local_hostname=self._greeted_as or "localhost",
            timeout=settings.timeout_seconds,
            use_tls=settings.tls == "implicit",
            start_tls=False,
            tls_context=tls,
        )

    async def deliver(self, message: Message) -> str:
        """Hand the message over; the server's last answer.

        Raises:
            NeverRetry: the server refused for good, or cannot do what the settings or the message need.
            TryAgain: the server cannot be reached, closed the connection, or asked to come back later.
        """
        import aiosmtplib

        try:
            await self._open()
            answer = await self._send(message)
        except aiosmtplib.SMTPResponseException as error:
            raise self._refusal(error) from None
        except (aiosmtplib.SMTPConnectError, aiosmtplib.SMTPServerDisconnected, OSError) as error:
            raise TryAgain(self._lost(error)) from None
        except aiosmtplib.SMTPException as error:
            # What is left is about the set-up, such as a server without STARTTLS.
            raise NeverRetry(f"{self._server}: {one_line(error.message)} (see GOQUEUE_SMTP_*)") from None
        except ValueError as error:
            raise NeverRetry(f"the message cannot be sent: {one_line(str(error))}") from None
        else:
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await self._client.quit(timeout=GOODBYE)  # the message is theirs; a bad farewell must not send it again
            return answer
        finally:
            self._client.close()

    async def _open(self) -> None:
        await self._client.connect()
        if not self._greeted_as:
            # RFC 5321, section 4.1.3: a host without a full name says its address.
            self._greeted_as = literal(self._client.get_transport_info("sockname")[0])
            self._client.local_hostname = self._greeted_as
        await self._greet()
        if self._settings.tls == "starttls":
            self._step = "STARTTLS"
            await self._client.starttls()
            await self._greet()
        if self._settings.user:
            self._step = "AUTH"
            await self._client.login(self._settings.user, self._settings.password.get_secret_value())

    async def _greet(self) -> None:
        import aiosmtplib

        self._step = "EHLO"
        try:
            await self._client.ehlo()
        except aiosmtplib.SMTPHeloError:
            if not self._client.is_connected:
                raise
            await self._client.helo()

    async def _send(self, message: Message) -> str:
        client = self._client
        options = [f"SIZE={len(message.content)}"] if client.supports_extension("size") else []
        encoding = "ascii"
        if message.needs_utf8:
            if not client.supports_extension("smtputf8"):
                raise NeverRetry(f"{self._server} cannot take this message: an address needs SMTPUTF8")
            options.append("SMTPUTF8")
            encoding = "utf-8"
        self._step = "MAIL"
        await client.mail(message.sender, options=options, encoding=encoding)
        self._step = "RCPT"
        await client.rcpt(message.recipient, encoding=encoding)
        self._step = "DATA"
        return (await client.data(message.content)).message

    def _lost(self, error: Exception) -> str:
        """Where the conversation broke off, and how."""
        import aiosmtplib

        text = one_line(str(error))
        if self._step == "connect":
            said_nothing = (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError)
            if isinstance(error.__cause__, said_nothing):  # aiosmtplib connects and waits for the greeting in one call
                return f"{self._server} was reached, but sent no greeting: {text}"
            return f"{self._server} cannot be reached: {text}"
        if isinstance(error, TimeoutError):
            return f"{self._server} did not answer {self._step} within {self._settings.timeout_seconds:g} s"
        if isinstance(error, ssl.SSLError):
            return f"{self._server}: TLS failed during {self._step}: {text}"
        return f"{self._server}: connection lost during {self._step}: {text}"

    def _refusal(self, error: "aiosmtplib.SMTPResponseException") -> Exception:
        final = 500 <= error.code <= 599
        about_helo = self._step == "EHLO" or error.code == BAD_HELO or "helo command rejected" in error.message.lower()
        if final and about_helo:
            # The message is as good as before once the setting is right, so the job waits for that.
            named = f"{error.code} {one_line(error.message)} (EHLO {self._greeted_as}: see GOQUEUE_SMTP_HELO)"
            return TryAgain(f"{self._server} refused this client's name: {named}")
        what = self._step if self._step in ("EHLO", "STARTTLS") else PARTS.get(self._step, "the message")
        return refusal(self._server, error.code, error.message, what)


def refusal(server: str, code: int, answer: str, what: str) -> Exception:
    """The exception for an SMTP error code: 5xx is final, the rest may pass."""
    text = f"{server} refused {what}: {code} {one_line(answer)}"
    return NeverRetry(text) if 500 <= code <= 599 else TryAgain(text)


def literal(address: str) -> str:
    """A host's address as EHLO says it (RFC 5321, section 4.1.3)."""
    return f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"


def full_name() -> str:
    """This host's full name, or nothing where it has none. May wait for DNS.

    A name of the loopback address tells no server who we are.
    """
    name = socket.getfqdn().rstrip(".").lower()
    return name if HOST.fullmatch(name) and not name.startswith("localhost.") and not name.endswith(".arpa") else ""
