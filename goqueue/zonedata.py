"""Time zone data: the release that the installed `tzdata` package brings, on every machine.

`zoneinfo.ZoneInfo(name)` prefers the system's files (`/usr/share/zoneinfo`) to the package. Two images would then
compute two fire times for one schedule, and an old system package would hide the newer release of the locked one.
Zones are therefore read from the package, and kept here: Python's own cache may hold zones that other code of the
process has read from the system. `PYTHONTZPATH`, where set, is honoured as an explicit choice: its folders come first.
"""

import os
from contextlib import suppress
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import tzdata  # type: ignore[import-untyped]

PATH_VARIABLE: Final = "PYTHONTZPATH"
"""Folders of compiled zone files (TZif, RFC 9636), separated by colons; only absolute ones count, as in `zoneinfo`."""


@cache
def zone(name: str) -> ZoneInfo:
    """The zone of that IANA name.

    Raises:
        KeyError: there is none.
    """
    if not _is_name(name):
        raise KeyError(name)
    for folder in _folders():
        with suppress(OSError, ValueError):  # not there; or no name of a file at all
            return _read((folder / name).read_bytes(), name)
    if name not in _package_names():
        raise KeyError(name)
    return _read(files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes(), name)


def release() -> str:
    """The release of the zone database in use, such as `2026f`, and where it comes from."""
    packaged = f"{tzdata.IANA_VERSION} (package tzdata {tzdata.__version__})"
    folders = [f"{_release_in(folder)} ({folder})" for folder in _folders()]
    return ", then ".join([*folders, packaged])


def _folders() -> list[Path]:
    given = os.environ.get(PATH_VARIABLE, "").split(os.pathsep)
    return [Path(folder) for folder in given if os.path.isabs(folder)]


def _release_in(folder: Path) -> str:
    """What `tzdata.zi` (Debian, Alpine) or `+VERSION` (BSD, macOS) says; files made by `zic` alone do not say it."""
    try:
        with (folder / "tzdata.zi").open() as lines:
            return lines.readline().removeprefix("# version ").strip()
    except OSError:
        pass
    try:
        return (folder / "+VERSION").read_text().strip()
    except OSError:
        return "unknown release"


def _is_name(name: str) -> bool:
    """Whether a name stays within its folder."""
    return all(part not in ("", ".", "..") for part in name.split("/"))


@cache
def _package_names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text().split())


def _read(content: bytes, name: str) -> ZoneInfo:
    try:
        return ZoneInfo.from_file(BytesIO(content), key=name)
    except ValueError:  # a file that is no zone: tzdata.zi, zone.tab
        raise KeyError(name) from None
