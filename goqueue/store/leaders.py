"""Leadership as rows of `leaders`: one for each duty, renewed by its holder."""

from typing import Final, LiteralString

from goqueue.store.connect import Connection, fetch_all

TAKE: Final[LiteralString] = """
INSERT INTO leaders AS current (duty, holder) VALUES (%(duty)s, %(holder)s)
ON CONFLICT (duty) DO UPDATE SET holder = %(holder)s, renewed_at = now(),
    term = current.term + (current.holder <> %(holder)s)::int
WHERE current.holder = %(holder)s OR current.renewed_at < now() - make_interval(secs => %(ttl)s)
RETURNING term
"""

LEAVE: Final[LiteralString] = "DELETE FROM leaders WHERE duty = %s AND holder = %s"


async def take(connection: Connection, duty: str, holder: str, ttl: float) -> int | None:
    """Become or stay leader; the term, or None while another one's lease of `ttl` seconds runs."""
    rows = await fetch_all(connection, TAKE, {"duty": duty, "holder": holder, "ttl": ttl})
    return int(rows[0][0]) if rows else None


async def leave(connection: Connection, duty: str, holder: str) -> None:
    """Step down, so that the next one need not wait."""
    await connection.execute(LEAVE, (duty, holder))
