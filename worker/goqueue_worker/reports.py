"""What handlers report while they run, progress and log lines, on its way to PostgreSQL."""

import asyncio
from datetime import datetime
from typing import Final

import psycopg
import structlog

from goqueue.errors import GoQueueError
from goqueue.store import attempts
from goqueue.store.connect import Database

FLUSH_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


class Reports:
    """What handlers reported since the last flush. Appending is safe from any thread."""

    def __init__(self) -> None:
        self.progress: dict[int, tuple[int, float]] = {}
        self.logs: list[tuple[int, int, str, str, datetime]] = []
        self._flushing = asyncio.Lock()

    def take(self) -> tuple[list[tuple[int, int, float]], list[tuple[int, int, str, str, datetime]]]:
        """Empty the buffers and return them: progress as (job, lease, fraction), and log lines."""
        progress, self.progress = self.progress, {}
        logs, self.logs = self.logs, []
        return [(job, lease, fraction) for job, (lease, fraction) in sorted(progress.items())], logs

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
