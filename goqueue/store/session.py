"""What a session is told before it works: the settings that the engine relies on, whatever role and database say."""

from typing import Final, LiteralString

from psycopg.pq.abc import PGconn

_TRACKED: Final[tuple[LiteralString, ...]] = (
    # PgBouncer sets these again on whichever server connection a transaction gets
    # (https://www.pgbouncer.org/config.html, track_extra_parameters), so they may be set through it.
    "SET DateStyle = 'ISO, MDY'",  # psycopg reads times in ISO only
    "SET TimeZone = 'UTC'",
    "SET standard_conforming_strings = on",
)

_RELIED_ON: Final[tuple[LiteralString, ...]] = (
    # The engine's statements touch rows by key. A plan made while the table was small must not scan it when it is
    # large, and prepared statements keep their plans for long.
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET enable_indexscan = on",
    "SET enable_bitmapscan = on",
    "SET enable_nestloop = on",
    "SET enable_sort = on",
    "SET jit = off",
    # An array of one id is so cheap to find that PostgreSQL would plan each claim anew, in the hope of a better plan
    # than the only one there is.
    "SET plan_cache_mode = force_generic_plan",
    # Each statement sees what was committed before it.
    "SET default_transaction_isolation = 'read committed'",
    "SET default_transaction_deferrable = off",
    # NULL in an array parameter is a missing value, not the text "NULL".
    "SET array_nulls = on",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
    # Who holds a row for longer than this must hold up that row's job only, not the others of the statement. Longer
    # than the default deadlock_timeout: PostgreSQL ends a deadlock first, and only one of the two has to begin again.
    "SET lock_timeout = '1500ms'",
    # A session is the pool's; it keeps its connections for when they are needed.
    "SET idle_in_transaction_session_timeout = 0",
    "SET exit_on_error = off",
    # An accepted job outlives a crash of the server. Any other value waits at least for the local disk.
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    # Without its triggers a deleted job leaves its attempts behind. Only a superuser may set it, or need to.
    "SELECT set_config('session_replication_role', 'origin', false)"
    " WHERE current_setting('session_replication_role') <> 'origin'",
)

_LATER: Final[tuple[tuple[int, LiteralString], ...]] = (
    (140000, "SET idle_session_timeout = 0"),
    (170000, "SET transaction_timeout = 0"),
)
"""Settings that PostgreSQL has since this version, as libpq counts versions."""


def preamble(server_version: int, *, pgbouncer: bool, statement_timeout_ms: int = 0) -> bytes:
    """One text of several statements that makes a session fit for the engine.

    Args:
        server_version: As libpq tells it, e.g. 180006.
        pgbouncer: Only what PgBouncer keeps for a client in transaction mode; anything else would stay on a server's
            connection, which is everybody's.
        statement_timeout_ms: Bounds each statement; 0: no bound.
    """
    if pgbouncer:
        return "; ".join(_TRACKED).encode()
    later = (statement for since, statement in _LATER if server_version >= since)
    return "; ".join((*_TRACKED, *_RELIED_ON, *later, f"SET statement_timeout = {int(statement_timeout_ms)}")).encode()


def preambles(*, pgbouncer: bool, statement_timeout_ms: int = 0) -> list[tuple[int, str]]:
    """All preambles with the server versions since which they are right, ascending: for a process that connects on its
    own and has only the text."""
    return [
        (since, preamble(since, pgbouncer=pgbouncer, statement_timeout_ms=statement_timeout_ms).decode())
        for since in (0, *(since for since, _ in _LATER))
    ]


def encoding(connection: PGconn) -> str:
    """The encoding in which the connection's database stores text, e.g. `UTF8`, `LATIN1`, `SQL_ASCII`."""
    return (connection.parameter_status(b"server_encoding") or b"").decode()
