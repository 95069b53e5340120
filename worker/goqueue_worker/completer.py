"""Ends of attempts on their way to PostgreSQL: alone at once, else with what gathers during a write and after it."""

import asyncio
import dataclasses
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count
from typing import Final

import psycopg
import structlog

from goqueue import metrics
from goqueue.encryption import Keyring
from goqueue.errors import StoreUnavailable, UnfitDatabase
from goqueue.job import AttemptEnd, Outcome
from goqueue.store import attempts
from goqueue.store.connect import Connection, Database
from goqueue.tasks import wait_at_most
from goqueue_worker.recent import RecentEnds

BATCH: Final = 1_000
"""Ends in one statement."""

RESULTS: Final = 16_000_000
"""Characters of results in one statement. As `jsonb`, of which 256 MiB are allowed, they are seven times as large at
worst, as numbers of one digit are; and worker and PostgreSQL hold them in memory more than once."""

GAP: Final = 0.005
"""Seconds between two writes, the time in which ends gather; none where the last write is longer ago."""

ENOUGH: Final = 200
"""Ends that are worth a write at once."""

BACKLOG: Final = 5_000
"""Unwritten ends at which the worker stops fetching."""

REPEAT: Final = (0.05, 1.0)
"""First and longest pause, in seconds, before a write is repeated."""

Write = Callable[[Connection, Sequence[AttemptEnd], Keyring | None], Awaitable[set[int]]]

_CONTENDED: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

_ELSEWHERE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.InvalidSqlStatementName,
)
"""Errors that say something about the connection or the server, not about the ends that were to be written."""


def refused(error: BaseException) -> bool:
    """Whether PostgreSQL, or the way to it, does not take a value. Not so where it lacks a right or a table, or where
    somebody's trigger raises: that passes, and says nothing about the job."""
    if isinstance(error, psycopg.ProgrammingError):
        return error.sqlstate is None  # psycopg's own
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError | UnicodeError)


log = structlog.get_logger(__name__)


