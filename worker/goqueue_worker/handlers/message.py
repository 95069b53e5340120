"""A message as its server gets it. Pure.

Header fields are written here, as text, and not by `email.message`: that parses what it is given, so encoded words
(RFC 2047) in a subject would be decoded instead of arriving as the text that they are, and what they hold could begin
a header line of its own (python/cpython#121650; fixed in the latest patch releases only).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Final

from goqueue import mailbox
from goqueue.builtin import SendEmail
from goqueue.errors import NeverRetry
from goqueue_worker.handlers.identity import digest
from goqueue_worker.handlers.outcome import one_line

POLICY: Final = SMTP_POLICY.clone(cte_type="7bit")
"""Bodies as ASCII (quoted-printable or base64), which every server takes."""

WIDTH: Final = 76
"""Characters of a header line, where it can be folded."""

_NO_TEXT: Final = re.compile(f"[{mailbox.NO_TEXT}]")
_PLAIN: Final = re.compile(r"[!-~]{1,200}(?: [!-~]{1,200})*")
"""ASCII that may be folded at each blank and comes out as it went in. Text with other blanks has to be encoded."""


@dataclass(frozen=True, slots=True)
class Message:
    """`recipient` and `sender` are those of the envelope; `content` has CRLF line ends."""

    id: str
    sender: str
    recipient: str
    content: bytes

    @property
    def needs_utf8(self) -> bool:
        """Whether the server must know SMTPUTF8 (RFC 6531), since an address is not ASCII."""
        return not (self.sender.isascii() and self.recipient.isascii())


def compose(
    payload: SendEmail, sender: tuple[str, str], job_id: int, created: float, installation: str = ""
) -> Message:
    """The message, plain text in UTF-8. `sender` is a name (may be empty) and an address.

    Raises:
        NeverRetry: a header would hold a control character, or an address is none.
    """
    name, address = sender
    try:
        own, recipient = ascii_address(address), ascii_address(payload.to)
        id = message_id(payload, job_id, created, own.rpartition("@")[2], installation)
        fields = [
            mailbox_field("From", own, name),
            mailbox_field("To", recipient),
            text_field("Subject", payload.subject),
            text_field("Date", format_datetime(datetime.now(UTC))),
            text_field("Message-ID", id),
            text_field("Auto-Submitted", "auto-generated"),
        ]
        body = EmailMessage(policy=POLICY)
        body.set_content(payload.body)
        head = "".join(field + "\r\n" for field in fields).encode()
    except ValueError as error:
        raise NeverRetry(f"the message cannot be written: {one_line(str(error))}") from None
    return Message(id, own, recipient, head + body.as_bytes())


def text_field(name: str, text: str) -> str:
    """A header field whose text arrives letter for letter: folded where that is safe, else in encoded words.

    Raises:
        ValueError: the text holds a control character or a lone surrogate.
    """
    refuse_line_breaks(name, text)
    if _PLAIN.fullmatch(text) and "=?" not in text:
        return _folded(name, text.split(" "))
    return f"{name}: {_encoded_words(text, len(name) + 2)}"


def mailbox_field(name: str, address: str, person: str = "") -> str:
    """A header field of one address, with the person's name before it if there is one.

    Raises:
        ValueError: one of them holds a control character, or the address is none.
    """
    refuse_line_breaks(name, person)
    if mailbox.address(address) != address:
        raise ValueError(f"{name}: not an address in its usual form")
    if not person:
        return f"{name}: {address}"
    if person.isascii() and "=?" not in person:
        phrase = '"' + re.sub(r'(["\\])', r"\\\1", person) + '"'
    else:
        phrase = _encoded_words(person, len(name) + 2)
    return _folded(name, [phrase, f"<{address}>"])


def refuse_line_breaks(name: str, text: str) -> None:
    """Raises ValueError where a header's text would be more than one line, or no text."""
    if _NO_TEXT.search(text):
        raise ValueError(f"{name} holds a line break or another control character")


def ascii_address(address: str) -> str:
    """The address with its domain in ASCII (IDNA); a local part outside ASCII stays (the server must know SMTPUTF8).

    Raises:
        ValueError: the domain has no such form.
    """
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    import idna

    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode()}"
    except idna.IDNAError as error:
        raise ValueError(f"the domain of {address} is no domain: {error}") from None


def message_id(payload: SendEmail, job_id: int, created: float, domain: str, installation: str = "") -> str:
    """The same for each attempt of a job, and another for each other job of any installation."""
    content = (payload.to, payload.subject, payload.body)
    return f"<job-{job_id}.{digest(installation, job_id, created, *content)}@{domain}>"


def _encoded_words(text: str, used: int) -> str:
    """All of the text in encoded words, blanks too: those between two words do not count (RFC 2047, section 6.2)."""
    return Header(text, "utf-8", maxlinelen=WIDTH, header_name=" " * (used - 2)).encode(linesep="\r\n")


def _folded(name: str, words: list[str]) -> str:
    """The words with a blank between them, which begins a new line where the old one is full."""
    lines = [f"{name}: {words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines)
