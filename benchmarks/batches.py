"""What a job costs in a batch (decisions 11 and 12): `python -m benchmarks.batches`.

Claims and completions of a thousand jobs each, in turns, as they are and as they once were: claims that return `jsonb`
and timestamps; completions that return ids, or join with unnested arrays, without and with results. CPU time of the one
PostgreSQL process that serves them, and of this one, which decodes what comes back.
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

from benchmarks.children import cpu_seconds
from goqueue.store import migrate, sql
from goqueue.store.attempts import array_text
from goqueue.store.connect import PLANNER
from goqueue_cli.embedded import EmbeddedPostgres

BATCH: Final = 1000
BATCHES: Final = 100
"""Of each way to complete."""
RESULT: Final = '{"sum": 42, "text": "the result of a job"}'

CLAIM_TYPED: Final[LiteralString] = sql.CLAIM.replace("payload::text", "payload").replace(
    "date_part('epoch', now() - available_at)", "available_at, started_at"
)

COMPLETE_RETURNING: Final[LiteralString] = sql.COMPLETE + "RETURNING id"

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
    "claim": (sql.CLAIM, _text),
    "claim, jsonb and timestamps": (CLAIM_TYPED, lambda row: row[5]),
}
"""Each way to claim: the statement, and what makes a payload of a row."""

COMPLETIONS: Final[dict[str, tuple[LiteralString, Any]]] = {
    "complete": (sql.COMPLETE, lambda ids: None),
    "complete, ids returned": (COMPLETE_RETURNING, lambda ids: None),
    "complete, by a join": (JOIN, lambda ids: array_text(["NULL"] * len(ids))),
    "complete with results": (sql.COMPLETE, _object),
    "complete with results, by a join": (JOIN, lambda ids: [RESULT] * len(ids)),
}
"""Each way to complete: the statement, and the results for it."""

Costs = dict[str, list[tuple[float, float]]]


def _measure(connection: psycopg.Connection[Any]) -> Costs:
    """Microseconds of CPU for each job, of PostgreSQL and of this process, of each batch."""
    cursor = connection.cursor(binary=True)
    backend = connection.info.backend_pid
    costs: Costs = {}

    def timed(name: str, statement: LiteralString, parameters: dict[str, Any], decode: Callable[[Any], Any]) -> None:
        before, own = cpu_seconds(backend), time.process_time()
        cursor.execute(statement, parameters)
        for row in cursor if cursor.description else ():
            decode(row)
        own = time.process_time() - own
        costs.setdefault(name, []).append(((cpu_seconds(backend) - before) / BATCH * 1e6, own / BATCH * 1e6))
        if cursor.rowcount != BATCH:
            raise RuntimeError(f"{name}: {cursor.rowcount} of {BATCH} jobs")

    ids = sorted(row[0] for row in cursor.execute(SEED, (BATCH * BATCHES * len(COMPLETIONS),)).fetchall())
    cursor.execute("VACUUM ANALYZE jobs")
    cursor.execute(sql.REGISTER_WORKER, ("batches", ["default"], 1))
    worker = cursor.fetchall()[0][0]
    # Each way to claim comes before each way to complete.
    claims = itertools.cycle([*CLAIMS.items(), *reversed(CLAIMS.items())])
    ways = itertools.cycle(COMPLETIONS.items())
    leases = array_text([1] * BATCH)
    for batch in (ids[first : first + BATCH] for first in range(0, len(ids), BATCH)):
        claim, (statement, decode) = next(claims)
        timed(claim, statement, {"worker": worker, "ids": array_text(batch)}, decode)
        complete, (statement, results) = next(ways)
        held = {"ids": array_text(batch), "leases": leases, "results": results(batch)}
        timed(complete, statement, held, lambda row: row[0])
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
    print(f"{f'{BATCH} jobs a statement; CPU, us a job':<40} PostgreSQL   client")
    for name in (*CLAIMS, *COMPLETIONS):
        server, client = (statistics.mean(column) for column in zip(*costs[name], strict=True))
        print(f"{name:<40} {server:>10.2f} {client:>8.2f}")


if __name__ == "__main__":
    main()
