"""Text and JSON from outside, for PostgreSQL: JSON decoded strictly, refused where jsonb could not hold it. Pure."""

import json
import re
from typing import Any, Final

import orjson

from goqueue.errors import InvalidInput

_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_DIGITS: Final = bytes(ord("0") if chr(byte) in "-0123456789" else ord(" ") for byte in range(256))
_LONG: Final = b"0" * 20
"""Every whole number of more than 64 bits has as many digits, or one less and a sign; a pattern is ten times slower."""

MAX_DEPTH: Final = 64
"""Nesting that is accepted; deeper JSON is an attack or a mistake."""


def holds_nul(text: str) -> bool:
    """Whether JSON text holds an escaped NUL character, which jsonb refuses."""
    return "\\u0000" in text and _NUL.search(text) is not None


def storable(text: str, most: int) -> str:
    """At most so many characters, with what PostgreSQL's text cannot hold replaced: NUL, and lone surrogates."""
    return text[:most].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def decode(body: bytes | str) -> Any:
    """Parse JSON; NaN, lone surrogates, bad UTF-8, NUL characters and numbers too large to keep are refused.

    Raises:
        InvalidInput: `invalid json: …` in one line.
    """
    try:
        value = orjson.loads(body)
        raw, text = (body, body.decode()) if isinstance(body, bytes) else (body.encode(), body)
    except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"invalid json: {error}".splitlines()[0]) from None
    if holds_nul(text):
        raise InvalidInput("invalid json: NUL characters cannot be stored")
    if text.count("[") + text.count("{") > MAX_DEPTH and _deeper_than([value], MAX_DEPTH):
        raise InvalidInput(f"invalid json: nested deeper than {MAX_DEPTH} levels")
    if _LONG in raw.translate(_DIGITS):
        json.loads(text, parse_int=_whole)
    return value


def _whole(digits: str) -> int:
    """A whole number that orjson keeps exactly; larger ones it would round to a float without a word."""
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise InvalidInput("invalid json: a whole number needs more than 64 bits")
    return int(digits)


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        # Level by level, keeping containers only: five times as fast as a stack on a body of nothing but brackets.
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) is list or type(child) is dict
        ]
        if not level:
            return False
    return True
