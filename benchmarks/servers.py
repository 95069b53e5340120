"""The PostgreSQL and the Valkey that every system of a run stands on; a fresh database for each run."""

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from redis import Redis

from benchmarks.children import cpu_seconds
from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey

POSTGRES_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_connections": "300",
    # No checkpoint falls into one system's run by chance: the runner writes one before each clock.
    "max_wal_size": "16GB",
    "checkpoint_timeout": "30min",
    # The exact time at which each job's end was committed, told by PostgreSQL and not by the system.
    "track_commit_timestamp": "on",
}

DATABASE = "bench"


class Servers:
    """Starts both servers, hands out fresh databases, and tells what a run cost them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="goqueue-bench-"))
        # PostgreSQL, which runs as another user where the runner is root, has to get through.
        self.folder.chmod(0o711)
        self.postgres = EmbeddedPostgres(self.folder / "postgres", ephemeral=True, settings=POSTGRES_SETTINGS)
        self.valkey = EmbeddedValkey(self.folder / "valkey", ephemeral=True)
        self._templates: set[str] = set()

    def __enter__(self) -> Self:
        try:
            self.postgres.start()
            self.valkey.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop both and remove what they wrote."""
        self.valkey.close()
        self.postgres.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def postgres_url(self) -> str:
        """The database of the system under test."""
        return self.postgres.dsn_for(DATABASE)

    @property
    def environment(self) -> dict[str, str]:
        """Both servers as GoQueue's settings name them."""
        address = urlsplit(self.postgres_url)
        return {
            "POSTGRES_HOST": str(address.hostname),
            "POSTGRES_PORT": str(address.port),
            "POSTGRES_USER": str(address.username),
            "POSTGRES_PASSWORD": str(address.password),
            "POSTGRES_DB": address.path.lstrip("/"),
            "GOQUEUE_REDIS_URL": self.valkey.url,
        }

    def connect(self, database: str = DATABASE) -> psycopg.Connection[tuple[int]]:
        """A connection of the runner's own."""
        return psycopg.connect(self.postgres.dsn_for(database), autocommit=True)

    def redis(self) -> Redis:
        """A Valkey connection of the runner's own."""
        return Redis.from_url(self.valkey.url, protocol=2)

    def fresh(self, system: str) -> bool:
        """Make the database of a run, empty or as `keep` left it for this system; empty Valkey.

        Returns:
            Whether the database has the system's schema already.
        """
        known = system in self._templates
        template = sql.Identifier(f"template_{system}" if known else "template1")
        with self.connect("postgres") as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(DATABASE)))
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(DATABASE), template))
        with self.redis() as redis:
            redis.flushall()
        return known

    def keep(self, system: str) -> None:
        """Remember the schema that the system's setup made, so that later runs begin with a copy."""
        name = sql.Identifier(f"template_{system}")
        with self.connect("postgres") as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(DATABASE)))
        self._templates.add(system)

    def settle(self) -> None:
        """After seeding: statistics as autovacuum would have them, and a checkpoint behind us."""
        with self.connect() as connection:
            connection.execute("ANALYZE")
            connection.execute("CHECKPOINT")

    def wal_bytes(self) -> int:
        """WAL written since the server began."""
        with self.connect("postgres") as connection:
            row = connection.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
        assert row is not None
        return row[0]

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of PostgreSQL and of Valkey so far."""
        assert self.postgres.pid is not None
        assert self.valkey.pid is not None
        return cpu_seconds(self.postgres.pid), cpu_seconds(self.valkey.pid)
