"""The identity of the installation: made with its database, and as old as that."""

from goqueue.errors import GoQueueError
from goqueue.store.connect import Connection, fetch_all


async def identity(connection: Connection) -> str:
    """The installation's UUID.

    Raises:
        GoQueueError: somebody emptied the table.
    """
    rows = await fetch_all(connection, "SELECT id FROM installation")
    if not rows:
        raise GoQueueError("table installation is empty: run INSERT INTO installation DEFAULT VALUES")
    return str(rows[0][0])
