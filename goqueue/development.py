"""The settings of a running `goqueue dev`, for programs and commands whose environment names no database.

`goqueue dev` keeps them in the file `environment` of its folder while it runs.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from goqueue import settings
from goqueue.errors import SettingsError
from goqueue.settings import DevSettings

FILE: Final = "environment"
"""The name of the file in the folder of `goqueue dev`."""

STORES: Final = ("POSTGRES_", "GOQUEUE_REDIS_")
"""How the variables start that name the stores. They go together, so those of the file replace the environment's."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def values() -> dict[str, str]:
    """What a running `goqueue dev` adds to the environment; see `find`."""
    _, found = find()
    return found


def find() -> tuple[Path | None, dict[str, str]]:
    """The folder of a running `goqueue dev`, and what it adds to the environment; None and nothing where that names any
    POSTGRES_*, or none runs.

    GOQUEUE_DEV_DIR (`.goqueue`) names its folder. A relative one is looked for in the current folder and in those above
    it.

    Raises:
        SettingsError: the file cannot be read or trusted.
    """
    if names_a_database():
        return None, {}
    for path in _candidates(settings.load(DevSettings).dir):
        if found := read(path):
            return path.parent, {
                name: value for name, value in found.items() if name.startswith(STORES) or name not in os.environ
            }
    return None, {}


def names_a_database() -> bool:
    """Whether any POSTGRES_* is set; settings are read in either case, so either case counts."""
    return any(name.upper().startswith("POSTGRES_") for name in os.environ)


def _candidates(folder: Path) -> Iterator[Path]:
    """Where the file may be, the nearest first. Above the current folder only files that `read` would trust count:
    what other users leave in a shared folder such as /tmp must not stop this one's programs."""
    yield folder / FILE
    if folder.is_absolute():
        return
    for above in Path.cwd().parents:
        path = above / folder / FILE
        try:
            found = path.stat()
        except OSError:
            continue
        if _is_own(found):
            yield path


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


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
    if not _is_own(found):
        raise SettingsError(f"{path} is not used: it must be your own, and writable by nobody else")
    found_values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise SettingsError(f"{path}: line {number} is not KEY=VALUE")
        found_values[name] = value
    return found_values
