"""Times from PostgreSQL are in UTC, whatever time zone the session has.

psycopg gives them in the session's zone. That is UTC where `Database` could say so; behind PgBouncer it is what the
role, the database or another client has set, and times in answers, and keys made of times, would depend on it.
"""

from typing import Any, Final

import psycopg
from psycopg.abc import Loader
from psycopg.pq import Format

_OID: Final = psycopg.adapters.types["timestamptz"].oid


def _loader_in_utc(format: Format) -> type[Loader]:
    """psycopg's own loader (compiled where there is one), made without the connection whose zone it would take."""
    known = psycopg.adapters.get_loader(_OID, format)
    assert known is not None  # noqa: S101 - psycopg's own
    own: Any = known

    def new(cls: Any, oid: int, context: Any = None) -> Any:
        return own(oid, None)

    return type("LoaderInUtc", (), {"format": format, "__new__": new})


_LOADERS: Final = tuple(map(_loader_in_utc, (Format.TEXT, Format.BINARY)))


def in_utc(connection: psycopg.AsyncConnection[Any]) -> None:
    """Let all times that come through this connection be in UTC."""
    for loader in _LOADERS:
        connection.adapters.register_loader(_OID, loader)
