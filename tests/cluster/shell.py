"""Running programs: each with a limit, and with an error that says what was waited for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

Argv = Sequence[str | Path]


class ClusterError(RuntimeError):
    """Something the cluster needs did not come about; the message says what, and shows the end of its output."""


def say(text: str) -> None:
    """Tell a person what goes on, on standard error: standard output is for results."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)


def run(
    argv: Argv,
    *,
    what: str,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | IO[bytes] | None = None,
    quiet_errors: bool = False,
) -> str:
    """Run a program to its end and return its standard output.

    Args:
        what: Names the step in errors, e.g. "create the kind cluster".
        timeout: Seconds; then the program and all it started are killed.
        env: Variables beside those of this process.
        stdin: Bytes or an open file; nothing by default.
        quiet_errors: Keep standard error out of the error's message (where it may be huge).

    Raises:
        ClusterError: not found, failed or timed out.
    """
    __tracebackhide__ = True  # in a test's report the message says it all
    given, source = (stdin, None) if isinstance(stdin, bytes) else (None, stdin)
    try:
        process = subprocess.Popen(
            [str(part) for part in argv],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.PIPE if given is not None else (source or subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that a time-out reaches what the program started, too
        )
    except OSError as error:
        raise ClusterError(f"could not {what}: {error}") from error
    try:
        output, errors = process.communicate(given, timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        output, errors = process.communicate()
        raise ClusterError(_describe(what, argv, f"still running after {timeout:.0f} s", output, errors)) from None
    except BaseException:
        _kill_group(process)
        process.wait()
        raise
    if process.returncode:
        shown = b"" if quiet_errors else errors
        raise ClusterError(_describe(what, argv, f"exit code {process.returncode}", output, shown))
    return output.decode(errors="replace")


def succeeds(argv: Argv, *, timeout: float = 20, env: Mapping[str, str] | None = None) -> bool:
    """Whether a program ends well, for questions such as "does a Docker engine answer?"."""
    try:
        run(argv, what="ask", timeout=timeout, env=env)
    except ClusterError:
        return False
    return True


def wait_for(what: str, ready: Callable[[], bool], *, timeout: float, every: float = 0.5) -> None:
    """Ask until the answer is yes.

    Raises:
        ClusterError: not within `timeout` seconds; names `what`.
    """
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise ClusterError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(every)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _describe(what: str, argv: Argv, how: str, output: bytes, errors: bytes) -> str:
    told = (output[-2000:] + errors[-4000:]).decode(errors="replace").strip()
    command = " ".join(str(part) for part in argv)
    return f"could not {what} ({how}): {command[:300]}\n{told}"
