"""Until when a worker is asked to fetch no jobs.

The operator sets it before it takes the worker's pod, so that no job is interrupted. It is a lease: an operator that is
gone leaves no worker stopped. NULL: the worker was not asked.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE workers ADD COLUMN IF NOT EXISTS drain_until timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE workers DROP COLUMN drain_until")
