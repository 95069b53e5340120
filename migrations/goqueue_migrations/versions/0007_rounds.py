"""Which round of attempts a job is in: a retry by hand begins a new one, in which attempts are counted from 1 again.

NULL is the first round. So a job that nobody retried by hand takes no byte more, and attempts and log lines that were
written before, or by older code, are of the first. No index has the column, so an update of a job stays heap-only.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = ("jobs", "job_attempts", "job_logs")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS round integer")


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} DROP COLUMN round")
