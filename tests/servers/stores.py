"""Databases and ready queues for tests: one server for the whole run, something fresh for each module."""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from goqueue.store import migrate
from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey

TEMPLATE = "migrated"
"""The database of the server that has the schema and no rows: copied in milliseconds."""


@dataclass(frozen=True)
class FreshDatabase:
    """An empty database of its own, with or without GoQueue's schema."""

    server: EmbeddedPostgres
    name: str

    @property
    def dsn(self) -> str:
        """Its address, as libpq understands it."""
        return self.server.dsn_for(self.name)

    @property
    def environment(self) -> dict[str, str]:
        """The same as GoQueue's settings, for a process under test."""
        return {
            "POSTGRES_HOST": self.server.host,
            "POSTGRES_PORT": str(self.server.port),
            "POSTGRES_USER": self.server.user,
            "POSTGRES_PASSWORD": self.server.password,
            "POSTGRES_DB": self.name,
            "POSTGRES_SSLMODE": "disable",
        }


@dataclass(frozen=True)
class FreshRedis:
    """Ready queues of their own: an empty logical database, and a prefix that nobody else uses."""

    server: EmbeddedValkey
    database: int
    prefix: str

    @property
    def url(self) -> str:
        """Address of the logical database."""
        return self.server.url_for(self.database)

    @property
    def environment(self) -> dict[str, str]:
        """The same as GoQueue's settings, for a process under test."""
        return {"GOQUEUE_REDIS_URL": self.url, "GOQUEUE_REDIS_PREFIX": self.prefix}


@contextlib.contextmanager
def fresh_database(server: EmbeddedPostgres, *, migrated: bool = True) -> Iterator[FreshDatabase]:
    """A new database, dropped with the block.

    Args:
        server: Where to make it.
        migrated: True: it has the newest schema. False: it is bare.
    """
    if migrated:
        _make_template(server)
    database = FreshDatabase(server, f"test_{secrets.token_hex(4)}")
    name = sql.Identifier(database.name)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        template = sql.Identifier(TEMPLATE if migrated else "template1")
        connection.execute(sql.SQL("create database {} template {}").format(name, template))
    try:
        yield database
    finally:
        # A test may have left the server stopped; then there is nothing to drop.
        if server.running:
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))


def _make_template(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        query = "select from pg_database where datname = %s"
        if connection.execute(query, (TEMPLATE,)).fetchone() is None:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
            migrate.upgrade(server.dsn_for(TEMPLATE))
