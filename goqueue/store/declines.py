"""How often each payment was declined for certain; docs/decisions/0013-declined-payments.md tells what it is for.

A payment is known by the digest of its payment_id: with encryption at rest, no payload may stand here in the clear.
"""

import hashlib
from typing import Final, LiteralString

from goqueue.store.connect import Connection, fetch_all

COUNT: Final[LiteralString] = "SELECT declines FROM payment_declines WHERE payment = %s"

ADD: Final[LiteralString] = """
INSERT INTO payment_declines AS stored (payment, declines) VALUES (%s, %s)
ON CONFLICT (payment) DO UPDATE SET declines = excluded.declines, declined_at = now()
WHERE stored.declines < excluded.declines
"""

PRUNE: Final[LiteralString] = "DELETE FROM payment_declines WHERE declined_at < now() - make_interval(secs => %s)"


def _digest(payment_id: str) -> bytes:
    return hashlib.sha256(payment_id.encode()).digest()


async def count(connection: Connection, payment_id: str) -> int:
    """How many charges of this payment were declined."""
    rows = await fetch_all(connection, COUNT, (_digest(payment_id),))
    return int(rows[0][0]) if rows else 0


async def add(connection: Connection, payment_id: str, before: int) -> None:
    """Note that the charge made after `before` declines was declined. The same decline counts once, whoever reports it
    and how often."""
    await connection.execute(ADD, (_digest(payment_id), before + 1))


async def prune(connection: Connection, age: float) -> int:
    """Forget the payments whose last decline is `age` seconds old; how many there were."""
    cursor = await connection.execute(PRUNE, (age,))
    return cursor.rowcount