class Completer:
    """Takes ends of attempts and writes them, in batches, until they are written.

    Never gives up: a failed write is repeated (ends are fenced by their lease, so twice is harmless). An end that
    cannot be written holds up no other: it is set aside, and tried again by itself.
    """

    def __init__(self, database: Database, written: Callable[[], None]) -> None:
        """`written` is called after each write: whoever waits for the backlog to shrink looks again."""
        self._database = database
        self._written = written
        self._waiting: deque[AttemptEnd] = deque()
        self._parts: deque[Part] = deque()  # of what is being written
        self._aside: list[tuple[float, int, float, AttemptEnd]] = []  # heap: when to try again, order, pause, end
        self._pauses: dict[int, float] = {}  # of the ends from `_aside` that are being written, by job
        self._order = count()
        self._work = asyncio.Event()
        self._enough = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.recent = RecentEnds()
        self.stale = 0
        """Ends that came too late: their job had been given to somebody else."""

    def put(self, end: AttemptEnd) -> None:
        """Take an end; returns at once."""
        if not self._waiting:
            self._work.set()
            self._idle.clear()
        self._waiting.append(end)
        if len(self._waiting) >= ENOUGH:
            self._enough.set()

    @property
    def backlog(self) -> int:
        """Ends not yet written."""
        return len(self._waiting) + sum(len(part.ends) for part in self._parts) + len(self._aside)

    @property
    def ids(self) -> Iterator[int]:
        """The jobs of these ends."""
        for part in self._parts:
            yield from (end.id for end in part.ends)
        yield from (end.id for end in self._waiting)
        yield from (end.id for *_, end in self._aside)

    async def drained(self) -> None:
        """Wait until everything taken so far is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled.

        Raises:
            UnfitDatabase: no write can succeed, see `Database.connection`.
        """
        loop = asyncio.get_running_loop()
        delay, longest = REPEAT
        written = loop.time() - GAP
        while True:
            await wait_at_most(self._work, self._aside[0][0] - loop.time() if self._aside else None)
            early = written + GAP - loop.time()
            if early > 0 and len(self._waiting) < ENOUGH:
                self._enough.clear()
                await wait_at_most(self._enough, early)
            try:
                await self._write_some()
                delay = REPEAT[0]
            except UnfitDatabase:
                raise
            except Exception as error:
                self._put_back()
                tell = log.warning if isinstance(error, StoreUnavailable) else log.exception
                tell("ends not written, trying again", ends=self.backlog, seconds=delay)
                await asyncio.sleep(delay)  # PostgreSQL gives no sign when it is back
                delay = min(delay * 2, longest)
            self._pauses.clear()
            written = loop.time()
            self._written()
            if not self._waiting:
                self._work.clear()
                if not self._aside:
                    self._idle.set()

    def _take(self) -> list[AttemptEnd]:
        batch: list[AttemptEnd] = []
        room = RESULTS
        while self._waiting and len(batch) < BATCH and room > 0:
            end = self._waiting.popleft()
            batch.append(end)
            if end.result is not None:
                room -= len(end.result)
        return batch

    def _take_due(self) -> list[AttemptEnd]:
        """Ends that were set aside and are to be tried again now."""
        due: list[AttemptEnd] = []
        now = asyncio.get_running_loop().time()
        while self._aside and self._aside[0][0] <= now and len(due) < BATCH:
            _, _, pause, end = heapq.heappop(self._aside)
            self._pauses[end.id] = pause
            due.append(end)
        return due

    def _set_aside(self, ends: Sequence[AttemptEnd]) -> None:
        now = asyncio.get_running_loop().time()
        first, longest = REPEAT
        for end in ends:
            before = self._pauses.get(end.id)
            pause = first if before is None else min(before * 2, longest)
            heapq.heappush(self._aside, (now + pause, next(self._order), pause, end))
        if new := [end.id for end in ends if end.id not in self._pauses]:
            log.warning("ends cannot be written yet, trying again", jobs=new[:20], count=len(new))

    def _put_back(self) -> None:
        """What a failed write leaves waits again."""
        for part in reversed(self._parts):
            if part.careful:
                self._set_aside(part.ends)
            else:
                self._waiting.extendleft(reversed(part.ends))
        self._parts.clear()
        if self._waiting:
            self._work.set()

    async def _write_some(self) -> None:
        """Write what waits, and what is to be tried again."""
        self._parts.extend(_parts(self._take(), careful=False))
        self._parts.extend(_parts(self._take_due(), careful=True))
        if not self._parts:
            return
        async with self._database.connection() as connection:
            while self._parts:
                part = self._parts[0]
                await self._write(connection, part.write, part.ends, careful=part.careful)
                self._parts.popleft()

    async def _write(self, connection: Connection, write: Write, ends: Sequence[AttemptEnd], *, careful: bool) -> None:
        """One end that cannot be written must not hold up the others.

        Where a row stays locked, the write is repeated `careful`: without the rows that somebody has locked. What fails
        for another reason is halved until the end that is the cause stands alone.
        """
        try:
            if careful:
                async with connection.transaction():
                    locked = await attempts.locked(connection, [end.id for end in ends])
                    free = [end for end in ends if end.id not in locked]
                    ours = await write(connection, free, self._database.keyring) if free else set()
            else:
                locked, free = set(), list(ends)
                ours = await write(connection, ends, self._database.keyring)
        except _CONTENDED as error:
            if not careful:
                await self._write(connection, write, ends, careful=True)
            else:  # not by a row of `jobs`
                await self._halve(connection, write, ends, error)
        except _ELSEWHERE:
            raise
        except (psycopg.DatabaseError, UnicodeError) as error:
            await self._halve(connection, write, ends, error)
        else:
            self.recent.add(free)
            if locked:
                self._set_aside([end for end in ends if end.id in locked])
            if len(ours) < len(free):
                self._note_stale([end.id for end in free if end.id not in ours])

    async def _halve(
        self, connection: Connection, write: Write, ends: Sequence[AttemptEnd], error: BaseException
    ) -> None:
        if len(ends) > 1:
            half = len(ends) // 2
            for some in (ends[:half], ends[half:]):
                await self._write(connection, write, some, careful=True)
        elif not refused(error) or not await self._fail(connection, ends[0], error):
            self._set_aside(ends)

    async def _fail(self, connection: Connection, end: AttemptEnd, error: BaseException) -> bool:
        """End in `failed` what PostgreSQL refuses to take; False where it refuses that as well."""
        text = f"the result could not be stored: {type(error).__name__}"
        refused = dataclasses.replace(end, outcome=Outcome.FAILED, result=None, error=text)
        try:
            await attempts.end_otherwise(connection, [refused], self._database.keyring)
        except _ELSEWHERE:
            raise
        except (psycopg.DatabaseError, UnicodeError) as again:
            log.error("end refused", job_id=end.id, error=type(again).__name__)
            return False
        return True

    def _note_stale(self, jobs: Sequence[int]) -> None:
        self.stale += len(jobs)
        metrics.STALE.inc(len(jobs))
        log.warning("lease lost, end not written", jobs=jobs[:20], count=len(jobs))


@dataclasses.dataclass(slots=True)
class Part:
    """Ends that are written together; `careful`: see `Completer._write`."""

    write: Write
    ends: list[AttemptEnd]
    careful: bool


def _parts(ends: list[AttemptEnd], *, careful: bool) -> list[Part]:
    done = [end for end in ends if end.outcome is Outcome.COMPLETED]
    other = [end for end in ends if end.outcome is not Outcome.COMPLETED]
    parts = [Part(attempts.complete, done, careful), Part(attempts.end_otherwise, other, careful)]
    return [part for part in parts if part.ends]
