"""API keys, tenants of jobs and schedules, and the audit log.

A job without a tenant belongs to the default tenant, so all rows of before are valid as they are, and adding the
columns writes none of them. The index serves only jobs that have a tenant and names columns that never change:
installations without tenants do not pay for it, and claims and finishes stay heap-only updates. It is built without
locking out writers.

Keys that are unique within a tenant carry its name: a job's `active_key`, a schedule's `name` (see `goqueue.job` and
`goqueue.store.schedules`). So the unique indexes stay as they are, and processes of the version before go on working.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# All of it may run again: what stands before the index is kept where building the index fails.
UP = """
ALTER TABLE jobs ADD COLUMN IF NOT EXISTS tenant text;
ALTER TABLE schedules ADD COLUMN IF NOT EXISTS tenant text;

CREATE TABLE IF NOT EXISTS api_keys (
    prefix text PRIMARY KEY,
    name text NOT NULL,
    digest bytea NOT NULL,
    former_digest bytea,
    former_until timestamptz,
    scopes text[] NOT NULL,
    tenant text,
    queues text[],
    types text[],
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);
CREATE TABLE IF NOT EXISTS audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    tenant text,
    action text NOT NULL,
    object text NOT NULL,
    address text,
    request_id text,
    details jsonb
);
CREATE INDEX IF NOT EXISTS audit_log_at ON audit_log (at);
"""

DOWN = """
DROP TABLE audit_log, api_keys;
DELETE FROM schedules WHERE tenant IS NOT NULL;
ALTER TABLE schedules DROP COLUMN tenant;
DROP INDEX IF EXISTS jobs_tenant;
ALTER TABLE jobs DROP COLUMN tenant;
"""


def upgrade() -> None:
    op.execute(UP)
    with op.get_context().autocommit_block():
        # An attempt that was interrupted leaves an index that is not valid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS jobs_tenant")
        op.execute("CREATE INDEX CONCURRENTLY jobs_tenant ON jobs (tenant, queue, id) WHERE tenant IS NOT NULL")


def downgrade() -> None:
    op.execute(DOWN)
