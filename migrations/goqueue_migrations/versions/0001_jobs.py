"""The Go project's `jobs` table: adopted with its rows where it stands, created where it does not."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The Go project changed its table over time; this brings every version of it to one shape and keeps the rows.
# Its words for a waiting and a running job were first pending/processing, later queued/running.
ADOPT = """
ALTER TABLE jobs
    ADD COLUMN IF NOT EXISTS type varchar(255) NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS available_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS deleted_at timestamptz,
    ALTER COLUMN queue TYPE text, ALTER COLUMN type TYPE text, ALTER COLUMN status TYPE text,
    ALTER COLUMN attempts TYPE integer, ALTER COLUMN max_retries TYPE integer,
    ALTER COLUMN payload TYPE jsonb USING to_jsonb(payload), ALTER COLUMN result TYPE jsonb USING to_jsonb(result),
    ALTER COLUMN status SET DEFAULT 'pending';
UPDATE jobs SET status = 'pending' WHERE status IN ('queued', 'running', 'processing');
UPDATE jobs SET type = CASE queue WHEN 'webhooks' THEN 'send_webhook' WHEN 'payment' THEN 'process_payment'
    ELSE 'send_email' END WHERE type = '';
UPDATE jobs SET payload = '{}' WHERE payload IS NULL;
UPDATE jobs SET attempts = coalesce(attempts, 0), max_retries = coalesce(max_retries, 5),
    created_at = coalesce(created_at, now()), updated_at = coalesce(updated_at, now())
    WHERE attempts IS NULL OR max_retries IS NULL OR created_at IS NULL OR updated_at IS NULL;
UPDATE jobs SET error = NULL WHERE error = '';
ALTER TABLE jobs
    ALTER COLUMN queue SET NOT NULL, ALTER COLUMN payload SET NOT NULL, ALTER COLUMN type DROP DEFAULT,
    ALTER COLUMN status SET NOT NULL,
    ALTER COLUMN attempts SET DEFAULT 0, ALTER COLUMN attempts SET NOT NULL,
    ALTER COLUMN max_retries SET DEFAULT 5, ALTER COLUMN max_retries SET NOT NULL,
    ALTER COLUMN created_at SET DEFAULT now(), ALTER COLUMN created_at SET NOT NULL,
    ALTER COLUMN updated_at SET DEFAULT now(), ALTER COLUMN updated_at SET NOT NULL;
"""

CREATE = """
CREATE TABLE jobs (
    id bigserial PRIMARY KEY,
    queue text NOT NULL,
    type text NOT NULL,
    payload jsonb NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    max_retries integer NOT NULL DEFAULT 5,
    available_at timestamptz NOT NULL DEFAULT now(),
    result jsonb,
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE INDEX idx_jobs_status ON jobs (status);
"""


def upgrade() -> None:
    # In the schema where it would be created: one further down the search path is somebody else's.
    there = "SELECT to_regclass(quote_ident(current_schema()) || '.jobs') IS NOT NULL"
    exists = op.get_bind().exec_driver_sql(there).scalar_one()
    op.execute(ADOPT if exists else CREATE)


def downgrade() -> None:
    op.execute("DROP TABLE jobs")
