"""Kinds of values that the groups of settings share."""

import ipaddress
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h)$")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(value: Any) -> Any:
    """`2s`, `500ms`, `1m`, `1h` (Go's notation) or a plain number, as seconds."""
    match = _DURATION.match(value.strip()) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2]] if match else value


def networks(value: list[str]) -> list[str]:
    """The networks, unchanged.

    Raises:
        ValueError: one is none.
    """
    for network in value:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError("each must be a network in CIDR notation with no host bits set") from None
    return value


def each(pattern: str, wanted: str) -> AfterValidator:
    """Refuses a list with an item that is not wholly as the pattern says; `wanted` tells what each must be."""
    known = re.compile(pattern)

    def check(value: list[str]) -> list[str]:
        if not all(map(known.fullmatch, value)):
            raise ValueError(f"each must be {wanted}")
        return value

    return AfterValidator(check)


def is_secure(url: str) -> bool:
    """Whether what is read from this URL is the word of its host: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "http":
        return host in ("localhost", "127.0.0.1", "::1")
    return parts.scheme == "https" and bool(host)


def names(value: Any) -> Any:
    """A comma-separated list as a list of names."""
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, allow_inf_nan=False)]

Names = Annotated[list[str], NoDecode, BeforeValidator(names)]
Networks = Annotated[Names, AfterValidator(networks)]


class Group(BaseSettings):
    """The settings of one prefix."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, hide_input_in_errors=True)
