"""What the role of the processes may do in the database: read and write rows, nothing else (docs/security.md)."""

from typing import Final, LiteralString

import psycopg
from psycopg import sql

TABLES: Final[dict[str, LiteralString]] = {
    "jobs": "SELECT, INSERT, UPDATE, DELETE",
    "job_attempts": "SELECT, INSERT",
    "job_logs": "SELECT, INSERT",
    "workers": "SELECT, INSERT, UPDATE, DELETE",
    "queues": "SELECT, INSERT, UPDATE",
    "schedules": "SELECT, INSERT, UPDATE, DELETE",
    "leaders": "SELECT, INSERT, UPDATE, DELETE",
    "dispatch_floor": "SELECT, UPDATE",
    "goqueue_schema": "SELECT",
    "api_keys": "SELECT, INSERT, UPDATE, DELETE",
    "audit_log": "SELECT, INSERT, DELETE",
    "installation": "SELECT",
    "payment_declines": "SELECT, INSERT, UPDATE, DELETE",
    "idempotency_keys": "SELECT, INSERT, UPDATE, DELETE",
}
"""Privileges on each table. A test compares it with the schema: a migration that makes a table adds it here."""

SEQUENCES: Final = ("jobs_id_seq",)
"""Sequences that are drawn from, or read, by name; those of identity columns need no grant."""


def grant(dsn: str, role: str) -> None:
    """Give `role` exactly these privileges on our tables, all or none; may be repeated, other tables are left alone.

    Raises:
        psycopg.Error: there is no such role, or the connection's own role does not own the tables.
    """
    with psycopg.connect(dsn, prepare_threshold=None) as connection:  # for PgBouncer
        to = sql.Identifier(role)
        row = connection.execute("SELECT current_schema(), current_database()").fetchone()
        assert row is not None and row[0]  # noqa: S101, PT018 - the migrations have just made tables in it
        # Without this PostgreSQL would warn, grant nothing, and say that all is well.
        owned = "SELECT pg_has_role(current_user, tableowner, 'USAGE') FROM pg_tables WHERE schemaname = %s"
        if not all(one[0] for one in connection.execute(f"{owned} AND tablename = 'jobs'", (row[0],)).fetchall()):
            raise psycopg.errors.InsufficientPrivilege("only the owner of the tables can grant rights on them")
        schema, database = sql.Identifier(row[0]), sql.Identifier(row[1])
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, to))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, to))
        for table, privileges in TABLES.items():
            rights = sql.SQL(privileges)
            connection.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(sql.Identifier(table), to))
            connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(rights, sql.Identifier(table), to))
        for sequence in SEQUENCES:
            connection.execute(sql.SQL("REVOKE ALL ON SEQUENCE {} FROM {}").format(sql.Identifier(sequence), to))
            connection.execute(sql.SQL("GRANT USAGE, SELECT ON SEQUENCE {} TO {}").format(sql.Identifier(sequence), to))
