"""Numbers that Kubernetes does not keep as they are. Pure."""

from typing import Any, Final

EXACT: Final = 2**63
"""Kubernetes keeps whole numbers of 64 bits with a sign; it stores larger ones as floating point, rounded."""


def rounded(value: Any, place: str) -> str | None:
    """Where JSON has a number that Kubernetes may have rounded, or would round; None where it has none.

    The API server shows a float without a fraction as it shows a whole number, so that the two cannot be told apart;
    -2^63 is what it makes of smaller ones.
    """
    level = [(place, value)]
    while level:
        place, value = level.pop()
        if isinstance(value, dict):
            level += [(f"{place}.{name}", item) for name, item in value.items()]
        elif isinstance(value, list):
            level += [(f"{place}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, int | float) and not -EXACT < value < EXACT:
            return place
    return None
