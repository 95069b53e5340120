"""Annotations that ask for something to be done once for each of their values. Pure."""

import hashlib
from typing import Any, Final

MAX_TOKEN: Final = 253
"""Longest value of such an annotation, in characters, that a status repeats."""


def token_of(resource: dict[str, Any], annotation: str) -> str | None:
    """The value of an annotation that asks for something to be done once; a long one by its hash."""
    given = (resource["metadata"].get("annotations") or {}).get(annotation)
    if not given or len(given) <= MAX_TOKEN:
        return given or None
    return f"sha256:{hashlib.sha256(given.encode()).hexdigest()}"
