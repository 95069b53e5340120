"""How many jobs of one tenant wait: read by the tenant's own entries of an index, whatever others have waiting."""

from typing import Final, LiteralString

from goqueue.store.connect import Connection, fetch_all
from goqueue.store.listing import ORDERED
from goqueue.store.sql import FLOOR

LISTED: Final = 20_000
"""Up to so many jobs with a `dispatch_at` are read whole, whoever they belong to; beyond that the tenant's own are."""

FEW_LISTED: Final[LiteralString] = """
SELECT count(*) <= %(listed)s
FROM (SELECT FROM jobs WHERE dispatch_at IS NOT NULL ORDER BY dispatch_at LIMIT %(listed)s + 1) AS listed
"""


def _of_tenant(above: LiteralString) -> LiteralString:
    """Waiting jobs of a tenant, with a further condition, by the index on (tenant, queue, id)."""
    return f"""
    SELECT FROM used CROSS JOIN LATERAL (
        SELECT FROM jobs WHERE tenant = %(tenant)s AND jobs.queue = used.queue{above} AND status = 'pending'
        ORDER BY id) AS own
"""


_USED: Final[LiteralString] = """
WITH RECURSIVE used AS (
    (SELECT queue FROM jobs WHERE tenant = %(tenant)s ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT jobs.queue FROM jobs WHERE tenant = %(tenant)s AND jobs.queue > used.queue
        ORDER BY jobs.queue LIMIT 1) FROM used
    WHERE used.queue IS NOT NULL
)
SELECT count(*) FROM ("""

WAITING_OF_TENANT: Final[LiteralString] = f"""{_USED}{_of_tenant(f" AND id >= {FLOOR}")}
    UNION ALL
    SELECT FROM (SELECT id, status, tenant FROM jobs WHERE dispatch_at IS NOT NULL ORDER BY dispatch_at
        LIMIT {LISTED}) AS listed
    WHERE id < {FLOOR} AND status = 'pending' AND tenant = %(tenant)s
    LIMIT %(most)s) AS waiting
"""

WAITING_OF_TENANT_AMONG_MANY: Final[LiteralString] = f"""{_USED}{_of_tenant("")}    LIMIT %(most)s) AS waiting
"""

WAITING_OF_NONE: Final[LiteralString] = f"""
SELECT count(*) FROM (
    SELECT FROM jobs WHERE id >= {FLOOR} AND status = 'pending' AND tenant IS NULL
    UNION ALL
    SELECT FROM jobs WHERE dispatch_at IS NOT NULL AND id < {FLOOR} AND status = 'pending' AND tenant IS NULL
    LIMIT %(most)s
) AS waiting
"""
"""Of the default tenant, whose jobs are in no index of tenants: it reads those of all."""


async def waiting_of(connection: Connection, tenant: str | None, most: int) -> int:
    """How many jobs of a tenant wait or are scheduled; counted up to `most`."""
    if tenant is None:
        rows = await fetch_all(connection, WAITING_OF_NONE, {"most": most})
        return int(rows[0][0])
    async with connection.transaction():
        await connection.execute(ORDERED, prepare=False)
        cursor = await connection.execute(FEW_LISTED, {"listed": LISTED}, prepare=False)
        ((few,),) = await cursor.fetchall()
        statement = WAITING_OF_TENANT if few else WAITING_OF_TENANT_AMONG_MANY
        cursor = await connection.execute(statement, {"tenant": tenant, "most": most}, prepare=False)
        ((waiting,),) = await cursor.fetchall()
    return int(waiting)
