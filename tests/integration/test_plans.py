"""Work costs the same at any depth: the plans of the hot statements, and what a job costs in writes."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from goqueue.access import Reach
from goqueue.job import AttemptEnd, JobFilter, NewJob, Outcome
from goqueue.lifecycle import JobStatus
from goqueue.store import attempt_sql, attempts, dispatch, listing, quota_counts, rescue, retention, sql
from goqueue.store.bounds import in_index_order
from goqueue.store.connect import Connection, fetch_all
from goqueue.store.enqueue import insert
from tests.integration.engine import Engine, claim

IDS = list(range(1, 501))
LONG_AGO = "2026-01-01T00:00:00Z"
LISTED = {"after_time": LONG_AGO, "after": 0, "until": "2026-01-02T00:00:00Z", "limit": 5000}
HOT: dict[str, tuple[str, Any]] = {
    "claim": (attempt_sql.CLAIM, {"worker": 1, "ids": IDS, "queue": "default", "lease": 1}),
    "claim of what is not locked": (
        attempt_sql.CLAIM_UNLOCKED,
        {"worker": 1, "ids": IDS, "queue": "default", "lease": 1},
    ),
    "held": (attempt_sql.HELD, {"worker": 1, "ids": IDS, "leases": [1, 2]}),
    "waiting": (attempt_sql.WAITING, {"ids": IDS}),
    "end cancelled": (attempt_sql.END_CANCELLED, {"ids": IDS}),
    "deferred for": (attempt_sql.DEFERRED_FOR, {"job": 1}),
    "locked": (attempt_sql.LOCKED, {"ids": IDS}),
    "complete": (attempt_sql.COMPLETE, {"ids": IDS, "leases": IDS, "results": None}),
    "complete with progress": (
        attempt_sql.COMPLETE_WITH_PROGRESS,
        {"ids": IDS, "leases": IDS, "results": None, "progress": '{"1": 0.5}'},
    ),
    "end otherwise": (
        attempt_sql.END_OTHERWISE,
        (
            IDS,
            IDS,
            ["pending"] * 500,
            [""] * 500,
            [0] * 500,
            [1.0] * 500,
            [None] * 500,
            ["retried"] * 500,
            [None] * 500,
            [None] * 500,
        ),
    ),
    "progress": (sql.SAVE_PROGRESS, (IDS, IDS, [0.5] * 500)),
    "get": (sql.GET_JOBS, ([1],)),
    "cancel": (sql.CANCEL, (1,)),
    "due": (dispatch.DUE, (LONG_AGO, 0, "2026-01-02T00:00:00Z", 5000)),
    "recent": (dispatch.RECENT, ([1, 500], [500, 600])),
    "unseen": (dispatch.UNSEEN, ([1, 500], [500, 600])),
    "open above the floor": (dispatch.OPEN_ABOVE, {"after": 0, "before": 10**9, "limit": 5000}),
    "open below the floor": (dispatch.OPEN_LISTED, LISTED),
    "orphans above the floor": (rescue.ORPHANS_ABOVE, {"after": 0, "before": 10**9, "limit": 20_000}),
    "orphans of a queue": (rescue.ORPHANS_OF_QUEUE, {"queue": "default", "after": 0, "limit": 20_000}),
    "orphans below the floor": (rescue.ORPHANS_LISTED, LISTED),
    "orphans among": (rescue.ORPHANS_AMONG, (IDS,)),
    "park": (dispatch.PARK, (1, 5000)),
    "unparked": (dispatch.UNPARKED, (1, 5000)),
    "queues in use": (sql.QUEUES_IN_USE, {"known": ["default"]}),
    "rescue": (rescue.RESCUE, {"ids": IDS, "delays": [0.0] * 500, "error": "died", "uncharged": 2}),
    "past their age": (retention.PAST, {"after": 0, "limit": 5000, "completed": 1.0, "failed": 1.0}),
    "prune": (retention.DELETE, {"ids": IDS, "completed": 1.0, "failed": 1.0}),
}


@pytest.fixture
async def connection(engine: Engine) -> AsyncIterator[Connection]:
    async with engine.database.connection() as connection:
        yield connection


async def plan(connection: Connection, statement: Any, parameters: Any) -> str:
    rows = await fetch_all(connection, "EXPLAIN (FORMAT JSON) " + statement, parameters)
    return json.dumps(rows[0][0])


async def fill(connection: Connection, count: int) -> None:
    await connection.execute(
        "INSERT INTO jobs (queue, type, payload, status, finished_at)"
        " SELECT 'default', 'noop', '{}', 'completed', now() FROM generate_series(1, %s)",
        (count,),
    )


@pytest.mark.parametrize("name", HOT)
async def test_a_hot_statement_never_scans_the_jobs_however_little_the_planner_knows(
    connection: Connection, name: str
) -> None:
    # Empty and never analyzed: the worst moment at which a prepared statement can get its plan.
    found = await plan(connection, *HOT[name])
    assert not _scans_jobs(json.loads(found)[0]["Plan"]), found


IN_ORDER = {
    "due": "jobs_dispatch",
    "open below the floor": "jobs_dispatch",
    "orphans below the floor": "jobs_dispatch",
    "open above the floor": "jobs_pkey",
    "orphans above the floor": "jobs_pkey",
    "orphans of a queue": "jobs_queue_id",
    "past their age": "jobs_pkey",
}


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("name", IN_ORDER)
async def test_the_next_chunk_is_read_in_the_order_of_an_index_and_nothing_that_comes_after_it(
    connection: Connection, name: str, settled: bool
) -> None:
    if settled:  # the statistics of a time when nothing waited
        await fill(connection, 1000)
        await connection.execute("ANALYZE jobs")
        await connection.execute("DELETE FROM jobs")
    async with in_index_order(connection):
        found = json.loads(await plan(connection, *HOT[name]))[0]["Plan"]
    limits = [node for node in _nodes(found) if node["Node Type"] == "Limit" and "jobs" in json.dumps(node)]
    [scan] = [below for below in limits[0]["Plans"] if below.get("Relation Name") == "jobs"]
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", IN_ORDER[name])
    if IN_ORDER[name] == "jobs_dispatch":
        assert "ROW(dispatch_at, id)" in scan["Index Cond"]


async def test_through_pgbouncer_without_session_settings_the_plans_hold_too(
    connection: Connection,
) -> None:
    await fill(connection, 250_000)
    await connection.execute("ANALYZE jobs")
    async with connection.transaction():
        for switch in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
            await connection.execute("SELECT set_config(%s, 'on', true)", (switch,))
        found = {name: await plan(connection, *HOT[name]) for name in ("claim", "complete", "due", "recent", "get")}
    assert not [name for name in found if _scans_jobs(json.loads(found[name])[0]["Plan"])]


LISTINGS: dict[str, dict[str, Any]] = {
    "queue": {},
    **{status: {"status": status} for status in JobStatus},
    "type": {"type": "absent"},
    "created": {"created_after": datetime(2020, 1, 1, tzinfo=UTC), "created_before": datetime(2020, 1, 2, tzinfo=UTC)},
    "tenant": {"reach": Reach("acme")},
    "failed of a tenant": {"reach": Reach("acme"), "status": JobStatus.FAILED},
}


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("name", LISTINGS)
async def test_a_listing_reads_a_bounded_number_of_rows_by_an_index_in_its_order_however_little_the_planner_knows(
    engine: Engine, connection: Connection, name: str, newest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.execute("ALTER TABLE jobs SET (autovacuum_enabled = off)")
    await fill(connection, 30_000)
    run, plans = connection.execute, []

    async def explained(query: Any, *parameters: Any, **options: Any) -> Any:
        text = query if isinstance(query, str) else query.as_string(connection)
        if "jobs" in text:
            [[found]] = await (await run(f"EXPLAIN (FORMAT JSON) {text}".encode(), prepare=False)).fetchall()
            plans.append(found[0]["Plan"])
        return await run(query, *parameters, **options)

    monkeypatch.setattr(connection, "execute", explained)
    await listing.search(connection, JobFilter(queue="default", newest_first=newest_first, **LISTINGS[name]))
    assert plans
    for found in plans:
        assert not _scans_jobs(found), found
        assert not _unbounded(found), found


def _unbounded(node: dict[str, Any], within_limit: bool = False) -> bool:
    """Whether rows of `jobs` are read by anything but their ids, and not under a LIMIT that ends the reading."""
    limited = node["Node Type"] == "Limit" or (within_limit and node["Node Type"] != "Sort")
    condition = str(node.get("Index Cond", ""))
    by_ids = "id = ANY" in condition
    if node.get("Relation Name") == "jobs" and not (limited or by_ids):
        return True
    return any(_unbounded(child, limited) for child in node.get("Plans", []))


def _nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The node and all below it."""
    return [node, *(below for child in node.get("Plans", []) for below in _nodes(child))]


