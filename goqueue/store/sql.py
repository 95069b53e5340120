"""The statements of the engine, named; those of claims and ends are in `attempt_sql`, those of the leader's duties in
`dispatch`, `rescue`, `retention` and `leaders`. EXPLAIN guards in the tests hold the plans of the hot ones.

"Open" means not final. Two statements' worth of index entries would be paid by every job if open jobs were found by
an index on status, so they are found like this: each open job has `id >= floor` (a range of the primary key) or a
`dispatch_at` (the partial index `jobs_dispatch`, empty for jobs that pass through quickly). `goqueue.store.dispatch`
moves the floor and keeps this true; docs/decisions/0001-indexes.md tells why.
"""

from typing import Final, LiteralString

COLUMNS: Final[LiteralString] = """id, queue, type, payload, status, attempts, max_retries, result, error, created_at,
    updated_at, priority, available_at, timeout, started_at, finished_at, unique_key, source, worker_id,
    cancel_requested_at, progress, trace_context, tenant"""

FLOOR: Final[LiteralString] = "(SELECT id FROM dispatch_floor)"

NEW_LEASE: Final[LiteralString] = "(1 + random() * 1073741823)::integer"
"""A lease for a write that takes a job from whoever holds it; see `goqueue.store.attempts.new_lease`."""

# --- enqueue ---------------------------------------------------------------------------------------------------------


_TENANT_KEY: Final[LiteralString] = "coalesce(tenant || chr(31), '') || unique_key"

ACTIVE_KEY: Final[LiteralString] = (
    "coalesce(tenant || chr(31), '') || coalesce(chr(31) || nullif(split_part(source_key, '@', 2), '') || chr(31), '')"
    " || unique_key"
)
"""The scope of a unique key, and the key; see `goqueue.job.NewJob.active_key`."""


def _insertion(
    id: LiteralString = "", array: LiteralString = "", active_key: LiteralString = ACTIVE_KEY
) -> LiteralString:
    """An INSERT of many; with `id` and its array: of jobs whose ids were drawn before."""
    return f"""
INSERT INTO jobs ({id}queue, type, payload, max_retries, priority, available_at, timeout, unique_key, active_key,
    source, source_key, trace_context, tenant, dispatch_at)
SELECT {id}queue, type, payload, max_retries, priority, coalesce(available_at, now()), timeout, unique_key,
    {active_key}, source, source_key, trace_context, tenant,
    CASE WHEN available_at > now() THEN available_at WHEN owed THEN now() END
FROM unnest({array}%s::text[], %s::text[], %s::jsonb[], %s::int[], %s::smallint[], %s::timestamptz[], %s::real[],
    %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::boolean[]) WITH ORDINALITY
    AS input ({id}queue, type, payload, max_retries, priority, available_at, timeout, unique_key, source, source_key,
        trace_context, tenant, owed, ord)
ORDER BY ord
"""


INSERT_JOBS: Final[LiteralString] = _insertion()
"""Ids are drawn in input order (the default is evaluated above the sort), so ids in ascending order match it."""

INSERT_DRAWN: Final[LiteralString] = _insertion("id, ", "%s::bigint[], ")
"""For jobs whose ids were drawn before, since what is encrypted is bound to them."""

INSERT_ONE: Final[LiteralString] = """
INSERT INTO jobs (queue, type, payload, max_retries, priority, available_at, timeout, source, trace_context,
    tenant, dispatch_at)
VALUES (%(queue)s, %(type)s, %(payload)s, %(max_retries)s, %(priority)s, coalesce(%(due)s::timestamptz, now()),
    %(timeout)s, %(source)s, %(trace)s, %(tenant)s, CASE WHEN %(due)s > now() THEN %(due)s END)
RETURNING id, created_at, available_at, dispatch_at IS NULL AS ready
"""
"""The same for a lone job: arrays of one element cost client and server more than the row."""

_MADE: Final[LiteralString] = "RETURNING id, created_at, available_at, dispatch_at IS NULL AS ready"
_UNLESS_KEY_TAKEN: Final[LiteralString] = f"ON CONFLICT DO NOTHING {_MADE}, active_key, source_key"

INSERT_PLAIN: Final[LiteralString] = _insertion(active_key=_TENANT_KEY) + _MADE
INSERT_PLAIN_DRAWN: Final[LiteralString] = _insertion("id, ", "%s::bigint[], ", _TENANT_KEY) + _MADE
INSERT_KEYED: Final[LiteralString] = INSERT_JOBS + _UNLESS_KEY_TAKEN
INSERT_KEYED_DRAWN: Final[LiteralString] = INSERT_DRAWN + _UNLESS_KEY_TAKEN

