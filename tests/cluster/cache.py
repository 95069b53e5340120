"""What is built once per machine: kept by name and by a hash of all that went into it."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.cluster.shell import say

KEPT = 2
"""Entries per name: the newest and the one before, so that going back one commit costs nothing."""


def cache_dir() -> Path:
    """`$GOQUEUE_CACHE_DIR`, else `goqueue` in the user's cache folder; the cluster's part of it."""
    chosen = os.environ.get("GOQUEUE_CACHE_DIR")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "goqueue"
    return base / "cluster"


def hash_of(*inputs: str | Path | Iterable[Path]) -> str:
    """A key: the hash of texts and of files (a folder counts with all files below it)."""
    total = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            total.update(f"text {item}\0".encode())
            continue
        roots = [item] if isinstance(item, Path) else sorted(item)
        for root in roots:
            files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
            for file in files:
                name = file.name if file == root else str(file.relative_to(root))
                total.update(f"file {name} {file.stat().st_mode & 0o111}\0".encode() + file.read_bytes())
    return total.hexdigest()[:16]


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time; a second caller waits, and is told so."""
    path = cache_dir() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process works on {name}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder of an entry, made now if this machine has none of that key.

    `make` fills an empty folder, which becomes the entry only after `make` returned: a build that is interrupted
    leaves nothing that looks finished.
    """
    entry = cache_dir() / f"{name}-{key}"
    if _use(entry):
        return entry
    with locked(name):
        if _use(entry):
            return entry
        began = time.monotonic()
        say(f"building {name} ...")
        for left_over in entry.parent.glob(f".making-{name}-*"):  # of a build that was killed; we hold the lock
            shutil.rmtree(left_over, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".making-{name}-"))
        try:
            partial.chmod(0o755)
            make(partial)
            partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        say(f"built {name} in {time.monotonic() - began:.0f} s")
        _forget_old(name, entry)
    return entry


def _use(entry: Path) -> bool:
    if not entry.is_dir():
        return False
    os.utime(entry)
    return True


def _forget_old(name: str, newest: Path) -> None:
    found = [path for path in newest.parent.glob(f"{name}-*") if len(path.name) == len(newest.name) and path.is_dir()]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