def _scans_jobs(node: dict[str, Any]) -> bool:
    if node["Node Type"] == "Seq Scan" and node.get("Relation Name") == "jobs":
        return True
    return any(_scans_jobs(child) for child in node.get("Plans", []))


async def _hot_share(engine: Engine, connection: Connection) -> float:
    """Of the updates that a few thousand jobs make, the part that touched no index."""
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'jobs'"
    await connection.execute("SELECT pg_stat_force_next_flush()")
    [[updates, hot]] = await engine.rows(query)
    worker = await attempts.register(connection, "w", ["default"], 500)
    done = 0
    for _ in range(20):
        made, _ready = await insert(connection, [NewJob("default", "noop", {"pad": "x" * 200})] * 250)
        claimed = await claim(connection, worker, [job.id for job in made])
        ends = [AttemptEnd(job.id, job.lease, Outcome.COMPLETED) for job in claimed]
        done += len(await attempts.complete(connection, ends))
    assert done == 5000
    await connection.execute("SELECT pg_stat_force_next_flush()")
    [[updates_now, hot_now]] = await engine.rows(query)
    return float(hot_now - hot) / float(updates_now - updates)


async def test_a_job_that_just_runs_touches_no_index_after_its_insert(engine: Engine, connection: Connection) -> None:
    """Claim and finish are heap-only updates: an index that names a column they change would show here at once."""
    assert await _hot_share(engine, connection) > 0.95


