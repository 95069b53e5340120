"""What a job costs in a batch (decisions 11 and 12): `python -m benchmarks.batches`.

Claims and completions of a thousand jobs each, in turns, as they are and as they once were: claims that return `jsonb`
and timestamps; completions that return ids, or join with unnested arrays, without and with results; each on the schema
of today and on that of before migration 0004, with foreign keys that point at jobs. CPU time of the one PostgreSQL
process that serves them, and of this one, which decodes what comes back.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, LiteralString

import orjson
import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.children import cpu_seconds
from goqueue.store import attempt_sql, migrate, session, sql
from goqueue.store.attempts import array_text
from goqueue_cli.embedded import EmbeddedPostgres

BATCH: Final = 1000
BATCHES: Final = 100
"""Of each way to complete."""
BEFORE: Final = "0003"
"""Revision of the schema with foreign keys that point at jobs."""
RESULT: Final = '{"sum": 42, "text": "the result of a job"}'

CLAIM_TYPED: Final[LiteralString] = attempt_sql.CLAIM.replace("payload::text", "payload").replace(
    "date_part('epoch', started_at - available_at)", "available_at, started_at"
)

COMPLETE_RETURNING: Final[LiteralString] = attempt_sql.COMPLETE + "RETURNING id"

JOIN: Final[LiteralString] = """
UPDATE jobs
SET status = 'completed', result = done.result, error = NULL, finished_at = now(), updated_at = now(),
    dispatch_at = NULL, active_key = NULL
FROM unnest(%(ids)s::bigint[], %(leases)s::int[], %(results)s::jsonb[]) AS done (id, lease, result)
WHERE jobs.id = done.id AND jobs.lease = done.lease AND jobs.status || '' = 'processing'
RETURNING jobs.id
"""

SEED: Final[LiteralString] = """
INSERT INTO jobs (queue, type, payload)
SELECT 'default', 'bench', jsonb_build_object('sent', n, 'pad', repeat('x', 160)) FROM generate_series(1, %s) AS n
RETURNING id
"""


def _object(ids: list[int]) -> str:
    return "{" + ",".join(f'"{id}":{RESULT}' for id in ids) + "}"


def _text(row: Any) -> Any:
    return orjson.loads(row[5])


CLAIMS: Final[dict[str, tuple[LiteralString, Callable[[Any], Any]]]] = {
    "claim": (attempt_sql.CLAIM, _text),
    "claim, jsonb and timestamps": (CLAIM_TYPED, lambda row: row[5]),
}
"""Each way to claim: the statement, and what makes a payload of a row."""

COMPLETIONS: Final[dict[str, tuple[LiteralString, Any]]] = {
    "complete": (attempt_sql.COMPLETE, lambda ids: None),
    "complete, ids returned": (COMPLETE_RETURNING, lambda ids: None),
    "complete, by a join": (JOIN, lambda ids: array_text(["NULL"] * len(ids))),
    "complete with results": (attempt_sql.COMPLETE, _object),
    "complete with results, by a join": (JOIN, lambda ids: [RESULT] * len(ids)),
}
"""Each way to complete: the statement, and the results for it."""

Cost = tuple[float, float]


class Table:
    """Jobs in a database of their own, on one revision of the schema, and what each batch of them cost."""

    def __init__(self, postgres: EmbeddedPostgres, revision: str) -> None:
        name = f"batches_{revision}"
        with psycopg.connect(postgres.dsn, autocommit=True) as admin:
            admin.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        migrate.upgrade(postgres.dsn_for(name), revision)
        self.connection = psycopg.connect(postgres.dsn_for(name), autocommit=True)
        self.connection.prepare_threshold = 0
        self.connection.execute(session.preamble(self.connection.info.server_version, pgbouncer=False), prepare=False)
        self._cursor = self.connection.cursor(binary=True)
        self._backend = self.connection.info.backend_pid
        rows = self._cursor.execute(SEED, (BATCH * BATCHES * len(COMPLETIONS),)).fetchall()
        self.ids = sorted(row[0] for row in rows)
        self._cursor.execute("VACUUM ANALYZE jobs")
        self._cursor.execute(sql.REGISTER_WORKER, ("batches", ["default"], 1))
        self._worker = self._cursor.fetchall()[0][0]
        self.costs: dict[str, list[Cost]] = {}

    def claim(self, way: str, ids: list[int]) -> None:
        """Claim these jobs."""
        statement, decode = CLAIMS[way]
        self._timed(
            way, statement, {"worker": self._worker, "ids": array_text(ids), "queue": "default", "lease": 1}, decode
        )

    def complete(self, way: str, ids: list[int]) -> None:
        """Complete them."""
        statement, results = COMPLETIONS[way]
        held = {"ids": array_text(ids), "leases": array_text([1] * BATCH), "results": results(ids)}
        self._timed(way, statement, held, lambda row: row[0])

    def _timed(self, way: str, statement: LiteralString, values: dict[str, Any], decode: Callable[[Any], Any]) -> None:
        before, own = cpu_seconds(self._backend), time.process_time()
        self._cursor.execute(statement, values)
        for row in self._cursor if self._cursor.description else ():
            decode(row)
        own = time.process_time() - own
        self.costs.setdefault(way, []).append((cpu_seconds(self._backend) - before, own))
        if self._cursor.rowcount != BATCH:
            raise RuntimeError(f"{way}: {self._cursor.rowcount} of {BATCH} jobs")

    def cost(self, way: str) -> Cost:
        """Microseconds of CPU a job, of PostgreSQL and of this process."""
        server, client = (statistics.mean(column) / BATCH * 1e6 for column in zip(*self.costs[way], strict=True))
        return server, client


def _measure(tables: list[Table]) -> None:
    # Each way to claim comes before each way to complete.
    claims = itertools.cycle([*CLAIMS, *reversed(CLAIMS)])
    completions = itertools.cycle(COMPLETIONS)
    for first in range(0, len(tables[0].ids), BATCH):
        claim, complete = next(claims), next(completions)
        for table in tables:
            ids = table.ids[first : first + BATCH]
            table.claim(claim, ids)
            table.complete(complete, ids)


def main() -> None:
    """Print the table."""
    folder = Path(tempfile.mkdtemp(prefix="goqueue-bench-"))
    with EmbeddedPostgres(folder, ephemeral=True, settings={"shared_buffers": "1GB"}) as postgres:
        former, today = tables = [Table(postgres, revision) for revision in (BEFORE, "head")]
        _measure(tables)
        for table in tables:
            table.connection.close()
    print(f"{f'{BATCH} jobs a statement; CPU, us a job':<40} PostgreSQL   at {BEFORE}   client")
    for way in (*CLAIMS, *COMPLETIONS):
        server, client = today.cost(way)
        print(f"{way:<40} {server:>10.2f} {former.cost(way)[0]:>9.2f} {client:>8.2f}")


if __name__ == "__main__":
    main()