LOCK_JOBS: Final[LiteralString] = "LOCK TABLE jobs IN ROW EXCLUSIVE MODE"
"""The lock that an INSERT has before it draws its first id; for rows that come after their ids were drawn."""

DRAW_IDS: Final[LiteralString] = """
SELECT ARRAY(SELECT nextval('jobs_id_seq') FROM generate_series(1, %s)), now()
"""

COPY_JOBS: Final[LiteralString] = """
COPY jobs (id, queue, type, max_retries, priority, available_at, dispatch_at, timeout, source, trace_context, tenant,
    payload)
FROM STDIN (FORMAT binary)
"""

FIND_KEYED: Final[LiteralString] = """
SELECT id, active_key, source_key FROM jobs WHERE active_key = ANY(%s)
UNION ALL SELECT id, active_key, source_key FROM jobs WHERE source_key = ANY(%s)
"""

# --- running jobs: the worker (claims and ends: `goqueue.store.attempt_sql`) ------------------------------------------

SAVE_PROGRESS: Final[LiteralString] = """
UPDATE jobs SET progress = reported.fraction, updated_at = now()
FROM unnest(%s::bigint[], %s::int[], %s::real[]) AS reported (id, lease, fraction)
WHERE jobs.id = reported.id AND jobs.lease = reported.lease AND jobs.status || '' = 'processing'
"""

SAVE_LOGS: Final[LiteralString] = """
INSERT INTO job_logs (job_id, attempt, level, message, at, round)
SELECT job_id, line.attempt, level, message, at, jobs.round
FROM unnest(%s::bigint[], %s::float8[], %s::int[], %s::text[], %s::text[], %s::timestamptz[]) WITH ORDINALITY
    AS line (job_id, made, attempt, level, message, at, ord)
JOIN jobs ON jobs.id = job_id AND date_part('epoch', created_at) = made
ORDER BY ord
FOR KEY SHARE OF jobs
"""
"""The lock keeps a job from being deleted before its lines are there to go with it."""

REGISTER_WORKER: Final[LiteralString] = """
INSERT INTO workers (name, queues, concurrency) VALUES (%s, %s, %s) RETURNING id
"""

HEARTBEAT: Final[LiteralString] = """
UPDATE workers SET beat = beat + 1, heartbeat_at = now(), busy = %(busy)s, draining = %(draining)s, stats = %(stats)s
WHERE id = %(worker)s AND name = coalesce(%(name)s::text, name) RETURNING id
"""
"""With the name, since ids repeat after a failover that lost the newest registrations: two workers that share one would
keep each other's jobs from being rescued."""

CANCEL_REQUESTS: Final[LiteralString] = """
SELECT id FROM jobs WHERE id = ANY(%s) AND cancel_requested_at IS NOT NULL AND status = 'processing'
"""

DEREGISTER_WORKER: Final[LiteralString] = "DELETE FROM workers WHERE id = %s"

# --- one job: the API ------------------------------------------------------------------------------------------------

GET_JOBS: Final[LiteralString] = f"SELECT {COLUMNS} FROM jobs WHERE id = ANY(%s) AND deleted_at IS NULL"

PLACE_OF: Final[LiteralString] = "SELECT tenant, queue, type FROM jobs WHERE id = %s AND deleted_at IS NULL"

STATUS_OF: Final[LiteralString] = "SELECT status FROM jobs WHERE id = %s AND deleted_at IS NULL"

SET_STATUS: Final[LiteralString] = f"""
UPDATE jobs
SET status = %(status)s, updated_at = now(), lease = {NEW_LEASE}, worker_id = NULL,
    started_at = CASE WHEN %(status)s = 'processing' THEN now() ELSE started_at END,
    finished_at = CASE WHEN %(final)s THEN now() END,
    failed_at = CASE WHEN %(status)s = 'failed' THEN now() END,
    available_at = CASE WHEN %(status)s = 'pending' THEN now() ELSE available_at END,
    progress = CASE WHEN %(final)s THEN progress END,
    dispatch_at = CASE WHEN %(final)s THEN NULL ELSE now() END,
    cancel_requested_at = CASE WHEN %(status)s = 'pending' THEN NULL ELSE cancel_requested_at END,
    active_key = CASE WHEN %(final)s THEN NULL WHEN finished_at IS NULL THEN active_key ELSE {ACTIVE_KEY} END
WHERE id = %(id)s AND status = ANY(%(sources)s) AND deleted_at IS NULL
RETURNING queue
"""
"""A status set by hand takes a new lease, so whoever ran the job before can no longer write to it. A job that is open
again has its unique key again; the index refuses that while another open job holds the key."""

