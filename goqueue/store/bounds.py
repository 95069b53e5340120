"""A bound in time for statements that may take long, through PgBouncer as well."""

import contextlib
from collections.abc import AsyncIterator

from goqueue.store.connect import Connection


@contextlib.asynccontextmanager
async def bounded(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """One transaction, each of whose statements PostgreSQL ends after that many seconds.

    The pool makes a StoreTimeout of it.
    """
    async with connection.transaction():
        milliseconds = f"{max(1, round(seconds * 1000))}ms"
        await connection.execute("SELECT set_config('statement_timeout', %s, true)", (milliseconds,))
        yield
