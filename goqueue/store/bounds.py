"""Bounds for statements that may take long, set for one transaction and therefore through PgBouncer as well."""

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


@contextlib.asynccontextmanager
async def in_index_order(connection: Connection) -> AsyncIterator[None]:
    """One transaction in which the next rows of an order are read from an index in that order.

    With the statistics of another time, or none, PostgreSQL may expect a handful of rows, and plan to read and sort all
    that come after the place. A reader of many chunks would then cost the square of their number.
    """
    async with connection.transaction():
        await connection.execute(
            "SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)"
        )
        yield
