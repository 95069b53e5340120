"""`python -m benchmarks.footprint`: what a job costs in bytes, and what the SIGKILL of a worker costs in attempts.

docs/capacity.md has the tables. Sizes do not depend on the machine; the cost of a SIGKILL does, as it depends on how
many jobs a worker holds at that moment.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from redis import Redis

from benchmarks.servers import DATABASE, POSTGRES_SETTINGS
from goqueue.broker.overflow import member
from goqueue.job import ready_score
from goqueue.store import attempt_sql, migrate, session, sql
from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey

PAYLOAD_BYTES: Final = (200, 800, 1_200, 1_600, 1_900, 2_200, 4_000)
JOBS: Final = 10_000
CLAIM: Final = 50
"""Jobs of one claim: what a worker with its default 50 slots takes."""

READY: Final = 200_000
SLOTS: Final = (50, 1_000)
KILLS: Final = 5
BACKLOG: Final = 200_000

Connection = psycopg.Connection[tuple[object, ...]]

# md5 of each number does not compress, unlike repeated letters: real payloads are in between.
_SEED: Final = """
INSERT INTO jobs (queue, type, payload)
SELECT 'default', 'bench', jsonb_build_object('sent', number, 'pad', left(
    (SELECT string_agg(md5((number * 1000 + part)::text), '') FROM generate_series(1, %(bytes)s / 32 + 1) part),
    %(bytes)s - 30))
FROM generate_series(1, %(jobs)s) number
"""


def _number(connection: Connection, query: LiteralString, *parameters: object) -> int:
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None
    return int(str(row[0]))


def disk(connection: Connection, payload_bytes: int) -> tuple[float, float]:
    """Bytes a completed job takes on disk with its indexes and TOAST, and bytes of write-ahead log in its life."""
    connection.execute("TRUNCATE jobs CASCADE")
    connection.execute("CHECKPOINT")
    before = _number(connection, "SELECT pg_current_wal_lsn() - '0/0'")
    connection.execute(_SEED, {"bytes": payload_bytes, "jobs": JOBS})
    worker = _number(connection, sql.REGISTER_WORKER, "footprint", ["default"], CLAIM)
    ids = [int(str(row[0])) for row in connection.execute("SELECT id FROM jobs ORDER BY id")]
    for first in range(0, JOBS, CLAIM):
        claim = {"worker": worker, "ids": ids[first : first + CLAIM], "queue": "default", "lease": 1}
        claimed = sorted(connection.execute(attempt_sql.CLAIM, claim).fetchall())
        ends = {"ids": [row[0] for row in claimed], "leases": [row[1] for row in claimed], "results": None}
        connection.execute(attempt_sql.COMPLETE, ends)
    log = _number(connection, "SELECT pg_current_wal_lsn() - '0/0'") - before
    connection.execute("VACUUM jobs")
    return _number(connection, "SELECT pg_total_relation_size('jobs')") / JOBS, log / JOBS


def ready_set(valkey: EmbeddedValkey) -> float:
    """Bytes of Redis a waiting job takes, by the server's own count."""
    with Redis.from_url(valkey.url) as client:
        before = int(client.info("memory")["used_memory"])
        for first in range(0, READY, 10_000):
            numbers = range(first, first + 10_000)
            client.zadd("ready", {member(number): ready_score(0, 1_800_000_000_000 + number) for number in numbers})
        after = int(client.info("memory")["used_memory"])
        client.flushall()
    return (after - before) / READY


def killed(postgres: EmbeddedPostgres, valkey: EmbeddedValkey, slots: int) -> Iterator[int]:
    """Jobs that a draining worker held when it was killed: each of them has used up an attempt."""
    environment = {
        **os.environ,
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password,
        "POSTGRES_DB": DATABASE,
        "GOQUEUE_REDIS_URL": valkey.url,
        "GOQUEUE_JOBS": "benchmarks.goqueue_jobs",
        "GOQUEUE_WORKER_CONCURRENCY": str(slots),
        "GOQUEUE_WORKER_HEALTH_PORT": "0",
        "GOQUEUE_SCHEDULER_HEALTH_PORT": "0",
        "GOQUEUE_LOG_LEVEL": "error",
    }
    for kill in range(KILLS):
        with psycopg.connect(postgres.dsn_for(DATABASE), autocommit=True) as connection:
            connection.execute("TRUNCATE jobs, workers CASCADE")
            connection.execute(_SEED, {"bytes": 200, "jobs": BACKLOG})
            connection.execute("ANALYZE jobs")
            with Redis.from_url(valkey.url) as client:
                client.flushall()
            parts = [
                subprocess.Popen([sys.executable, "-m", "goqueue_cli", part], env=environment)
                for part in ("scheduler", "worker")
            ]
            try:
                # At a different moment each time; a second without progress ends the wait as a failure.
                _wait_until_completed(connection, BACKLOG // 10 * (kill + 1) // KILLS)
                parts[1].send_signal(signal.SIGKILL)
                parts[1].wait()
                yield _number(connection, "SELECT count(*) FROM jobs WHERE status = 'processing'")
            finally:
                for part in parts:
                    part.kill()
                    part.wait()


def _wait_until_completed(connection: Connection, wanted: int) -> None:
    for _ in range(3_000):
        if _number(connection, "SELECT count(*) FROM jobs WHERE status = 'completed'") >= wanted:
            return
        connection.execute("SELECT pg_sleep(0.02)")
    raise RuntimeError(f"the worker did not complete {wanted} jobs within a minute")


def _table(head: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(f"{cell:,.0f}" if isinstance(cell, (int, float)) else str(cell) for cell in row) + " |")
    print(flush=True)


def main() -> None:
    """Print the three tables."""
    folder = Path(tempfile.mkdtemp(prefix="goqueue-bench-"))
    with (
        EmbeddedPostgres(folder / "postgres", ephemeral=True, settings=POSTGRES_SETTINGS) as postgres,
        EmbeddedValkey(folder / "valkey", ephemeral=True) as valkey,
    ):
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        migrate.upgrade(postgres.dsn_for(DATABASE))
        with psycopg.connect(postgres.dsn_for(DATABASE), autocommit=True, prepare_threshold=0) as connection:
            connection.execute(session.preamble(connection.info.server_version, pgbouncer=False), prepare=False)
            head = ("payload, bytes", "on disk, bytes a job", "write-ahead log, bytes a job")
            _table(head, ((size, *disk(connection, size)) for size in PAYLOAD_BYTES))
        _table(("Redis, bytes a waiting job",), iter([(ready_set(valkey),)]))
        head = ("slots", "jobs held at a SIGKILL, median", "largest")
        held = ((slots, list(killed(postgres, valkey, slots))) for slots in SLOTS)
        _table(head, ((slots, statistics.median(counts), max(counts)) for slots, counts in held))


if __name__ == "__main__":
    main()
