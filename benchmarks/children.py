"""Processes that the runner starts: each in a group of its own, bounded in time, none left behind."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
"""Where drivers run: the checkout, so that `-m benchmarks.peers.…` finds them."""


class DriverFailed(Exception):
    """A driver ended badly or did not answer in time."""

    def __repr__(self) -> str:
        return str(self)


class Child:
    """One process with its descendants."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.command = list(command)
        self._log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def expect(self, line: str, seconds: float) -> None:
        """Read the child's output until a line is `line`.

        Raises:
            DriverFailed: the child ended, or `seconds` passed without that line.
        """
        output = self.process.stdout
        assert output is not None
        until = time.monotonic() + seconds
        buffer = b""
        while (left := until - time.monotonic()) > 0:
            if not select.select([output], [], [], left)[0]:
                break
            if not (chunk := os.read(output.fileno(), 65536)):
                break
            buffer += chunk
            if line.encode() in (part.strip() for part in buffer.split(b"\n")):
                return
        raise DriverFailed(f"no {line!r} from `{' '.join(self.command)}`:\n{self._tail()}")

    def go(self) -> None:
        """Let the child, which waits for a line, begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def wait(self, seconds: float) -> None:
        """Wait for a good end.

        Raises:
            DriverFailed: it ended badly or is still running after `seconds`.
        """
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise DriverFailed(f"`{' '.join(self.command)}` runs longer than {seconds:.0f} s") from None
        if code:
            raise DriverFailed(f"`{' '.join(self.command)}` ended with {code}:\n{self._tail()}")

    def alive(self) -> None:
        """Raise DriverFailed if the child has ended."""
        if self.process.poll() is not None:
            raise DriverFailed(f"`{' '.join(self.command)}` ended:\n{self._tail()}")

    def stop(self, grace: float = 5.0) -> None:
        """End the whole group: SIGTERM, and SIGKILL where that was not heard."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self._signal(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def descendants(pid: int) -> Iterator[int]:
    """`pid` and every process below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    pending = [pid]
    while pending:
        yield (current := pending.pop())
        pending += children.get(current, [])


def cpu_seconds(pid: int) -> float:
    """CPU used by a process, its living descendants, and its ended children that it waited for."""
    ticks = 0
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, pages they share counted once."""
    kib = 0
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
    return kib * 1024