async def test_under_an_old_snapshot_it_still_touches_none(engine: Engine, connection: Connection) -> None:
    """No version can be pruned, so all three of a row must find room on its page."""
    async with engine.database.connection() as reader, reader.transaction():
        await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reader.execute("SELECT count(*) FROM jobs")
        assert await _hot_share(engine, connection) > 0.9


async def test_claim_costs_the_same_number_of_buffers_with_a_hundred_thousand_jobs_more(
    connection: Connection,
) -> None:
    async def cost() -> int:
        worker = await attempts.register(connection, "w", ["default"], 500)
        made, _ = await insert(connection, [NewJob("default", "noop", {})] * 100)
        rows = await fetch_all(
            connection,
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + attempt_sql.CLAIM,
            {"worker": worker, "ids": [job.id for job in made], "queue": "default", "lease": 1},
        )
        found = rows[0][0][0]["Plan"]
        return int(found["Shared Hit Blocks"] + found["Shared Read Blocks"])

    await cost()
    before = await cost()
    await fill(connection, 100_000)
    await connection.execute("ANALYZE jobs")
    assert await cost() <= before * 1.5 + 50


async def test_claims_do_not_slow_down_over_dead_tuples_that_an_old_snapshot_keeps(
    engine: Engine, connection: Connection
) -> None:
    async with engine.database.connection() as reader, reader.transaction():
        await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reader.execute("SELECT count(*) FROM jobs")
        worker = await attempts.register(connection, "w", ["default"], 500)
        buffers = []
        for _ in range(10):
            made, _ready = await insert(connection, [NewJob("default", "noop", {})] * 500)
            rows = await fetch_all(
                connection,
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + attempt_sql.CLAIM,
                {"worker": worker, "ids": [job.id for job in made], "queue": "default", "lease": 1},
            )
            buffers.append(rows[0][0][0]["Plan"]["Shared Hit Blocks"])
            ends = [AttemptEnd(job.id, 1, Outcome.COMPLETED) for job in made]
            assert len(await attempts.complete(connection, ends)) == 500
        assert max(buffers[5:]) <= 1.5 * max(buffers[1:4])


