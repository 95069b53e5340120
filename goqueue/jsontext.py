"""JSON as bytes from outside: decoded strictly, refused where PostgreSQL's jsonb could not hold it. Pure."""

import re
from typing import Any, Final

import orjson

from goqueue.errors import InvalidInput

_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
MAX_DEPTH: Final = 64
"""Nesting that is accepted; deeper JSON is an attack or a mistake."""


def holds_nul(text: str) -> bool:
    """Whether JSON text holds an escaped NUL character, which jsonb refuses."""
    return "\\u0000" in text and _NUL.search(text) is not None


def decode(body: bytes | str) -> Any:
    """Parse JSON; NaN, lone surrogates, bad UTF-8 and NUL characters are refused.

    Raises:
        InvalidInput: `invalid json: …` in one line.
    """
    try:
        value = orjson.loads(body)
        text = body.decode() if isinstance(body, bytes) else body
    except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"invalid json: {error}".splitlines()[0]) from None
    if holds_nul(text):
        raise InvalidInput("invalid json: NUL characters cannot be stored")
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise InvalidInput(f"invalid json: nested deeper than {MAX_DEPTH} levels")
    return value


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, level)
            waiting.extend((child, level + 1) for child in (item.values() if isinstance(item, dict) else item))
    return deepest
