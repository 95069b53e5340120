"""What PostgreSQL refused, in one line, with the cure where its own words do not name it."""

from typing import Final

import psycopg

POOLED: Final = (
    "prepared statements are lost between transactions: a pooler such as PgBouncer in transaction mode stands before"
    " PostgreSQL; set DB_PGBOUNCER=true"
)

_CURES: Final = (
    (
        "session is read-only",
        "GoQueue needs a server that takes writes: name the primary in POSTGRES_HOST, or take back"
        " default_transaction_read_only of the role, the database or the server",
    ),
    (
        "no pg_hba.conf entry",
        "the server's pg_hba.conf must admit this user, database and address; where it admits TLS only, see"
        " POSTGRES_SSLMODE",
    ),
    ("server does not support SSL", "switch TLS on at the server, or set POSTGRES_SSLMODE=disable"),
    ("password authentication failed", "see POSTGRES_USER and POSTGRES_PASSWORD"),
    ("fe_sendauth: no password supplied", "set POSTGRES_PASSWORD"),
    ("too many clients already", "raise max_connections, or put PgBouncer in between (docs/production.md)"),
    ("remaining connection slots are reserved", "raise max_connections, or put PgBouncer in between"),
    ("too many connections for role", "raise it by ALTER ROLE … CONNECTION LIMIT"),
    ("too many connections for database", "raise it by ALTER DATABASE … CONNECTION LIMIT"),
)
"""Words of libpq or PostgreSQL, and what to do. A server that speaks another language is told without the cure."""


def reason(error: BaseException) -> str:
    """The error's own words on one line, and the cure where one is known."""
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, psycopg.errors.DuplicatePreparedStatement | psycopg.errors.InvalidSqlStatementName):
        return POOLED
    return "; ".join([words, *(cure for sign, cure in _CURES if sign in words)])


def not_utf8(database: str, encoding: str) -> str:
    """A database that cannot hold every JSON text."""
    return (
        f'database "{database}" is encoded in {encoding or "nothing known"}, and jobs are UTF-8: make one by'
        " CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
    )
