"""Runs a suspect, a job whose workers died again and again, in a process of its own.

If the job is the cause, it ends that process and not the worker with all its other jobs; the attempt fails like any
other, and says how the process ended. The process (`goqueue_worker.isolated`) gets the job over a pipe as a line of
JSON, and answers with lines of JSON:

    worker  -> process  {"job": {…}, …}     the job, and what surrounds it
    process -> worker   {"begun": true}     its modules are imported, the attempt's time begins
    process -> worker   {"progress": 0.5}   {"log": ["line", "info"]}   as the handler reports them
    worker  -> process  cancel              or timeout, hand_back: the handler is to stop
    process -> worker   {"end": {…}}        or {"deferred": {…}}, see `attempt.run`

The end of the pipe tells the process that the worker is gone; on Linux the kernel kills it then.
"""

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from typing import Any, Final

import orjson
import structlog

from goqueue import metrics, tracing
from goqueue.job import AttemptEnd, Outcome
from goqueue_worker.attempt import Deferred, RunningAttempt, Stop, failed, interrupted

SUSPECT: Final = 2
"""Deaths of workers from which on a job is a suspect."""

START_SECONDS: Final = 60.0
"""How long the process may take to import the job types."""

STOP_SECONDS: Final = {Stop.TIMEOUT: 4.0, Stop.CANCEL: 4.0, Stop.HAND_BACK: 1.0}
"""How long a handler that is told to stop has until its process is killed."""

EXIT_SECONDS: Final = 6.0
"""How long the process may take to end after the attempt: it exports its spans."""

PAUSE: Final = (1.0, 4.0)
"""Bounds of the time, in seconds, after which a suspect comes back that found no place."""

_LONGEST_LINE: Final = 4 * 1024 * 1024
"""Bytes; a result has 256 KiB, as JSON within JSON up to six times as much."""

_TURN: Final = 100
"""Lines that are read before the event loop gets its turn."""

log = structlog.get_logger(__name__)


class Isolation:
    """Processes of suspects, at most `most` at a time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.command = [sys.executable, "-m", "goqueue_worker.isolated"]
        self._busy = 0
        self._reaping: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """Processes that run now."""
        return self._busy

    async def run(self, running: RunningAttempt) -> AttemptEnd:
        """Run the attempt to its end, whatever that is. Where no place is free the job goes back uncharged.

        Raises:
            Deferred: see `attempt.run`.
        """
        if self._busy >= self.most:
            return handed_back(
                running, "all processes for jobs that workers have died of are busy (GOQUEUE_WORKER_ISOLATED)"
            )
        self._busy += 1
        running.wait(START_SECONDS)
        attempt = _Isolated(running, self.command)
        talking = asyncio.create_task(attempt.talk())
        try:
            return await asyncio.shield(talking)
        except asyncio.CancelledError:
            return await attempt.stop(talking)
        finally:
            self._reap(attempt, talking)

    def _reap(self, attempt: "_Isolated", talking: "asyncio.Task[AttemptEnd]") -> None:
        """See the process end; only then its place is free."""

        async def reap() -> None:
            try:
                await asyncio.wait({talking}, timeout=EXIT_SECONDS)
                talking.cancel()
                await attempt.ended()
            finally:
                self._busy -= 1

        reaping = asyncio.create_task(reap())
        self._reaping.add(reaping)
        reaping.add_done_callback(self._reaping.discard)


def handed_back(running: RunningAttempt, reason: str) -> AttemptEnd:
    """The end of an attempt that could not begin here; it costs the job nothing but some seconds."""
    running.begun = False
    delay = random.uniform(*PAUSE)  # noqa: S311 - jitter, not a secret
    job = running.job
    return AttemptEnd(job.id, job.lease, Outcome.HANDED_BACK, error=f"handed back: {reason}", delay=delay)


class _Isolated:
    """One attempt in a process of its own."""

    def __init__(self, running: RunningAttempt, command: list[str]) -> None:
        self._running = running
        self._command = command
        self._process: Process | None = None
        # Of the attempt's span where there is one, so that what the process does is below it.
        self._trace = " ".join(tracing.headers(running.job.trace_context).values()) or None

    async def talk(self) -> AttemptEnd:
        """Start the process and listen to it until it tells the end of the attempt, or is gone."""
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE, start_new_session=True
            )
        except OSError as error:  # too many processes, or no memory: not by this job
            return handed_back(self._running, f"no process could be started: {error.strerror}")
        self._write(orjson.dumps(self._order()))
        with contextlib.suppress(ValueError):  # a line that is too long is none of the process's own
            if (frame := await self._listen(process)) is not None:
                return self._end(frame)
        self._kill()
        code = await process.wait()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        metrics.ISOLATED.inc(1, "died")
        if self._running.stop is not None:
            return interrupted(self._running, self._running.policy)
        log.warning("process of a job ended", job_id=self._running.job.id, type=self._running.job.type, how=how)
        return failed(self._running.job, f"its process ended {how}", None, self._running.policy)

    def _order(self) -> dict[str, Any]:
        job = self._running.job
        return {
            "job": dataclasses.asdict(job) | {"trace_context": self._trace},
            "timeout": self._running.timeout,
            "policy": dataclasses.asdict(self._running.policy),
            "parent": os.getpid(),
            "path": sys.path,
        }

    async def _listen(self, process: Process) -> dict[str, Any] | None:
        """The frame that tells the end; None where the process is gone without one."""
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        lines = 0
        while line := await process.stdout.readline():
            lines += 1
            if lines % _TURN == 0:
                await asyncio.sleep(0)
            frame = orjson.loads(line) if line.endswith(b"\n") else {}
            if "end" in frame or "deferred" in frame:
                return dict(frame)
            if "begun" in frame and self._running.stop is None:
                self._running.begin()
            if "progress" in frame:
                self._running.progress(frame["progress"])
            if "log" in frame:
                self._running.log(*frame["log"])
        return None

    def _end(self, frame: dict[str, Any]) -> AttemptEnd:
        metrics.ISOLATED.inc(1, "ended")
        job = self._running.job
        if (why := frame.get("deferred")) is not None:
            raise Deferred(why["error"], endless=why["endless"])
        end = frame["end"]
        if end["failure"] is not None:
            # The exception itself stays in the process; logs and spans name its class.
            self._running.failure = type(end["failure"], (Exception,), {})()
        return AttemptEnd(job.id, job.lease, Outcome(end["outcome"]), end["result"], end["error"], end["delay"])

    async def stop(self, talking: "asyncio.Task[AttemptEnd]") -> AttemptEnd:
        """Tell the handler to stop; kill its process where it does not."""
        running = self._running
        reason = running.stop or Stop.HAND_BACK
        running.deadline = time.monotonic() + 2 * max(STOP_SECONDS.values())
        self._write(reason.value.encode())
        await asyncio.wait({talking}, timeout=STOP_SECONDS[reason])
        if not talking.done():
            self._kill()
            await asyncio.wait({talking}, timeout=1.0)
        if talking.done() and not talking.cancelled() and talking.exception() is None:
            return talking.result()
        return interrupted(running, running.policy)

    def _write(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line + b"\n")

    def _kill(self) -> None:
        """End the process, and what it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """Return when the process is gone; kill it where it does not go."""
        if self._process is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), EXIT_SECONDS)
            return
        self._kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), EXIT_SECONDS)
