"""How often each payment was declined for certain; docs/decisions/0013-declined-payments.md tells what it is for.

A payment is known by the digest of its payment_id: with encryption at rest, no payload may stand here in the clear.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, LiteralString

from goqueue.store.connect import Connection, fetch_all

COUNT: Final[LiteralString] = "SELECT declines FROM payment_declines WHERE payment = %s"

ADD: Final[LiteralString] = """
INSERT INTO payment_declines AS stored (payment, declines) VALUES (%s, %s)
ON CONFLICT (payment) DO UPDATE SET declines = excluded.declines, declined_at = now()
WHERE stored.declines < excluded.declines
"""

PAST: Final[LiteralString] = """
SELECT payment FROM payment_declines WHERE declined_at < now() - make_interval(secs => %(age)s) AND payment > %(after)s
ORDER BY payment LIMIT %(limit)s
"""

DELETE: Final[LiteralString] = """
DELETE FROM payment_declines
WHERE payment = ANY(%(payments)s::bytea[]) AND declined_at < now() - make_interval(secs => %(age)s)
"""


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


async def past(connection: Connection, age: float, after: bytes, limit: int) -> list[bytes]:
    """Payments whose last decline is `age` seconds old, by digest, after this one."""
    return [bytes(row[0]) for row in await fetch_all(connection, PAST, {"age": age, "after": after, "limit": limit})]


async def delete(connection: Connection, payments: Sequence[bytes], age: float) -> int:
    """Forget those of these payments whose last decline is `age` seconds old; how many there were."""
    return (await connection.execute(DELETE, {"payments": list(payments), "age": age})).rowcount
