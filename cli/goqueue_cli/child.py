"""Child processes that end with their parent, however that ends, and are awaited, never slept for."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from goqueue_cli.keeper import LOOPBACK

# Asks the kernel to kill the process when the thread that started it (the parent's main thread) is gone, then becomes
# the command. A process of its own does this, not a hook between fork and exec: the parent may have threads.
_TIED = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class ChildError(Exception):
    """A process did not do what it was started for. The message has the end of its output."""


class Child:
    """One process, with its output in a file.

    Start it from the main thread: it is killed when the thread that started it ends. It has a session of its own, so a
    Ctrl-C reaches the parent alone, which then stops its children in order.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """
        Args:
            command: What to run.
            log: Gets standard output and error.
            environment: Added to this process's own.
            cwd: The folder to run in.
        """
        self.log = log
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-ISc", _TIED, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for the end; return the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after that many seconds.
        """
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End it and all of its process group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM, and after that many seconds SIGKILL; return the exit code."""
        if self.returncode is None:
            self.send(signal.SIGTERM)
            try:
                return self.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.wait()

    def wait_for_port(self, port: int, seconds: float = 45.0) -> None:
        """Wait until the process accepts connections on a port of the loopback address.

        Raises:
            ChildError: it ended, or did not listen within that many seconds; the message has its output.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.returncode is None:
            with contextlib.suppress(ConnectionError), socket.create_connection((LOOPBACK, port), timeout=1):
                return
            time.sleep(0.01)  # a refused connection answers at once: do not spin
        code = self.returncode
        what = f"nothing listens on port {port} after {seconds:g} s" if code is None else f"ended with exit code {code}"
        raise ChildError(f"{what}:\n{self.log.read_text(errors='replace')[-4000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
