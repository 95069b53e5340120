"""The process that writes a worker's heartbeats, so that nothing a handler does to the interpreter can silence them.

The worker starts it by its path and with `-I -S`, so neither the environment's start-up hooks nor the rest of GoQueue
are imported: it needs psycopg and the standard library alone, and is ready in a fraction of a second.

Lines go over two pipes. The worker writes one line of JSON with all that the process needs (`Orders`), which includes
the connection string: it is never on a command line or in the environment. Then:

    process -> worker   ask                 a heartbeat is due
    worker  -> process  {"busy": …}         what to write with it; proves that the worker's interpreter makes steps
    process -> worker   trying              a heartbeat is begun; `beat`, `missed CLASS`, `dead` or `joined ID` follows
    worker  -> process  {"leave": true}     deregister the worker if true, and end

When the last heartbeat began is in shared memory (`Board`), where the worker's threads read it without having to wait
for a line. Both processes read the same clock: CLOCK_MONOTONIC is one for all processes of a machine.
"""

import ctypes
import json
import mmap
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypedDict

if TYPE_CHECKING:
    import psycopg

ANSWER_SECONDS: Final = 0.1
"""How long the process waits for what to write before it writes what it was told last."""

PARENT_SECONDS: Final = 1.0
"""Seconds between two looks whether the worker is still the parent, where neither pipe nor kernel say so."""

RETRY_SECONDS: Final = 0.5
"""Longest pause after a heartbeat that could not be written."""

_IN, _OUT = 0, 1


class Orders(TypedDict):
    """The first line: what the process needs to know. Durations in seconds."""

    path: list[str]
    parent: int
    board: int
    worker_id: int | None
    interval: float
    stalled: float
    conninfo: str
    options: dict[str, Any]
    pgbouncer: bool
    preambles: list[tuple[int, str]]
    register: str
    heartbeat: str
    deregister: str
    me: list[Any]


class Board:
    """Shared memory of the two processes: which registration was last renewed, and when the write of it began.

    Each of the two values is an aligned word, which is written and read whole. For two that belong together the
    writer takes the time away before it changes the id, and the reader reads the time first.
    """

    SIZE: Final = 16

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self.SIZE)
        whole = memoryview(self._memory)
        self._time = whole[:8].cast("d")
        self._id = whole[8:].cast("q")

    def renewed(self, worker_id: int, at: float) -> None:
        """Note a heartbeat that began at `at` (`time.monotonic()`) and was written."""
        if self._id[0] != worker_id:
            self._time[0] = 0.0
            self._id[0] = worker_id
        self._time[0] = at

    def lost(self) -> None:
        """Note that no registration holds."""
        self._time[0] = 0.0

    def renewed_at(self, worker_id: int | None) -> float:
        """When the last written heartbeat of this registration began (`time.monotonic()`); 0.0 if there is none."""
        at = self._time[0]
        return at if self._id[0] == worker_id else 0.0


def frozen(process: int) -> bool:
    """Whether a process is stopped (SIGSTOP, a debugger) or dead, so that none of its threads can make a step. False
    where that cannot be told.

    Source: proc_pid_stat(5), ps(1).
    """
    if sys.platform == "linux":
        try:
            if os.readlink("/proc/self") != str(os.getpid()):
                return False  # it shows the processes of another namespace
            with open(f"/proc/{process}/stat", "rb") as file:
                state = file.read().rpartition(b") ")[2][:1].decode()
        except OSError:
            return False
    else:
        import subprocess

        command = ["ps", "-o", "state=", "-p", str(process)]
        state = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout.decode()[:1]
    return state != "" and state in "TtZX"


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends, where it can be asked (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)


