"""Folders of zone files, as a release of the zone database would bring them."""

import struct
from datetime import timedelta
from pathlib import Path


def write(folder: Path, name: str, offset: timedelta, release: str | None = None) -> Path:
    """Write a zone with one offset for all times, as TZif version 2 (RFC 9636); the folder."""
    header = struct.pack(">4sc15x6L", b"TZif", b"2", 0, 0, 0, 0, 1, 4)
    kind = struct.pack(">lbb", int(offset.total_seconds()), 0, 0) + b"TST\0"
    sign, rest = ("-" if offset >= timedelta(0) else "+"), abs(offset)
    hours, minutes = divmod(int(rest.total_seconds()) // 60, 60)
    footer = f"\n<TST>{sign}{hours}:{minutes:02}\n".encode()
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((header + kind) * 2 + footer)
    if release is not None:
        (folder / "tzdata.zi").write_text(f"# version {release}\n")
    return folder
