"""`python -m benchmarks.fillfactor`: what room on a page is worth, in counts that do not depend on the machine.

40,000 jobs are claimed and completed by the engine's own statements, with and without a snapshot that keeps every
version of a row; docs/decisions/0001-indexes.md has the table.
"""

import tempfile
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from psycopg import sql as compose

from goqueue.store import attempt_sql, migrate, session, sql
from goqueue_cli.embedded import EmbeddedPostgres

JOBS: Final = 40_000
BATCH: Final = 500
FILL_FACTORS: Final = (50, 40, 33)

Connection = psycopg.Connection[tuple[object, ...]]

_SEED: Final = """
INSERT INTO jobs (queue, type, payload)
SELECT 'default', 'noop', jsonb_build_object('sent', number, 'pad', repeat('x', 180)) FROM generate_series(1, %s) number
"""


def _prepare(connection: Connection, fill_factor: int) -> list[int]:
    connection.execute("TRUNCATE jobs CASCADE")
    connection.execute(compose.SQL("ALTER TABLE jobs SET (fillfactor = {})").format(fill_factor))
    connection.execute(_SEED, (JOBS,))
    connection.execute("VACUUM ANALYZE jobs")
    connection.execute("CHECKPOINT")
    connection.execute("SELECT pg_stat_reset()")
    return [int(str(row[0])) for row in connection.execute("SELECT id FROM jobs ORDER BY id")]


def _one(connection: Connection, query: LiteralString, *parameters: object) -> float:
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None
    return float(str(row[0]))


def measure(dsn: str, fill_factor: int, *, snapshot: bool) -> tuple[float, float, float]:
    """Share of the updates that touched no index; bytes of write-ahead log a job, and of table a job at the start."""
    with (
        psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection,
        psycopg.connect(dsn) as reader,
    ):
        connection.execute(session.preamble(connection.info.server_version, pgbouncer=False), prepare=False)
        worker = _one(connection, sql.REGISTER_WORKER, "fillfactor", ["default"], 1)
        ids = _prepare(connection, fill_factor)
        if snapshot:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            reader.execute("SELECT count(*) FROM jobs")
        table = _one(connection, "SELECT pg_relation_size('jobs')")
        before = _one(connection, "SELECT pg_current_wal_lsn() - '0/0'")
        for first in range(0, JOBS, BATCH):
            parameters = {"worker": int(worker), "ids": ids[first : first + BATCH], "queue": "default", "lease": 1}
            claimed = sorted(connection.execute(attempt_sql.CLAIM, parameters).fetchall())
            ends = {"ids": [row[0] for row in claimed], "leases": [row[1] for row in claimed], "results": None}
            connection.execute(attempt_sql.COMPLETE, ends)
        wal = _one(connection, "SELECT pg_current_wal_lsn() - '0/0'") - before
        connection.execute("SELECT pg_stat_force_next_flush()")
        share = "SELECT n_tup_hot_upd::float / n_tup_upd FROM pg_stat_user_tables WHERE relname = 'jobs'"
        return _one(connection, share), wal / JOBS, table / JOBS


def main() -> None:
    """Print the table."""
    with EmbeddedPostgres(Path(tempfile.mkdtemp(prefix="goqueue-bench-")), ephemeral=True) as postgres:
        migrate.upgrade(postgres.dsn)
        print("fillfactor  snapshot  HOT updates  WAL, bytes a job  table, bytes a job")
        for fill_factor in FILL_FACTORS:
            for snapshot in (False, True):
                hot, wal, table = measure(postgres.dsn, fill_factor, snapshot=snapshot)
                print(
                    f"{fill_factor:10}  {'held' if snapshot else 'none':>8}  {hot:11.0%}  {wal:16,.0f}  {table:18,.0f}"
                )


if __name__ == "__main__":
    main()
