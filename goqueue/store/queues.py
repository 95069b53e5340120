"""Queues: which are paused, and how many open jobs each has by PostgreSQL's own count."""

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg.rows import class_row

from goqueue.access import Reach
from goqueue.store import sql
from goqueue.store.connect import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class OpenCount:
    """Open jobs of one queue; `oldest_seconds` is the wait of the longest-waiting one that could run."""

    queue: str
    ready: int
    scheduled: int
    processing: int
    oldest_seconds: float | None


async def paused(connection: Connection) -> set[str]:
    """Queues that no worker serves for now."""
    return {row[0] for row in await fetch_all(connection, sql.PAUSED)}


async def pause(connection: Connection, name: str) -> None:
    """Let nobody fetch from the queue; running jobs go on."""
    await connection.execute(sql.PAUSE, (name,))


async def resume(connection: Connection, name: str) -> None:
    """Let workers fetch from it again."""
    await connection.execute(sql.RESUME, (name,))


async def in_use(connection: Connection, known: Iterable[str] = ()) -> list[str]:
    """Queues beside the known ones that have open jobs or are paused."""
    return [row[0] for row in await fetch_all(connection, sql.QUEUES_IN_USE, {"known": list(known)})]


async def open_counts(connection: Connection) -> list[OpenCount]:
    """What is open in each queue that has something open; costs as much as there are open jobs."""
    cursor = connection.cursor(row_factory=class_row(OpenCount))
    await cursor.execute(sql.OPEN_COUNTS)
    return await cursor.fetchall()


async def types(connection: Connection, ids: Iterable[int]) -> dict[str, dict[str, float]]:
    """Queue → type → how many of these jobs are of it."""
    found: dict[str, dict[str, float]] = {}
    for queue, kind, count in await fetch_all(connection, sql.TYPES, (list(ids),)):
        found.setdefault(queue, {})[kind] = float(count)
    return found


async def open_counts_within(connection: Connection, reach: Reach) -> list[OpenCount]:
    """The same of what is within reach; costs as much as all open jobs do."""
    cursor = connection.cursor(row_factory=class_row(OpenCount))
    types = None if reach.types is None else sorted(reach.types)
    await cursor.execute(sql.OPEN_COUNTS_WITHIN, {"tenant": reach.tenant, "types": types})
    return [count for count in await cursor.fetchall() if reach.queues is None or count.queue in reach.queues]


async def tenants_exist(connection: Connection) -> bool:
    """Whether any job has a tenant."""
    return bool((await fetch_all(connection, sql.TENANTS_EXIST))[0][0])


async def failed_counts(connection: Connection) -> dict[str, int]:
    """How many failed jobs each queue keeps; costs as much as there are."""
    return {row[0]: row[1] for row in await fetch_all(connection, sql.FAILED_COUNTS)}
