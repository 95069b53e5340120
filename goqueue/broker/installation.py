"""Whose ready queues these are: a key beside them holds the id of the installation, which PostgreSQL keeps.

Two installations with one set of keys would take each other's ids: jobs would wait for a reconciliation, again and
again. So each process compares the key with its own id at every connection, and begins nothing where it differs.
"""

from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from goqueue.broker.outage import refused
from goqueue.broker.reading import words

KEY: Final = "installation"
"""The key's name, after the prefix."""


class Foreign(RedisError):
    """The key holds another id."""


async def greet(connection: Any, prefix: str, installation: str) -> None:
    """Compare on a new connection.

    Raises:
        Foreign: these are another installation's.
    """

    async def ask(*command: str) -> Any:
        await connection.send_command(*command, check_health=False)
        return await connection.read_response()

    await _compare(ask, f"{prefix}:{KEY}", installation)


async def check(client: Any, prefix: str, installation: str) -> None:
    """Compare by a client.

    Raises:
        Foreign: these are another installation's.
    """
    await _compare(client.execute_command, f"{prefix}:{KEY}", installation)


async def _compare(ask: Any, key: str, installation: str) -> None:
    try:
        found = await ask("GET", key)
    except ResponseError as error:
        if not refused(error):
            raise
        return  # a user without the right to it, as one of a hand's making may be: nothing to compare
    if found is None:  # a new Redis, or one that lost its contents
        try:
            await ask("SET", key, installation, "NX")
        except ResponseError as error:
            # It is full, or no master any more: what needs a place in it fails for itself, the rest goes on.
            if not refused(error):
                raise
            return
        found = await ask("GET", key)  # another one may have been first
    if found is not None and words(found) != installation:
        raise Foreign("another installation's id is there")


async def adopt(client: Any, prefix: str, installation: str) -> str | None:
    """Make the ready queues those of this installation; the id that was there."""
    key = f"{prefix}:{KEY}"
    found = await client.execute_command("GET", key)
    await client.execute_command("SET", key, installation)
    return None if found is None else words(found)
