"""`python -m goqueue_worker.isolated`: runs one attempt for a worker and ends. What it speaks with the worker over
standard input and output is told in `goqueue_worker.isolation`."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
from typing import Any, BinaryIO, Final, NoReturn

import orjson

from goqueue import encryption, logs, registry, settings, tracing
from goqueue.builtin import PROCESS_PAYMENT, SEND_EMAIL, SEND_WEBHOOK
from goqueue.job import ClaimedJob
from goqueue.registry import REGISTRY
from goqueue.retry import RetryPolicy
from goqueue.settings import DatabaseSettings, EncryptionSettings, EngineSettings, PostgresSettings
from goqueue.store.connect import Database, dsn
from goqueue_worker import handlers
from goqueue_worker.attempt import Deferred, RunningAttempt, Stop, run
from goqueue_worker.reports import MAX_LOG_LENGTH, Reports
from goqueue_worker.threads import Threads

_PR_SET_PDEATHSIG: Final = 1


class Frames:
    """Lines of JSON to the worker, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._writing = threading.Lock()

    def send(self, **frame: Any) -> None:
        """Write one line. A worker that is gone hears nothing; this process ends with it."""
        line = orjson.dumps(frame) + b"\n"
        with self._writing, contextlib.suppress(BrokenPipeError):
            while line:
                line = line[self._file.write(line) :]


class IsolatedAttempt(RunningAttempt):
    """An attempt that reports to the worker at once, since its process may end with the next step."""

    def __init__(self, frames: Frames, job: ClaimedJob, timeout: float, policy: RetryPolicy) -> None:
        super().__init__(job, timeout, Reports(), policy)
        self._frames = frames

    def progress(self, fraction: float) -> None:
        """Report progress between 0 and 1."""
        super().progress(fraction)
        self._reports.take()
        if not self.over:
            self._frames.send(progress=self.reported)

    def log(self, message: str, level: str = "info") -> None:
        """Keep a line with the job."""
        super().log(message, level)
        self._reports.take()
        if not self.over:
            text = str(message)[: MAX_LOG_LENGTH + 1].encode(errors="replace").decode()
            self._frames.send(log=[text, level])


def tie(parent: int) -> None:
    """Let this process end with the worker, and let the kernel choose it before the worker where memory runs out.

    Source: prctl(2), proc(5).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    if os.getppid() != parent:
        sys.exit(1)


def leave() -> NoReturn:
    """End at once, whatever still runs here."""
    tracing.end()
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(0)


async def attempt(order: dict[str, Any], orders: BinaryIO, frames: Frames) -> None:
    """Run the attempt and tell its end."""
    job = ClaimedJob(**order["job"])
    kind = REGISTRY.get(job.type)
    running = IsolatedAttempt(frames, job, order["timeout"], RetryPolicy(**order["policy"]))
    running.deadline = float("inf")  # the worker has an eye on it
    running.task = asyncio.current_task()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        for line in orders:
            loop.call_soon_threadsafe(running.interrupt, Stop(line.strip().decode()))
        os._exit(1)  # the worker is gone

    threading.Thread(target=listen, name="orders", daemon=True).start()
    await _prepare(job)
    logs.JOB.set(running)
    if tracing.on is not None and job.trace_context is not None:
        from opentelemetry import context

        from goqueue import spans

        if (parent := spans.below(job.trace_context)) is not None:
            context.attach(parent)
    keyring = encryption.load(settings.load(EncryptionSettings))
    frames.send(begun=True)
    running.begin()
    try:
        end = await run(running, kind, running.policy, Threads(1), keyring)
    except Deferred as why:
        frames.send(deferred={"error": why.error, "endless": why.endless})
        return
    running.over = True
    failure = type(running.failure).__name__ if running.failure is not None else None
    told = {"outcome": end.outcome, "result": end.result, "error": end.error, "delay": end.delay, "failure": failure}
    frames.send(end=told)


async def _prepare(job: ClaimedJob) -> None:
    """Give the built-in types their functions, and what these need of the database."""
    installed = handlers.install()
    if job.type in (SEND_EMAIL.name, SEND_WEBHOOK.name, PROCESS_PAYMENT.name):
        chosen = settings.load(DatabaseSettings)
        database = Database(dsn(settings.load(PostgresSettings), chosen), chosen, maximum=1)
        await database.open(chosen)
        await installed.attach(database)


def main() -> None:
    """Become the process of one attempt."""
    # What a handler prints goes where the worker's own output goes, and what it reads is nothing.
    orders, frames = os.fdopen(os.dup(0), "rb"), Frames(os.dup(1))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    order = orjson.loads(orders.readline())
    tie(order["parent"])
    sys.path[:] = order["path"]
    engine = settings.load(EngineSettings)
    logs.configure(engine, process="worker")
    registry.load(engine.jobs)
    tracing.begin("worker")

    async def work() -> NoReturn:
        await attempt(order, orders, frames)
        leave()  # within the loop, whose end would wait for tasks and threads

    import uvloop

    uvloop.run(work())


if __name__ == "__main__":
    main()
