"""The same drain in a database that has lived: an old snapshot that forbids clean-up, or dead rows."""

from collections.abc import Callable

from benchmarks.bench import Bench, Run
from benchmarks.counting import Rows
from benchmarks.measures.drain import drain
from benchmarks.systems import System

DEAD = 1_000_000


def _litter(jobs: int) -> Callable[[Run], None]:
    def prepare(run: Run) -> None:
        assert isinstance(run.counter, Rows)
        table, key = run.counter.table, run.counter.key
        with run.stores() as stores:
            stores.postgres.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            for _ in range(-(-DEAD // jobs)):
                # A new version of every row, as each change of a job's state makes one.
                stores.postgres.execute(f"UPDATE {table} SET {key} = {key}")  # noqa: S608 - constants of the benchmarks

    return prepare


def bloat(bench: Bench, system: System) -> dict[str, float]:
    """Measure 6."""
    jobs = min(bench.options.jobs, system.most)
    figures = {"drain, fresh": drain(bench, system, 2, jobs).rate}
    # Begun before the workers start: no row version that the drain leaves behind can be removed.
    snapshots = []

    def hold(run: Run) -> None:
        connection = bench.servers.connect()
        snapshots.append(connection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM pg_class")

    try:
        figures["drain, old snapshot held"] = drain(bench, system, 2, jobs, prepare=hold).rate
    finally:
        for connection in snapshots:
            connection.close()
    figures["drain, after 1M dead tuples"] = drain(bench, system, 2, jobs, prepare=_litter(jobs)).rate
    return figures
