"""How many workers died while they held a job, and an index in the order in which the dispatcher reads.

`deaths` NULL is none, so rows that exist are valid as they are and a job whose workers live takes no byte more. No
index has the column: an update of a job stays heap-only.

The index on `dispatch_at` alone made each chunk of jobs that are due at one moment sort all of them again, which is
quadratic in their number. With the id as its second column the next chunk begins where the last one ended. It replaces
the former index and is built beside writers.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _replace(columns: str) -> None:
    with op.get_context().autocommit_block():
        # An attempt that was interrupted leaves an index that is not valid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS jobs_dispatch_new")
        op.execute(f"CREATE INDEX CONCURRENTLY jobs_dispatch_new ON jobs ({columns}) WHERE dispatch_at IS NOT NULL")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS jobs_dispatch")
        op.execute("ALTER INDEX jobs_dispatch_new RENAME TO jobs_dispatch")


def upgrade() -> None:
    op.execute("ALTER TABLE jobs ADD COLUMN IF NOT EXISTS deaths smallint")
    _replace("dispatch_at, id")


def downgrade() -> None:
    op.execute("ALTER TABLE jobs DROP COLUMN deaths")
    _replace("dispatch_at")
