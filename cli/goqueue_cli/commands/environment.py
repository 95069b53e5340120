"""Which PostgreSQL and Redis a command talks to: those of the environment, or else those of a running `goqueue dev`."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from goqueue import settings
from goqueue.errors import SettingsError
from goqueue.settings import DevSettings
from goqueue_cli.dev.surroundings import forget_stores

FILE: Final = "environment"
"""The name of the file in the folder of `goqueue dev`."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def adopt() -> None:
    """Put the values of a running `goqueue dev` into this process's environment, where that names no POSTGRES_*.

    Its stores go together, so they replace even what the environment says of Redis, and of how libpq connects.

    Raises:
        SettingsError: the file cannot be read or trusted.
    """
    if names_a_database(os.environ):
        return
    if found := read(settings.load(DevSettings).dir / FILE):
        forget_stores(os.environ)
        os.environ.update(found)


def names_a_database(environment: Mapping[str, str]) -> bool:
    """Whether any POSTGRES_* is set; settings are read in either case, so either case counts."""
    return any(name.upper().startswith("POSTGRES_") for name in environment)


def read(path: Path) -> dict[str, str]:
    """The values in the file: KEY=VALUE lines; empty where there is no file.

    It says where payloads and passwords go, so it must be this user's own and writable by nobody else: commands may run
    in a folder like /tmp, where others could have left one.

    Raises:
        SettingsError: it cannot be read, is not this user's own, or holds another kind of line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(f"{path} is not used: it must be your own, and writable by nobody else")
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise SettingsError(f"{path}: line {number} is not KEY=VALUE")
        values[name] = value
    return values
