"""What retention deletes: each table's rows past their age, a chunk at a time from the oldest on."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from goqueue.errors import StoreContended, StoreRefused, StoreTimeout
from goqueue.store import audit, declines, idempotency, retention
from goqueue.store.bounds import bounded
from goqueue.store.connect import Database
from goqueue.store.retention import Keep

CHUNK: Final = 5000
"""Rows that are looked at together."""

LONGEST: Final = 10.0
"""Seconds that one deletion may take: a foreign key of somebody else's table may have no index."""

DECLINES: Final = 30 * 86400.0
"""Seconds after which a payment's declines are forgotten; Stripe forgets its idempotency keys after a day or more."""

REFUSALS: Final = (StoreRefused, StoreContended, StoreTimeout)
"""What PostgreSQL says where it is a matter of one of the rows."""


class Table(Protocol):
    """One walk through a table."""

    name: str

    async def next(self) -> Sequence[Any] | None:
        """Keys of the next rows past their age, maybe none; None at the end."""
        ...

    async def delete(self, keys: Sequence[Any]) -> int:
        """Delete these, all or none; how many were there still."""
        ...


class Jobs:
    """Final jobs, by id, up to the first chunk that is too young."""

    name = "jobs"

    def __init__(self, database: Database, keep: Keep) -> None:
        self._database = database
        self._keep = keep
        self._young = datetime.now(UTC) - timedelta(seconds=min(keep.completed, keep.failed))
        self._after: int | None = 0

    async def next(self) -> Sequence[int] | None:
        """Ids of jobs past their age."""
        if self._after is None:
            return None
        async with self._database.connection() as connection:
            found = await retention.past(connection, self._after, self._keep)
        at_end = found.through is None or found.oldest is None or found.oldest > self._young
        self._after = None if at_end else found.through
        return None if found.through is None else found.ids

    async def delete(self, keys: Sequence[int]) -> int:
        """Delete these jobs with their attempts and logs."""
        async with self._database.connection() as connection, bounded(connection, LONGEST):
            return await retention.delete(connection, keys, self._keep)


class AuditLog:
    """Entries of the audit log."""

    name = "audit_log"

    def __init__(self, database: Database, keep: float) -> None:
        self._database = database
        self._keep = keep
        self._after = (datetime(1, 1, 1, tzinfo=UTC), 0)

    async def next(self) -> Sequence[int] | None:
        """Ids of entries past their age."""
        async with self._database.connection() as connection:
            found = await audit.past(connection, self._keep, self._after, CHUNK)
        if not found:
            return None
        id, at = found[-1]
        self._after = (at, id)
        return [id for id, _ in found]

    async def delete(self, keys: Sequence[int]) -> int:
        """Delete these entries."""
        async with self._database.connection() as connection, bounded(connection, LONGEST):
            return await audit.delete(connection, keys)


class Declines:
    """Counts of declined payments."""

    name = "payment_declines"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after = b""

    async def next(self) -> Sequence[bytes] | None:
        """Digests of payments whose last decline is old."""
        async with self._database.connection() as connection:
            found = await declines.past(connection, DECLINES, self._after, CHUNK)
        if not found:
            return None
        self._after = found[-1]
        return found

    async def delete(self, keys: Sequence[bytes]) -> int:
        """Forget these payments."""
        async with self._database.connection() as connection, bounded(connection, LONGEST):
            return await declines.delete(connection, keys, DECLINES)


class IdempotencyKeys:
    """Idempotency keys of requests whose jobs ended long enough ago.

    One statement looks at keys, forgets some and puts off the others, so `next` does all of it, in halves where one
    key is refused, and has no rows to give.
    """

    name = "idempotency_keys"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._limit = CHUNK
        self.forgotten = 0
        self.refused = 0

    async def next(self) -> Sequence[Any] | None:
        """Look at the next keys."""
        try:
            async with self._database.connection() as connection, bounded(connection, LONGEST):
                looked, forgotten = await idempotency.prune(connection, self._limit)
        except REFUSALS:
            if self._limit == 1:
                self.refused += 1
                async with self._database.connection() as connection:
                    await idempotency.postpone(connection, 3600.0)
            self._limit = max(1, self._limit // 2)
            return []
        self.forgotten += forgotten
        at_end = looked < self._limit
        self._limit = min(CHUNK, 2 * self._limit)
        return None if at_end else []

    async def delete(self, keys: Sequence[Any]) -> int:
        """Nothing to delete."""
        return 0
