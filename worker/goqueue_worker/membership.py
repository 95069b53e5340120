"""The worker's registration, which a process of its own renews (`heartbeat.py`): no handler can keep it from that, not
even one whose C call keeps the interpreter's lock.

The rescuer takes a worker for dead when its `beat` has not changed for a whole lease. So that no job runs twice, the
worker must give up first: once `FENCE_AT` of a lease has passed since the start of its last written heartbeat it
fences itself, i.e. stops what it runs and hands it back. What it then still writes is fenced by the jobs' leases.
"""

import contextlib
import math
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from goqueue import metrics
from goqueue.settings import EngineSettings
from goqueue.store import session, sql
from goqueue.store.connect import Hosts
from goqueue_worker.heartbeat import Board, Orders
from goqueue_worker.standing import Standing

FENCE_AT: Final = 0.7
"""Share of the lease after which a worker without a written heartbeat stops its jobs."""

STALLED_SECONDS: Final = 300.0
"""How long heartbeats go on for a worker whose interpreter runs and makes no step (one C call keeps its lock)."""

LEAVE_SECONDS: Final = 10.0
"""Longest wait for the process to deregister the worker."""

RESTART_SECONDS: Final = (0.2, 5.0)
"""Shortest and longest pause before the process is started anew; it doubles while no process joins or beats."""

_PROGRAM: Final = str(Path(__file__).with_name("heartbeat.py"))

log = structlog.get_logger(__name__)