INCREMENT_ATTEMPTS: Final[LiteralString] = """
UPDATE jobs SET attempts = attempts + 1, updated_at = now()
WHERE id = %s AND attempts < 2147483647 AND deleted_at IS NULL RETURNING id
"""

SAVE_RESULT: Final[LiteralString] = """
UPDATE jobs SET result = %s::jsonb, error = %s, updated_at = now() WHERE id = %s AND deleted_at IS NULL RETURNING id
"""

CANCEL: Final[LiteralString] = """
UPDATE jobs
SET status = CASE WHEN held THEN status ELSE 'cancelled' END, updated_at = now(),
    cancel_requested_at = coalesce(cancel_requested_at, now()),
    finished_at = CASE WHEN held THEN NULL ELSE now() END,
    dispatch_at = CASE WHEN held THEN dispatch_at END, active_key = CASE WHEN held THEN active_key END
FROM (SELECT id AS it, status = 'processing' AND worker_id IS NOT NULL AS held FROM jobs WHERE id = %s FOR UPDATE)
    AS now_is
WHERE id = it AND status IN ('pending', 'processing') AND deleted_at IS NULL
RETURNING status, queue
"""
"""A job that a worker holds is asked to stop and ends in `cancelled` when it has; any other ends at once."""

RETRY: Final[LiteralString] = f"""
UPDATE jobs
SET status = 'pending', attempts = 0, round = coalesce(round, 1) + 1, lease = {NEW_LEASE}, available_at = now(),
    dispatch_at = now(), finished_at = NULL, failed_at = NULL, cancel_requested_at = NULL, progress = NULL,
    updated_at = now(), active_key = {ACTIVE_KEY}
WHERE id = %s AND status IN ('failed', 'cancelled') AND deleted_at IS NULL
RETURNING queue, priority, available_at
"""

SOFT_DELETE: Final[LiteralString] = (
    "UPDATE jobs SET deleted_at = now() WHERE id = %s AND deleted_at IS NULL RETURNING id"
)

LOGS_OF: Final[LiteralString] = """
SELECT id, coalesce(round, 1), attempt, level, message, at FROM job_logs WHERE job_id = %s AND id > %s
ORDER BY id LIMIT %s
"""

# --- queues and schedules --------------------------------------------------------------------------------------------

PAUSED: Final[LiteralString] = "SELECT name FROM queues WHERE paused_at IS NOT NULL"

PAUSE: Final[LiteralString] = """
INSERT INTO queues (name, paused_at) VALUES (%s, now())
ON CONFLICT (name) DO UPDATE SET paused_at = coalesce(queues.paused_at, now())
"""

RESUME: Final[LiteralString] = "UPDATE queues SET paused_at = NULL WHERE name = %s"

QUEUES_IN_USE: Final[LiteralString] = f"""
WITH RECURSIVE kept AS (
    (SELECT queue FROM jobs ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT jobs.queue FROM jobs WHERE jobs.queue > kept.queue ORDER BY jobs.queue LIMIT 1) FROM kept
    WHERE kept.queue IS NOT NULL
)
SELECT queue FROM kept
WHERE queue <> ALL(%(known)s)
    AND (EXISTS (SELECT FROM jobs WHERE jobs.queue = kept.queue AND id >= {FLOOR} AND finished_at IS NULL)
        OR EXISTS (SELECT FROM jobs WHERE jobs.queue = kept.queue AND dispatch_at IS NOT NULL AND id < {FLOOR}
            AND finished_at IS NULL))
UNION
SELECT name FROM queues WHERE paused_at IS NOT NULL AND name <> ALL(%(known)s)
ORDER BY queue
"""
"""From one name to the next in the index on (queue, id): that costs a few pages for each queue, however many jobs."""

TENANTS_EXIST: Final[LiteralString] = "SELECT EXISTS (SELECT FROM jobs WHERE tenant IS NOT NULL)"

TYPES: Final[LiteralString] = "SELECT queue, type, count(*) FROM jobs WHERE id = ANY(%s) GROUP BY queue, type"

_OPEN_COUNTS: Final[LiteralString] = f"""
SELECT queue, count(*) FILTER (WHERE status = 'pending' AND available_at <= now()) AS ready,
    count(*) FILTER (WHERE status = 'pending' AND available_at > now()) AS scheduled,
    count(*) FILTER (WHERE status = 'processing') AS processing,
    extract(epoch FROM now() - min(available_at) FILTER (WHERE status = 'pending' AND available_at <= now()))::float
        AS oldest_seconds
FROM (
    SELECT queue, status, available_at, tenant, type FROM jobs WHERE id >= {FLOOR} AND finished_at IS NULL
    UNION ALL
    SELECT queue, status, available_at, tenant, type FROM jobs WHERE dispatch_at IS NOT NULL AND id < {FLOOR}
        AND finished_at IS NULL
) AS open
"""

