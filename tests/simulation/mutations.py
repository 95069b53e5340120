"""Cures taken out, one at a time: the simulation must find what each of them cures."""

from collections.abc import Callable
from typing import Final

MUTATIONS: Final[dict[str, Callable[[], None]]] = {}
"""Name → takes a cure out of this process."""


def apply(name: str) -> None:
    """Take a cure out of this process, for good."""
    MUTATIONS[name]()
