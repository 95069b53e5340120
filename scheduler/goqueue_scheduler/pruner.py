"""Retention: rows past their age are deleted, a few thousand at a time, so that nobody notices.

A row that PostgreSQL refuses to delete (another table refers to it) is found by halves, counted and passed over.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from goqueue import metrics
from goqueue.store.connect import Database
from goqueue.store.retention import Keep
from goqueue_scheduler.tables import REFUSALS, AuditLog, Declines, IdempotencyKeys, Jobs, Table

PAUSE: Final = 0.1
"""Seconds between two chunks."""

BETWEEN: Final = 0.01
"""Seconds between two parts of a chunk that was refused."""

PASS: Final = 300.0
"""Seconds between two walks through the tables."""

REFUSED: Final = 2000
"""Refusals in a walk through a table, from which on what is refused is passed over undivided: where every row is
referred to, halving would cost two statements a row."""

log = structlog.get_logger(__name__)


class Pruner:
    """The leader's retention duty; ages in seconds."""

    name = "retention"

    def __init__(self, database: Database, completed: float, failed: float, audited: float) -> None:
        self._kinds: list[Callable[[], Table]] = [
            lambda: Jobs(database, Keep(completed, failed)),
            lambda: AuditLog(database, audited),
            lambda: Declines(database),
            lambda: IdempotencyKeys(database),
        ]
        self.begin()

    def begin(self) -> None:
        """Begin with the first table."""
        self._tables: list[Table] = []
        self._batches: list[Sequence[Any]] = []
        self._gone = 0
        self._refusals = 0
        self._refused: list[Any] = []
        self._refused_rows = 0
        self._why = ""
        self._done: dict[str, int] = {}

    def end(self) -> None:
        """Nothing to put away."""

    async def tick(self) -> float:
        """Delete one batch, or look for the next one."""
        if not self._tables:
            self._tables = [kind() for kind in self._kinds]
        table = self._tables[0]
        if self._batches:
            await self._delete(table)
            return BETWEEN if self._batches else PAUSE
        try:
            found = await table.next()
        except Exception:
            self._next_table()  # the others have their turn while this one is tried again in the next walk
            raise
        if found is None:
            self._tell(table)
            self._next_table()
            return PAUSE if self._tables else PASS
        if found:
            self._batches = [found]
            return 0.0
        return PAUSE

    async def walk(self) -> dict[str, int]:
        """One walk through all tables without a pause; how many rows of each were deleted."""
        self.begin()
        while await self.tick() != PASS:
            pass
        return self._done

    async def _delete(self, table: Table) -> None:
        batch = self._batches[-1]
        try:
            gone = await table.delete(batch)
        except REFUSALS as error:
            self._batches.pop()
            self._refusals += 1
            self._why = error.message
            if len(batch) > 1 and self._refusals <= REFUSED:
                middle = len(batch) // 2
                self._batches += [batch[middle:], batch[:middle]]
            else:
                self._refused_rows += len(batch)
                self._refused = [*self._refused, *batch][:20]
                metrics.UNDELETED.inc(len(batch), table.name)
            return
        self._batches.pop()
        self._gone += gone
        if table.name == "jobs":
            metrics.PRUNED.inc(gone)

    def _tell(self, table: Table) -> None:
        if isinstance(table, IdempotencyKeys):
            self._gone, self._refused_rows = table.forgotten, table.refused
            metrics.UNDELETED.inc(table.refused, table.name)
        self._done[table.name] = self._gone
        if self._gone:
            log.info("old rows deleted", table=table.name, rows=self._gone)
        if self._refused_rows:
            first = [key.hex() if isinstance(key, bytes) else key for key in self._refused]
            log.warning("rows not deleted", table=table.name, rows=self._refused_rows, first=first, error=self._why)

    def _next_table(self) -> None:
        self._tables = self._tables[1:]
        self._batches, self._gone, self._refusals = [], 0, 0
        self._refused, self._refused_rows, self._why = [], 0, ""