OPEN_COUNTS: Final[LiteralString] = _OPEN_COUNTS + "GROUP BY queue"

OPEN_COUNTS_WITHIN: Final[LiteralString] = (
    _OPEN_COUNTS + "WHERE tenant IS NOT DISTINCT FROM %(tenant)s"
    " AND (%(types)s::text[] IS NULL OR type = ANY(%(types)s)) GROUP BY queue"
)

FAILED_COUNTS: Final[LiteralString] = """
SELECT queue, count(*) FROM jobs WHERE failed_at IS NOT NULL AND deleted_at IS NULL GROUP BY queue
"""

SCHEDULE_COLUMNS: Final[LiteralString] = """id, substr(name, coalesce(length(tenant), -1) + 2) AS name, cron, time_zone,
    job, enabled, last_tick, last_job_id, next_tick, created_at, updated_at, tenant"""
"""The name of a tenant's schedule is stored as `tenant/name`; no name of its own holds a slash."""

LIST_SCHEDULES: Final[LiteralString] = f"""
SELECT {SCHEDULE_COLUMNS}, more FROM (
    SELECT *, sum(octet_length(job::text)) OVER (page ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes,
        lead(id) OVER page IS NOT NULL AS more
    FROM (
        SELECT * FROM schedules
        WHERE (%(all)s OR tenant IS NOT DISTINCT FROM %(tenant)s) AND (%(after)s::text IS NULL OR name > %(after)s)
        ORDER BY name LIMIT %(limit)s + 1
    ) AS following
    WINDOW page AS (ORDER BY name)
) AS schedules
WHERE coalesce(bytes, 0) < %(bytes)s ORDER BY schedules.name LIMIT %(limit)s
"""
"""`more`: another one follows."""
GET_SCHEDULE: Final[LiteralString] = f"SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE name = %s"
LOCK_SCHEDULE: Final[LiteralString] = f"{GET_SCHEDULE} FOR NO KEY UPDATE"
SWITCH_SCHEDULE: Final[LiteralString] = f"""
UPDATE schedules SET enabled = %(enabled)s, next_tick = %(next_tick)s, updated_at = now() WHERE id = %(id)s
RETURNING {SCHEDULE_COLUMNS}
"""
PUT_SCHEDULE: Final[LiteralString] = f"""
INSERT INTO schedules (name, cron, time_zone, job, enabled, next_tick, tenant)
VALUES (%(name)s, %(cron)s, %(time_zone)s, %(job)s, %(enabled)s, %(next_tick)s, %(tenant)s)
ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, time_zone = excluded.time_zone, job = excluded.job,
    enabled = excluded.enabled, updated_at = now(),
    next_tick = CASE WHEN schedules.cron = excluded.cron AND schedules.time_zone = excluded.time_zone
        AND schedules.enabled AND excluded.enabled THEN schedules.next_tick ELSE excluded.next_tick END
RETURNING {SCHEDULE_COLUMNS}, (xmax = 0) AS created
"""
"""A tick that is due, or that another clock computed, is kept while the schedule's times stay the same."""
DELETE_SCHEDULE: Final[LiteralString] = "DELETE FROM schedules WHERE name = %s RETURNING id"
SCHEDULES_DUE: Final[LiteralString] = f"""
SELECT {SCHEDULE_COLUMNS}, now() AS now FROM schedules WHERE enabled AND next_tick <= now() ORDER BY next_tick
"""
ADVANCE_SCHEDULE: Final[LiteralString] = """
UPDATE schedules SET last_tick = %(tick)s, last_job_id = coalesce(%(job_id)s, last_job_id), next_tick = %(next_tick)s
WHERE id = %(id)s AND next_tick = %(was)s
"""
SCHEDULES_AHEAD: Final[LiteralString] = f"""
SELECT {SCHEDULE_COLUMNS}, now() AS now FROM schedules
WHERE enabled AND time_zone <> 'UTC' AND id > %(after)s ORDER BY id LIMIT %(limit)s
"""
"""Schedules whose next tick depends on zone data."""

MOVE_SCHEDULE: Final[LiteralString] = """
UPDATE schedules SET next_tick = %(next_tick)s
WHERE id = %(id)s AND next_tick = %(was)s AND updated_at = %(updated_at)s
"""