class Heart:
    """Registers the worker and writes its heartbeats until the worker leaves or is gone."""

    def __init__(self, orders: Orders, rest: bytes = b"") -> None:
        self._orders = orders
        self._board = Board(orders["board"])
        self._worker_id = orders["worker_id"]
        self._connection: psycopg.Connection[Any] | None = None
        self._unread = rest
        self._standing: dict[str, Any] = {"busy": 0, "draining": False, "stats": "{}"}
        self._asked = False
        self._step_at = time.monotonic()  # when the worker's interpreter last made a step

    def run(self) -> NoReturn:
        """Beat until the worker leaves or is gone."""
        due = time.monotonic()
        while True:
            self._listen(min(max(0.0, due - time.monotonic()), PARENT_SECONDS))
            if time.monotonic() < due:
                continue
            self._ask()
            started = time.monotonic()
            pause = self._orders["interval"]
            if self._may_beat(started) and not self._beat(started):
                pause = min(pause, RETRY_SECONDS)
            due = started + pause

    def _ask(self) -> None:
        """Ask for the worker's present standing and wait a moment for it. One question at a time: the pipe of a
        worker that does not answer must not fill."""
        if not self._asked:
            self._asked = True
            self._tell("ask")
        until = time.monotonic() + ANSWER_SECONDS
        while self._asked and (left := until - time.monotonic()) > 0:
            self._listen(left)

    def _may_beat(self, now: float) -> bool:
        """Whether the worker lives: a process that is stopped does not, nor one that makes no step for too long."""
        return not frozen(self._orders["parent"]) and now - self._step_at < self._orders["stalled"]

    def _beat(self, started: float) -> bool:
        import psycopg

        self._tell("trying")
        try:
            said = self._written(started)
        except (psycopg.Error, OSError) as error:
            if not isinstance(error, psycopg.errors.LockNotAvailable):  # whose connection is sound
                self._hang_up()
            self._tell(f"missed {type(error).__name__}")
            return False
        self._tell(said)
        return True

    def _written(self, started: float) -> str:
        if self._connection is None:
            self._connection = self._connect()
        if self._worker_id is not None:
            values = {"worker": self._worker_id, "name": self._orders["me"][0], **self._standing}
            if self._connection.execute(self._orders["heartbeat"].encode(), values).fetchone() is not None:
                self._board.renewed(self._worker_id, started)
                return "beat"
            self._board.lost()
            self._worker_id = None
            self._tell("dead")
        row = self._connection.execute(self._orders["register"].encode(), self._orders["me"]).fetchone()
        assert row is not None  # noqa: S101 - INSERT … RETURNING
        self._worker_id = int(row[0])
        self._board.renewed(self._worker_id, started)
        return f"joined {self._worker_id}"

    def _connect(self) -> "psycopg.Connection[Any]":
        import psycopg

        connection = psycopg.connect(self._orders["conninfo"], autocommit=True, **self._orders["options"])
        if self._orders["pgbouncer"]:
            connection.prepare_threshold = None
        version = connection.info.server_version
        preamble = [text for since, text in self._orders["preambles"] if since <= version][-1]
        connection.execute(preamble.encode(), prepare=False)
        return connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _listen(self, seconds: float) -> None:
        """Take in what the worker says within `seconds`; end if it is gone."""
        if os.getppid() != self._orders["parent"]:
            os._exit(0)  # a process that a handler forked may keep the pipe open
        poll = select.poll()
        poll.register(_IN, select.POLLIN)
        if b"\n" not in self._unread and poll.poll(seconds * 1000):
            data = os.read(_IN, 1 << 16)
            if not data:
                os._exit(0)
            self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "leave" in said:
                self._leave(deregister=said["leave"])
            self._standing = said
            self._asked = False
            self._step_at = time.monotonic()

    def _leave(self, *, deregister: bool) -> NoReturn:
        import psycopg

        try:
            if deregister and self._worker_id is not None and self._connection is not None:
                self._connection.execute(self._orders["deregister"].encode(), (self._worker_id,))
                self._tell("left")
        except psycopg.Error as error:
            self._tell(f"unforgotten {type(error).__name__}")
        self._hang_up()
        os._exit(0)

    def _tell(self, line: str) -> None:
        try:
            os.write(_OUT, line.encode() + b"\n")
        except BrokenPipeError:
            os._exit(0)


def main() -> NoReturn:
    """Read the orders and carry them out. The worker says when it is over, not a signal to the process group: the
    heartbeat goes on while the worker drains."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    unread = b""
    while b"\n" not in unread:
        data = os.read(_IN, 1 << 16)
        if not data:
            os._exit(0)
        unread += data
    line, _, rest = unread.partition(b"\n")
    orders: Orders = json.loads(line)
    sys.path[:] = orders["path"]
    Heart(orders, rest).run()


if __name__ == "__main__":
    main()
