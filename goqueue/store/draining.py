"""Workers that are asked to fetch no more jobs, before their pods are removed."""

from collections.abc import Collection
from typing import Final, LiteralString

from goqueue.store.connect import Connection, fetch_all

DRAIN: Final[LiteralString] = """
UPDATE workers SET drain_until = now() + make_interval(secs => %(seconds)s) WHERE id = ANY(%(ids)s::bigint[])
"""

RELEASE: Final[LiteralString] = "UPDATE workers SET drain_until = NULL WHERE id = ANY(%(ids)s::bigint[])"

STANDING: Final[LiteralString] = """
SELECT EXISTS (
        SELECT FROM workers WHERE name <> %(name)s AND NOT draining AND queues && %(queues)s::text[]
            AND (drain_until IS NULL OR drain_until <= now())
    ),
    coalesce((SELECT max(date_part('epoch', drain_until - now())) FROM workers WHERE name = %(name)s), 0.0)
"""


async def drain(connection: Connection, ids: Collection[int], seconds: float) -> None:
    """Ask workers to fetch no jobs for so many seconds from now; a repeated request extends it."""
    await connection.execute(DRAIN, {"ids": sorted(ids), "seconds": seconds})


async def release(connection: Connection, ids: Collection[int]) -> None:
    """Let workers fetch again."""
    await connection.execute(RELEASE, {"ids": sorted(ids)})


async def standing(connection: Connection, name: str, queues: Collection[str]) -> tuple[bool, float]:
    """What a worker must know of its own row and those of others, in one statement.

    Returns:
        Whether a worker of another name takes jobs from one of the queues, and for how many more seconds this one is
        asked to fetch none (0 or less: it may fetch).
    """
    rows = await fetch_all(connection, STANDING, {"name": name, "queues": list(queues)})
    return bool(rows[0][0]), float(rows[0][1])
