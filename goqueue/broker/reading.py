"""What is read from Redis. Other programs and later versions write there, too: a value that GoQueue does not understand
is dropped, told once, and never an error of whoever happens to read it."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import structlog

LARGEST: Final = 2**63 - 1
"""The largest id of a job, and the largest count."""

_NUMBER: Final = re.compile(rb"[0-9]{1,20}")

log = structlog.get_logger(__name__)


def number(text: bytes) -> int | None:
    """A whole number from 0 to `LARGEST` in decimal digits; None where it is none."""
    if _NUMBER.fullmatch(text) is None:
        return None
    found = int(text)
    return found if found <= LARGEST else None


def job_id(text: bytes) -> int | None:
    """The id of a job, as `member` writes it; None where it cannot be one."""
    return number(text) or None


def words(text: bytes) -> str:
    """Text, whatever bytes it is made of."""
    return text.decode(errors="replace")


class Reader:
    """Reads values for one process."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def dropped(self, where: str, value: bytes) -> None:
        """Tell of a value that is not understood, once for each place."""
        if where not in self._told:
            self._told.add(where)
            log.warning("unknown value in redis dropped", where=where, value=words(value[:60]))

    def counts(self, where: str, found: Mapping[bytes, bytes]) -> dict[str, int]:
        """A hash of counters."""
        counts = {}
        for name, value in found.items():
            if (count := number(value)) is None:
                self.dropped(where, value)
            else:
                counts[words(name)] = count
        return counts

    def runs(self, where: str, found: Iterable[bytes]) -> list[tuple[int, int]]:
        """Runs of ids, `FIRST-LAST` each."""
        runs = []
        for value in found:
            first, _, last = value.partition(b"-")
            ends = job_id(first), job_id(last)
            if ends[0] is None or ends[1] is None or ends[0] > ends[1]:
                self.dropped(where, value)
            else:
                runs.append((ends[0], ends[1]))
        return runs
