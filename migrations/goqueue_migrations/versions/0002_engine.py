"""What the engine needs beside the Go project's columns, and the indexes that keep a finish a HOT update.

PostgreSQL updates a row "heap only" (no index is touched) when no column that an index names, in its keys or its
predicate, changes. A job is updated at least twice, at claim and at finish, so `idx_jobs_status` and its siblings
made every transition pay for every index. Here no index names a column that an ordinary claim or finish changes:

- jobs_queue_id      listing a queue; neither column ever changes.
- jobs_dispatch      only jobs the dispatcher has to look at: scheduled, retried, or open for long. NULL for the rest.
- jobs_failed        the dead letters; written once, when a job fails for good.
- jobs_active_key    uniqueness while not final; NULL for jobs without a key.
- jobs_source_key    one row per CR or schedule tick; NULL for the rest.

docs/decisions/0001-indexes.md has the measurements.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UP = """
DROP INDEX IF EXISTS idx_jobs_status, idx_jobs_queue_status, idx_jobs_available_at, idx_jobs_locked_at,
    idx_jobs_deleted_at, idx_jobs_queue;
ALTER TABLE jobs
    DROP COLUMN IF EXISTS locked_at,
    DROP COLUMN IF EXISTS locked_by,
    ADD COLUMN priority smallint NOT NULL DEFAULT 0,
    ADD COLUMN lease integer NOT NULL DEFAULT 0,
    ADD COLUMN worker_id bigint,
    ADD COLUMN timeout real,
    ADD COLUMN started_at timestamptz,
    ADD COLUMN finished_at timestamptz,
    ADD COLUMN failed_at timestamptz,
    ADD COLUMN dispatch_at timestamptz,
    ADD COLUMN cancel_requested_at timestamptz,
    ADD COLUMN progress real,
    ADD COLUMN unique_key text,
    ADD COLUMN active_key text,
    ADD COLUMN source text NOT NULL DEFAULT 'api',
    ADD COLUMN source_key text,
    ADD COLUMN trace_context text;
UPDATE jobs SET finished_at = updated_at WHERE status IN ('completed', 'failed', 'cancelled');
UPDATE jobs SET failed_at = updated_at WHERE status = 'failed';
UPDATE jobs SET dispatch_at = available_at WHERE status = 'pending';
ALTER TABLE jobs
    ADD CONSTRAINT jobs_status_known
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    ADD CONSTRAINT jobs_final_is_finished
        CHECK ((finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))),
    SET (fillfactor = 33, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000,
         autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1);
CREATE INDEX jobs_queue_id ON jobs (queue, id);
CREATE INDEX jobs_dispatch ON jobs (dispatch_at) WHERE dispatch_at IS NOT NULL;
CREATE INDEX jobs_failed ON jobs (id) WHERE failed_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_active_key ON jobs (active_key) WHERE active_key IS NOT NULL;
CREATE UNIQUE INDEX jobs_source_key ON jobs (source_key) WHERE source_key IS NOT NULL;

CREATE TABLE job_attempts (
    job_id bigint NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    lease integer NOT NULL,
    attempt integer NOT NULL,
    outcome text NOT NULL,
    error text,
    worker text,
    started_at timestamptz,
    finished_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, lease)
);
CREATE TABLE job_logs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    attempt integer NOT NULL,
    level text NOT NULL,
    message text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX job_logs_job ON job_logs (job_id, id);
CREATE TABLE workers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    queues text[] NOT NULL,
    concurrency integer NOT NULL,
    busy integer NOT NULL DEFAULT 0,
    beat bigint NOT NULL DEFAULT 0,
    draining boolean NOT NULL DEFAULT false,
    stats jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE TABLE queues (
    name text PRIMARY KEY,
    paused_at timestamptz
);
CREATE TABLE schedules (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    cron text NOT NULL,
    time_zone text NOT NULL DEFAULT 'UTC',
    job jsonb NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    last_tick timestamptz,
    last_job_id bigint,
    next_tick timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE leaders (
    duty text PRIMARY KEY,
    holder text NOT NULL,
    term bigint NOT NULL DEFAULT 1,
    renewed_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE TABLE dispatch_floor (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id bigint NOT NULL DEFAULT 0
);
INSERT INTO dispatch_floor DEFAULT VALUES;
"""

DOWN = """
DROP TABLE dispatch_floor, leaders, schedules, queues, workers, job_logs, job_attempts;
DROP INDEX jobs_queue_id, jobs_dispatch, jobs_failed, jobs_active_key, jobs_source_key;
ALTER TABLE jobs
    DROP CONSTRAINT jobs_status_known,
    DROP CONSTRAINT jobs_final_is_finished,
    RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
           autovacuum_analyze_scale_factor, autovacuum_vacuum_insert_scale_factor),
    DROP COLUMN priority, DROP COLUMN lease, DROP COLUMN worker_id, DROP COLUMN timeout, DROP COLUMN started_at,
    DROP COLUMN finished_at, DROP COLUMN failed_at, DROP COLUMN dispatch_at, DROP COLUMN cancel_requested_at,
    DROP COLUMN progress, DROP COLUMN unique_key, DROP COLUMN active_key, DROP COLUMN source,
    DROP COLUMN source_key, DROP COLUMN trace_context;
UPDATE jobs SET status = 'pending' WHERE status = 'processing';
CREATE INDEX idx_jobs_status ON jobs (status);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
