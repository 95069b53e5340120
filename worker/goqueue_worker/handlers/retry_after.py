"""The `Retry-After` header (RFC 9110, 10.2.3). Pure."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST: Final = 3600.0
"""Seconds that a foreign server may make a job wait."""

_DIGITS: Final = re.compile(r"[0-9]+")


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, more than 0 and at most `LONGEST`; None where the header is missing, senseless or past.

    Args:
        value: Whole seconds or an HTTP date.
        now: An aware time.
    """
    if value is None:
        return None
    text = value.strip()
    if _DIGITS.fullmatch(text):
        seconds = float(text[:20]) if len(text) > 20 else float(text)
    else:
        try:
            until = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        seconds = (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    return min(seconds, LONGEST) if seconds > 0 else None
