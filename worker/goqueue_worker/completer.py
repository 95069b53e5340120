"""Ends of attempts on their way to PostgreSQL: alone at once, else with what gathers during a write and after it."""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import psycopg
import structlog

from goqueue import metrics
from goqueue.encryption import Keyring
from goqueue.errors import StoreUnavailable
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

log = structlog.get_logger(__name__)


class Completer:
    """Takes ends of attempts and writes them, in batches, until they are written.

    Never gives up: a failed write is repeated (ends are fenced by their lease, so twice is harmless).
    """

    def __init__(self, database: Database, written: Callable[[], None]) -> None:
        """`written` is called after each write: whoever waits for the backlog to shrink looks again."""
        self._database = database
        self._written = written
        self._waiting: deque[AttemptEnd] = deque()
        self._writing: list[AttemptEnd] = []
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
        self.recent.add(end)
        if len(self._waiting) >= ENOUGH:
            self._enough.set()

    @property
    def backlog(self) -> int:
        """Ends not yet written."""
        return len(self._waiting) + len(self._writing)

    @property
    def ids(self) -> Iterator[int]:
        """The jobs of these ends."""
        return (end.id for end in (*self._writing, *self._waiting))

    async def drained(self) -> None:
        """Wait until everything taken so far is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        delay = 0.05
        loop = asyncio.get_running_loop()
        written = loop.time() - GAP
        while True:
            await self._work.wait()
            early = written + GAP - loop.time()
            if early > 0 and len(self._waiting) < ENOUGH:
                self._enough.clear()
                await wait_at_most(self._enough, early)
            batch = self._take()
            self._writing = batch
            try:
                await self._write(batch)
                delay = 0.05
            except StoreUnavailable:
                self._waiting.extendleft(reversed(batch))
                log.warning("ends not written, trying again", ends=len(self._waiting), seconds=delay)
                await asyncio.sleep(delay)  # PostgreSQL gives no sign when it is back
                delay = min(delay * 2, 1.0)
            self._writing = []
            written = loop.time()
            self._written()
            if not self._waiting:
                self._work.clear()
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

    async def _write(self, batch: list[AttemptEnd]) -> None:
        done = [end for end in batch if end.outcome is Outcome.COMPLETED]
        other = [end for end in batch if end.outcome is not Outcome.COMPLETED]
        async with self._database.connection() as connection:
            if done:
                await self._write_or_split(connection, attempts.complete, done)
            if other:
                await self._write_or_split(connection, attempts.end_otherwise, other)

    async def _write_or_split(
        self,
        connection: Connection,
        write: Callable[[Connection, Sequence[AttemptEnd], Keyring | None], Awaitable[set[int]]],
        ends: list[AttemptEnd],
    ) -> None:
        """One end that PostgreSQL refuses must not hold up the others: halve until it stands alone, then fail it."""
        keyring = self._database.keyring
        try:
            ours = await write(connection, ends, keyring)
        except psycopg.errors.DeadlockDetected:
            ours = await write(connection, ends, keyring)
        except psycopg.errors.DuplicatePreparedStatement:  # says something about the connection, not about these ends
            raise
        except (psycopg.DataError, psycopg.ProgrammingError, UnicodeError) as error:
            if len(ends) == 1:
                text = f"the result could not be stored: {type(error).__name__}"
                refused = dataclasses.replace(ends[0], outcome=Outcome.FAILED, result=None, error=text)
                await attempts.end_otherwise(connection, [refused], keyring)
                return
            half = len(ends) // 2
            await self._write_or_split(connection, write, ends[:half])
            await self._write_or_split(connection, write, ends[half:])
            return
        if len(ours) < len(ends):
            self.stale += len(ends) - len(ours)
            metrics.STALE.inc(len(ends) - len(ours))
            lost = [end.id for end in ends if end.id not in ours]
            log.warning("lease lost, end not written", jobs=lost[:20], count=len(lost))
