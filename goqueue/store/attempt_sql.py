"""The statements by which a worker claims jobs and ends attempts. EXPLAIN guards in the tests hold their plans."""

from typing import Final, LiteralString

# `status || ''` hides the column from the planner's statistics. They are mostly gathered while nothing is processing,
# so the planner would expect to find next to no such row and scan the table for it.

_CLAIMED: Final[LiteralString] = """
id, lease, attempts, queue, type, payload::text, max_retries, timeout,
    date_part('epoch', started_at - available_at), trace_context, date_part('epoch', created_at),
    coalesce(deaths, 0::smallint)
"""
"""Text, and seconds as one double: what psycopg makes `jsonb` and two timestamps into costs a worker as much again as
all else in a row (docs/decisions/0012-cheap-rows.md)."""

_MAY_RUN: Final[LiteralString] = """status = 'pending' AND available_at <= now() AND queue = %(queue)s
    AND cancel_requested_at IS NULL"""


def _claim(ids: LiteralString) -> LiteralString:
    return f"""
UPDATE jobs
SET status = 'processing', attempts = attempts + 1, lease = %(lease)s, worker_id = %(worker)s, started_at = now(),
    updated_at = now()
WHERE id = ANY({ids}) AND {_MAY_RUN}
    AND EXISTS (SELECT FROM workers WHERE workers.id = %(worker)s)
    AND NOT EXISTS (SELECT FROM queues WHERE name = %(queue)s AND paused_at IS NOT NULL)
RETURNING {_CLAIMED}
"""


CLAIM: Final[LiteralString] = _claim("%(ids)s::bigint[]")
"""The claim asks for the pause, too: nobody gets a job of a queue once its pause is committed, whatever a worker has
heard of it."""

CLAIM_UNLOCKED: Final[LiteralString] = _claim(
    f"ARRAY(SELECT id FROM jobs WHERE id = ANY(%(ids)s::bigint[]) AND {_MAY_RUN} FOR NO KEY UPDATE SKIP LOCKED)"
)
"""The same without the rows that another transaction has locked; costs a second visit to each row."""

HELD: Final[LiteralString] = f"""
SELECT {_CLAIMED} FROM jobs
WHERE id = ANY(%(ids)s::bigint[]) AND lease = ANY(%(leases)s::int[]) AND worker_id = %(worker)s
    AND status || '' = 'processing'
"""

END_CANCELLED: Final[LiteralString] = """
UPDATE jobs SET status = 'cancelled', finished_at = now(), updated_at = now(), dispatch_at = NULL, active_key = NULL
WHERE id = ANY(ARRAY(SELECT id FROM jobs WHERE id = ANY(%(ids)s::bigint[]) AND status = 'pending'
    AND cancel_requested_at IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED))
"""
"""A waiting job that somebody asked to cancel: left by a version whose ends could miss such a request."""

WAITING: Final[LiteralString] = """
SELECT jobs.id, queue, priority, available_at, paused_at IS NOT NULL AS paused
FROM jobs LEFT JOIN queues ON queues.name = jobs.queue
WHERE jobs.id = ANY(%(ids)s::bigint[]) AND status = 'pending' AND available_at <= now()
"""


def _completion(progress: LiteralString = "") -> LiteralString:
    return f"""
UPDATE jobs
SET status = 'completed', result = %(results)s::jsonb -> id::text, error = NULL, finished_at = now(),
    updated_at = now(), dispatch_at = NULL, active_key = NULL{progress}
WHERE id = ANY(%(ids)s::bigint[]) AND lease = (%(leases)s::int[])[width_bucket(id, %(ids)s::bigint[])]
    AND status || '' = 'processing'
"""


COMPLETE: Final[LiteralString] = _completion()
"""No ids come back: the count of rows says that all were ours, and `COMPLETED` which, where it does not.

The ids ascend and differ. So one walk through the index finds all jobs; a binary search (`width_bucket`) finds the
lease that each must have, and an object its result. What a join with unnested arrays costs instead:
docs/decisions/0011-full-cores.md."""

COMPLETE_WITH_PROGRESS: Final[LiteralString] = _completion(
    ", progress = coalesce((%(progress)s::jsonb ->> id::text)::real, progress)"
)
"""Where one of them has reported progress; the others keep what they have."""

