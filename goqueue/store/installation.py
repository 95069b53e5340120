"""The id of the installation: drawn when its database was made, kept by backups and copies."""

import psycopg
import structlog

from goqueue.errors import GoQueueError
from goqueue.store.connect import Connection

log = structlog.get_logger(__name__)


async def read(connection: Connection) -> str | None:
    """The id, None where this role may not read it (docs/security.md) or the schema is of before it."""
    try:
        row = await (await connection.execute("SELECT id FROM installation")).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        log.warning("no right to read table installation: run `goqueue migrate --grant-to ROLE`")
        return None
    except psycopg.errors.UndefinedTable:
        return None
    return None if row is None else str(row[0])


async def identity(connection: Connection) -> str:
    """The id, for a process that cannot do without.

    Raises:
        GoQueueError: it cannot be read.
    """
    found = await read(connection)
    if found is None:
        raise GoQueueError(
            "cannot read the id of this installation: run `goqueue migrate --grant-to ROLE` or, where its table is "
            "empty, INSERT INTO installation DEFAULT VALUES"
        )
    return found