class Membership:
    """Registers the worker and keeps it registered; the callbacks run in a thread.

    `on_fence` is called when the lease may be lost; `on_joined(worker_id)` when a (new) registration holds.
    """

    def __init__(
        self,
        dsn: str,
        engine: EngineSettings,
        name: str,
        queues: list[str],
        concurrency: int,
        standing: Callable[[], Standing],
        on_joined: Callable[[int], None],
        on_fence: Callable[[], None],
        pgbouncer: bool = False,
    ) -> None:
        self._dsn = dsn
        self._pgbouncer = pgbouncer
        self._lease = engine.lease_seconds
        self._interval = engine.heartbeat_seconds
        self._me = [name, queues, concurrency]
        self._standing = standing
        self._on_joined = on_joined
        self._on_fence = on_fence
        self._stop = threading.Event()
        self._wake, self._woken = -1, -1
        self._empty = True
        self._was_fenced = True
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._memory = -1
        self._board: Board | None = None
        self.worker_id: int | None = None
        self.process: int | None = None
        """Process id of the one that writes the heartbeats, while there is one."""

    def start(self) -> None:
        """Begin to register and beat."""
        self._woken, self._wake = os.pipe()
        self._memory = _shared_memory()
        self._board = Board(self._memory)
        self._thread.start()

    def leave(self, *, empty: bool) -> None:
        """Stop beating, and deregister if `empty`: a worker that leaves jobs behind is not forgotten but buried, when
        its lease is over, and its jobs are rescued then. Call it in a thread that may wait."""
        self._empty = empty
        self._stop.set()
        os.write(self._wake, b"!")
        self._thread.join()
        for descriptor in (self._wake, self._woken, self._memory):
            os.close(descriptor)

    @property
    def beaten_at(self) -> float:
        """`time.monotonic()` at the start of the last heartbeat that was written; 0.0 before the first."""
        return self._board.renewed_at(self.worker_id) if self._board is not None else 0.0

    @property
    def fenced(self) -> bool:
        """True while the worker must not run jobs."""
        return self.worker_id is None or time.monotonic() - self.beaten_at > FENCE_AT * self._lease

    @property
    def age(self) -> float:
        """Seconds since the last heartbeat that was written; NaN before the first."""
        beaten_at = self.beaten_at
        return time.monotonic() - beaten_at if beaten_at else math.nan

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause, longest = RESTART_SECONDS
        while not self._stop.is_set():
            before = self.beaten_at
            try:
                process = self._begin()
            except OSError as error:
                log.error("heartbeat process not started", error=str(error))
            else:
                with process:
                    self.process = process.pid
                    try:
                        self._serve(process)
                    except Exception:
                        log.exception("heartbeat failed, starting it anew")
                    finally:
                        self.process = None
                        process.kill()
            if not self._stop.is_set():
                self._fence_if_due()
                pause = min(2 * pause, longest) if self.beaten_at == before else RESTART_SECONDS[0]
                self._stop.wait(pause)

    def _begin(self) -> subprocess.Popen[bytes]:
        """Start the process. In a session of its own: Ctrl-C and signals to the worker's process group pass it by.

        Raises:
            OSError: the system starts no process.
        """
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._memory],
            start_new_session=True,
            bufsize=0,
        )
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _orders(self) -> tuple[Orders, float]:
        """What the process is told first, and how many seconds it may need for one try."""
        # Shorter than the time to the fence, so that a database that does not answer is noticed in time.
        limit = max(1, int(self._lease * FENCE_AT / 2))
        hosts = Hosts(self._dsn, limit)
        each = max(2, limit // hosts.count)
        orders = Orders(
            path=sys.path,
            parent=os.getpid(),
            board=self._memory,
            worker_id=self.worker_id,
            interval=self._interval,
            stalled=STALLED_SECONDS,
            conninfo=hosts.conninfo(),
            options={"connect_timeout": each, "tcp_user_timeout": limit * 1000},
            pgbouncer=self._pgbouncer,
            preambles=session.preambles(pgbouncer=self._pgbouncer, statement_timeout_ms=limit * 1000),
            register=sql.REGISTER_WORKER,
            heartbeat=sql.HEARTBEAT,
            deregister=sql.DEREGISTER_WORKER,
            me=self._me,
        )
        return orders, float(each * hosts.count + limit)

    def _serve(self, process: subprocess.Popen[bytes]) -> None:
        """Answer the process and hear what it has done, until it ends, hangs, or the worker leaves."""
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        assert process.stdout is not None  # noqa: S101 - as well
        orders, longest_try = self._orders()
        hangs_after = self._lease + longest_try
        pipe = _Lines(process.stdin.fileno(), process.stdout.fileno(), self._woken)
        pipe.say(orders)
        heard_at = time.monotonic()
        while not self._stop.is_set():
            lines = pipe.wait(self._until_fence(heard_at + hangs_after))
            if lines == []:
                lines = pipe.wait(0)  # this thread may have had to wait for its turn since
            if lines is None:
                log.error("heartbeat process ended, starting it anew", exit_code=process.wait())
                return
            if lines:
                heard_at = time.monotonic()
            for line in lines:
                self._heard(line, pipe)
            self._fence_if_due()
            if not lines and time.monotonic() - heard_at > hangs_after:
                log.error("heartbeat process hangs, starting it anew", silent_seconds=round(hangs_after, 1))
                return
        pipe.say({"leave": self._empty})
        deadline = time.monotonic() + (LEAVE_SECONDS if self.worker_id is not None else 1.0)
        while (left := deadline - time.monotonic()) > 0 and (lines := pipe.wait(left, wakeable=False)) is not None:
            for line in lines:
                self._heard(line, pipe)

    def _until_fence(self, latest: float) -> float:
        """Seconds until the worker has to fence itself, or until `latest`."""
        now = time.monotonic()
        fence = latest if self._was_fenced else self.beaten_at + FENCE_AT * self._lease
        return max(0.0, min(fence, latest) - now) + 0.01

    def _fence_if_due(self) -> None:
        if self.fenced and not self._was_fenced:
            self._was_fenced = True
            log.error("fenced: no heartbeat within the lease", lease_seconds=self._lease)
            self._on_fence()

    def _heard(self, line: str, pipe: "_Lines") -> None:
        verb, _, word = line.partition(" ")
        match verb:
            case "ask":
                now = self._standing()
                stats = orjson.dumps(now.stats).decode()
                pipe.say({"busy": now.busy, "draining": now.draining, "stats": stats})
            case "beat":
                metrics.HEARTBEATS.inc(1, "written")
                if self._was_fenced and self.worker_id is not None and not self.fenced:
                    self._was_fenced = False
                    self._on_joined(self.worker_id)
            case "joined":
                metrics.HEARTBEATS.inc(1, "written")
                self.worker_id = int(word)
                self._was_fenced = False
                self._on_joined(self.worker_id)
            case "dead":
                log.error("declared dead by the rescuer, registering anew", worker_id=self.worker_id)
                self.worker_id = None
                self._was_fenced = True
                self._on_fence()
            case "missed":
                log.warning("heartbeat not written", error=word)
                metrics.HEARTBEATS.inc(1, "missed")
            case "unforgotten":
                log.warning("could not deregister; the rescuer will", error=word)


class _Lines:
    """Lines to and from the process, without ever waiting for a process that does not read."""

    def __init__(self, into: int, out_of: int, woken: int) -> None:
        self._into, self._out_of, self._woken = into, out_of, woken
        self._unsent = b""
        self._unread = b""

    def say(self, what: Any) -> None:
        """Send a line of JSON, as soon as the pipe takes it."""
        self._unsent += orjson.dumps(what) + b"\n"
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            while self._unsent:
                self._unsent = self._unsent[os.write(self._into, self._unsent) :]

    def wait(self, seconds: float, *, wakeable: bool = True) -> list[str] | None:
        """The lines that came, as soon as there is one, and at the latest after `seconds`; None: the process ended."""
        poll = select.poll()  # not select(), which refuses large descriptors
        poll.register(self._out_of, select.POLLIN)
        if wakeable:
            poll.register(self._woken, select.POLLIN)
        if self._unsent:
            poll.register(self._into, select.POLLOUT)
        ready = dict(poll.poll(seconds * 1000))
        if self._into in ready:
            self._send()
        if self._out_of not in ready:
            return []
        data = os.read(self._out_of, 1 << 16)
        if not data:
            return None
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [line.decode() for line in lines]


def _shared_memory() -> int:
    """A descriptor of memory that a child process can share: it has no name and ends with the processes."""
    descriptor = -1
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a kernel or sandbox without it
            descriptor = os.memfd_create("goqueue-heartbeat")
    if descriptor < 0:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, Board.SIZE)
    return descriptor
