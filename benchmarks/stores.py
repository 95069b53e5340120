"""Embedded stores for a benchmark of GoQueue alone."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from goqueue.store import migrate
from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey


@contextlib.contextmanager
def stores(*, fsync: bool = True) -> Iterator[tuple[str, dict[str, str]]]:
    """A PostgreSQL with the newest schema and a Valkey, until the block ends: the address of the database, and both as
    GoQueue's settings. Without `fsync` PostgreSQL waits for no disk: for what does not measure writes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL runs as another user where this one is root
        with (
            EmbeddedPostgres(folder / "postgres", ephemeral=True, fsync=fsync) as postgres,
            EmbeddedValkey(folder / "valkey", ephemeral=True) as valkey,
        ):
            migrate.upgrade(postgres.dsn)
            yield (
                postgres.dsn,
                {
                    "POSTGRES_HOST": postgres.host,
                    "POSTGRES_PORT": str(postgres.port),
                    "POSTGRES_USER": postgres.user,
                    "POSTGRES_PASSWORD": postgres.password,
                    "POSTGRES_DB": postgres.database,
                    "GOQUEUE_REDIS_URL": valkey.url,
                },
            )