async def test_the_sweep_for_strays_reads_each_job_once(engine: Engine, connection: Connection) -> None:
    made, _ = await insert(connection, [NewJob("default", "noop", {})] * 10)
    first = await dispatch.recent(connection, [(made[0].id, made[-1].id + 1)])
    assert [job.id for job in first] == [job.id for job in made]
    assert await dispatch.recent(connection, [(made[-1].id + 1, made[-1].id + 1)]) == []


async def test_the_statements_of_a_lone_job_are_planned_once(engine: Engine) -> None:
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "lone", ["default"], 1)
        for _ in range(10):  # PostgreSQL decides after five executions
            [made], _ready = await insert(connection, [NewJob("default", "noop", {})])
            [job] = await claim(connection, worker, [made.id])
            assert await attempts.complete(connection, [AttemptEnd(job.id, job.lease, Outcome.COMPLETED)]) == {job.id}
        planned = await fetch_all(
            connection,
            "SELECT custom_plans FROM pg_prepared_statements WHERE statement LIKE '%% jobs%%' AND generic_plans > 5",
            (),
        )
        assert [count for (count,) in planned] == [0, 0, 0]


TENANT = {"tenant": "acme", "most": 1000}


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("statement", [quota_counts.WAITING_OF_TENANT, quota_counts.WAITING_OF_TENANT_AMONG_MANY])
async def test_the_waiting_jobs_of_a_tenant_are_counted_without_those_of_others(
    connection: Connection, statement: Any, analyzed: bool
) -> None:
    await connection.execute(
        "INSERT INTO jobs (queue, type, payload, tenant, dispatch_at) SELECT 'q' || n % 3, 'noop', '{}',"
        " CASE WHEN n % 1000 = 0 THEN 'acme' WHEN n % 3 > 0 THEN 'other' END, CASE WHEN n % 2 = 0 THEN now() END"
        " FROM generate_series(1, 30000) AS n"
    )
    if analyzed:
        await connection.execute("ANALYZE jobs")
    async with connection.transaction():
        await connection.execute(listing.ORDERED)
        rows = await fetch_all(connection, "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + statement, TENANT)
    read = _rows_read(rows[0][0][0]["Plan"])
    own, listed = read.pop("jobs_tenant"), read.pop("jobs_dispatch", 0)
    assert not read, rows
    assert own <= 2 * 30 + 4  # its jobs, and one for each queue
    assert listed <= quota_counts.LISTED


@pytest.mark.parametrize("listed", [0, 20_000])
async def test_a_tenants_waiting_jobs_are_counted_above_and_below_the_floor(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, listed: int
) -> None:
    monkeypatch.setattr(quota_counts, "LISTED", listed)
    await connection.execute(
        "INSERT INTO jobs (id, queue, type, payload, tenant, status, finished_at, dispatch_at) SELECT n, 'q' || n % 3,"
        " 'noop', '{}', CASE WHEN n % 4 > 0 THEN 't' || n % 4 END, CASE WHEN n % 5 = 0 THEN 'completed'"
        " WHEN n % 7 = 0 THEN 'processing' ELSE 'pending' END, CASE WHEN n % 5 = 0 THEN now() END,"
        " CASE WHEN n % 5 > 0 AND n <= 600 THEN now() END FROM generate_series(1, 1000) AS n"
    )
    await connection.execute("UPDATE dispatch_floor SET id = 601")
    for tenant in ("t1", "t2", "t3", None, "nobody"):
        ((expected,),) = await fetch_all(
            connection,
            "SELECT count(*) FROM jobs WHERE status = 'pending' AND tenant IS NOT DISTINCT FROM %s",
            (tenant,),
        )
        assert await quota_counts.waiting_of(connection, tenant, 10_000) == expected
        assert await quota_counts.waiting_of(connection, tenant, 5) == min(5, expected)
    await connection.execute("SELECT setval('jobs_id_seq', 1000)")


def _rows_read(plan: dict[str, Any]) -> dict[str, float]:
    """Rows that each index, or a whole table, gave."""
    read: dict[str, float] = {}
    table = plan.get("Relation Name", plan.get("Index Name"))
    if table == "jobs" or str(table).startswith("jobs_"):
        place = plan.get("Index Name", "the table")
        rows = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
        read[place] = read.get(place, 0) + rows
    for part in plan.get("Plans", ()):
        for place, rows in _rows_read(part).items():
            read[place] = read.get(place, 0) + rows
    return read
