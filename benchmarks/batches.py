"""What a job costs PostgreSQL in a batch (decision 11): `python -m benchmarks.batches`.

Claims and completions of a thousand jobs each, in turns: completions as they are, and as the join with unnested arrays
that they once were, each without and with results. CPU time of the one PostgreSQL process that serves them.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from benchmarks.children import cpu_seconds
from goqueue.store import migrate, sql
from goqueue.store.attempts import array_text
from goqueue.store.connect import PLANNER
from goqueue_cli.embedded import EmbeddedPostgres

BATCH: Final = 1000
BATCHES: Final = 100
"""Of each way to complete."""
RESULT: Final = '{"sum": 42, "text": "the result of a job"}'

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


WAYS: Final[dict[str, tuple[LiteralString, Any]]] = {
    "complete": (sql.COMPLETE, lambda ids: None),
    "complete, by a join": (JOIN, lambda ids: array_text(["NULL"] * len(ids))),
    "complete with results": (sql.COMPLETE, _object),
    "complete with results, by a join": (JOIN, lambda ids: [RESULT] * len(ids)),
}
"""Each way to complete: the statement, and the results for it."""


def _measure(connection: psycopg.Connection[Any]) -> dict[str, list[float]]:
    """Microseconds of CPU for each job, of each batch."""
    cursor = connection.cursor(binary=True)
    backend = connection.info.backend_pid
    costs: dict[str, list[float]] = {}

    def timed(name: str, statement: LiteralString, parameters: dict[str, Any]) -> None:
        before = cpu_seconds(backend)
        cursor.execute(statement, parameters)
        costs.setdefault(name, []).append((cpu_seconds(backend) - before) / BATCH * 1e6)
        if len(found := cursor.fetchall()) != BATCH:
            raise RuntimeError(f"{name}: {len(found)} of {BATCH} jobs")

    ids = sorted(row[0] for row in cursor.execute(SEED, (BATCH * BATCHES * len(WAYS),)).fetchall())
    cursor.execute("VACUUM ANALYZE jobs")
    cursor.execute(sql.REGISTER_WORKER, ("batches", ["default"], 1))
    worker = cursor.fetchall()[0][0]
    for number in range(BATCHES):
        for place, (name, (statement, results)) in enumerate(WAYS.items()):
            first = (number * len(WAYS) + place) * BATCH
            batch = ids[first : first + BATCH]
            timed("claim", sql.CLAIM, {"worker": worker, "ids": array_text(batch)})
            leases = array_text([1] * BATCH)
            timed(name, statement, {"ids": array_text(batch), "leases": leases, "results": results(batch)})
    return costs


def main() -> None:
    """Print the table."""
    folder = Path(tempfile.mkdtemp(prefix="goqueue-bench-"))
    with EmbeddedPostgres(folder, ephemeral=True, settings={"shared_buffers": "1GB"}) as postgres:
        migrate.upgrade(postgres.dsn)
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.prepare_threshold = 0
            connection.execute("; ".join(PLANNER), prepare=False)
            costs = _measure(connection)
    print(f"{f'{BATCH} jobs a statement':<36} CPU of PostgreSQL, us a job")
    for name, values in costs.items():
        print(f"{name:<36} {statistics.mean(values):>6.2f}")


if __name__ == "__main__":
    main()
