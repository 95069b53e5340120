"""E-mail addresses by form: what a mail server of any network may know. Pure."""

import re
from typing import Final

NO_TEXT: Final = r"\x00-\x1f\x7f\x85\u2028\u2029"
"""Control characters and line separators, as the inside of a character class: none belongs into a header."""

_NAMED: Final = re.compile(rf"([^<>{NO_TEXT}]*)<([^<>]*)>")


def address(text: str) -> str:
    """The address in its usual form, with the domain as it was given.

    The check asks for form only: domains of one label, reserved ones (`.local`, `.test`) and names with `_` are used
    inside companies, and only the mail server knows which of them it takes.

    Raises:
        ValueError: it has not the form of an address; the message is one line.
    """
    from email_validator import EmailNotValidError, validate_email

    local, _, domain = text.rpartition("@")
    if domain.rpartition(".")[2].isdecimal():
        raise ValueError("The part after the @-sign ends with a number, as no domain does.")
    # DNS allows `_` in names, host names do not: a letter stands in for it. Below `.com` no name is reserved.
    stand_in = f"{local}@{domain.replace('_', 'x')}.com" if domain else text
    try:
        found = validate_email(stand_in, check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None
    return f"{found.local_part}@{domain}"


def sender(text: str) -> tuple[str, str]:
    """Name (may be empty) and address of `address` or `Name <address>`. The name is taken as it is written, whatever
    characters it has; quotation marks around all of it are not part of it.

    Raises:
        ValueError: it is neither; the message is one line.
    """
    match = _NAMED.fullmatch(text)
    if match is None:
        return "", address(text)
    name = match[1].strip()
    if len(name) >= 2 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    if len(name) > 200:
        raise ValueError("a name has 200 characters at most")
    return name, address(match[2])
