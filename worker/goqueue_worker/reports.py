"""What handlers report while they run, progress and log lines, on its way to PostgreSQL."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import psycopg
import structlog

from goqueue.errors import GoQueueError
from goqueue.job import ClaimedJob, LogLine
from goqueue.jsontext import storable
from goqueue.store import attempts
from goqueue.store.connect import Database

FLUSH_SECONDS: Final = 0.5

MAX_LOG_LENGTH: Final = 4_000
"""Characters of a log line that are kept."""

BUFFER_LINES: Final = 10_000
"""Log lines of all attempts that wait to be written, at most."""

BUFFER_BYTES: Final = 8 * 2**20
"""Their text in UTF-8, at most."""

log = structlog.get_logger(__name__)


class AttemptLog:
    """How much one attempt has logged."""

    __slots__ = ("bytes", "dropped", "full", "lines")

    def __init__(self) -> None:
        self.lines = self.bytes = self.dropped = 0
        self.full = False


class Reports:
    """What handlers reported since the last flush. Appending is safe from any thread.

    A handler that logs in a loop must not fill the memory of the worker nor the database: beyond the limits of its
    attempt, and while too much waits to be written, its lines are counted and dropped. Of progress only the last of
    each job waits.
    """

    def __init__(self, attempt_lines: int = 1_000, attempt_bytes: int = 2**20) -> None:
        """Limits of one attempt's log: lines, and bytes of text in UTF-8."""
        self.progress: dict[int, tuple[int, float]] = {}
        self.logs: list[LogLine] = []
        self._waiting_bytes = 0
        self._attempt_lines = attempt_lines
        self._attempt_bytes = attempt_bytes
        self._flushing = asyncio.Lock()

    def take(self) -> tuple[list[tuple[int, int, float]], list[LogLine]]:
        """Empty the buffers and return them: progress as (job, lease, fraction), and log lines."""
        progress, self.progress = self.progress, {}
        logs, self.logs, self._waiting_bytes = self.logs, [], 0
        return [(job, lease, fraction) for job, (lease, fraction) in sorted(progress.items())], logs

    def add_line(self, kept: AttemptLog, job: ClaimedJob, level: str, message: str) -> None:
        """Keep a log line, or drop it where a limit is reached."""
        if kept.full or len(self.logs) >= BUFFER_LINES or self._waiting_bytes >= BUFFER_BYTES:
            kept.dropped += 1
            return
        line = storable(message, MAX_LOG_LENGTH)
        size = len(line.encode())
        if kept.lines >= self._attempt_lines or kept.bytes + size > self._attempt_bytes:
            kept.full = True
            kept.dropped += 1
            return
        kept.lines += 1
        kept.bytes += size
        self._waiting_bytes += size
        self.logs.append(LogLine(job.id, job.created, job.attempt, level, line, datetime.now(UTC)))

    def end_log(self, kept: AttemptLog, job: ClaimedJob) -> None:
        """Say in a last line how many lines of the attempt were dropped, if any were."""
        if kept.dropped:
            line = f"{kept.dropped} log {'line' if kept.dropped == 1 else 'lines'} dropped"
            self.logs.append(LogLine(job.id, job.created, job.attempt, "warning", line, datetime.now(UTC)))

    def forget(self, job: int, lease: int) -> None:
        """Do not write the progress of this attempt: its end is written with it."""
        if self.progress.get(job, (None,))[0] == lease:
            self.progress.pop(job, None)

    async def flush(self, database: Database) -> None:
        """Write what gathered; lost where PostgreSQL is away or refuses it, since a job must not wait for its reports.

        When it returns, a flush that was under way when it was called has ended as well.
        """
        async with self._flushing:
            progress, lines = self.take()
            if not progress and not lines:
                return
            try:
                async with database.connection() as connection:
                    if progress:
                        await attempts.save_progress(connection, progress)
                    if lines:
                        await attempts.save_logs(connection, lines, database.keyring)
            except (GoQueueError, psycopg.Error) as error:
                what = {"progress": len(progress), "lines": len(lines)}
                log.warning("reports of handlers lost", error=type(error).__name__, **what)

    async def run(self, database: Database) -> None:
        """Flush again and again."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush(database)