COMPLETED: Final[LiteralString] = """
SELECT id FROM jobs
WHERE id = ANY(%(ids)s::bigint[]) AND lease = (%(leases)s::int[])[width_bucket(id, %(ids)s::bigint[])]
    AND status || '' = 'completed'
"""

STILL_PROCESSING: Final[LiteralString] = """
SELECT id, lease FROM jobs
WHERE id = ANY(%(ids)s::bigint[]) AND lease = ANY(%(leases)s::int[]) AND status || '' = 'processing'
"""

END_OTHERWISE: Final[LiteralString] = """
WITH ended AS (
    UPDATE jobs
    SET status = CASE WHEN jobs.cancel_requested_at IS NOT NULL AND ended.status = 'pending' THEN 'cancelled'
            ELSE ended.status END,
        result = coalesce(ended.result, jobs.result),
        error = CASE WHEN ended.refund > 0 AND ended.outcome <> 'deferred' THEN jobs.error ELSE ended.error END,
        attempts = jobs.attempts - ended.refund, updated_at = now(),
        available_at = CASE WHEN again AND jobs.cancel_requested_at IS NULL AND NOT keeps_place THEN due
            ELSE jobs.available_at END,
        dispatch_at = CASE WHEN again AND jobs.cancel_requested_at IS NULL THEN due END,
        finished_at = CASE WHEN again AND jobs.cancel_requested_at IS NULL THEN NULL ELSE now() END,
        failed_at = CASE WHEN ended.status = 'failed' THEN now() END,
        active_key = CASE WHEN again AND jobs.cancel_requested_at IS NULL THEN jobs.active_key END,
        trace_context = coalesce(ended.trace_context, jobs.trace_context),
        progress = CASE WHEN again AND jobs.cancel_requested_at IS NULL THEN NULL
            ELSE coalesce(ended.progress, jobs.progress) END
    FROM unnest(%s::bigint[], %s::int[], %s::text[], %s::text[], %s::int[], %s::real[], %s::jsonb[], %s::text[],
            %s::text[], %s::real[])
            AS ended (id, lease, status, error, refund, delay, result, outcome, trace_context, progress)
        CROSS JOIN LATERAL (SELECT ended.status = 'pending' AS again, now() + make_interval(secs => ended.delay) AS due,
            ended.outcome = 'handed_back' AND ended.delay = 0 AS keeps_place) AS next
    WHERE jobs.id = ended.id AND jobs.lease = ended.lease AND jobs.status || '' = 'processing'
    RETURNING jobs.id, jobs.lease, jobs.attempts + ended.refund AS attempt, ended.outcome, ended.error,
        jobs.worker_id, jobs.started_at, jobs.round
), kept AS (
    INSERT INTO job_attempts (job_id, lease, attempt, outcome, error, worker, started_at, round)
    SELECT ended.id, ended.lease, attempt, outcome, error, workers.name, ended.started_at, ended.round
    FROM ended LEFT JOIN workers ON workers.id = ended.worker_id
    ON CONFLICT DO NOTHING
)
SELECT id FROM ended
"""
"""A request to cancel is read from the row that is written, which the statement may have waited for: what a join reads
of the row is older. A job that was handed back keeps its place in its queue.
A deferral is not charged, but its error is shown with the job: it says what the job waits for."""

DEFERRED_FOR: Final[LiteralString] = """
SELECT date_part('epoch', now() - min(finished_at)) FROM job_attempts AS kept
WHERE job_id = %(job)s AND outcome = 'deferred' AND NOT EXISTS (
    SELECT FROM job_attempts AS later WHERE later.job_id = %(job)s AND later.finished_at > kept.finished_at
        AND (later.outcome NOT IN ('deferred', 'handed_back', 'rescued')
            OR coalesce(later.round, 1) <> coalesce(kept.round, 1)))
    AND coalesce(round, 1) = (SELECT coalesce(round, 1) FROM jobs WHERE id = %(job)s)
"""

LOCKED: Final[LiteralString] = """
WITH free AS (SELECT id FROM jobs WHERE id = ANY(%(ids)s::bigint[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
SELECT id FROM jobs WHERE id = ANY(%(ids)s::bigint[]) AND id NOT IN (SELECT id FROM free)
"""
"""Locks the rows that nobody has locked, as an UPDATE would, and tells the others."""
