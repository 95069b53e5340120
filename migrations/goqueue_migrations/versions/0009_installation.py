"""An id of the installation: what other stores are marked with, so that two installations do not share them unawares.

It stays with the database: a restored backup has it, and so has a copy.
"""

from alembic import op

revision = "0009"
down_revision = "0004"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE IF NOT EXISTS installation (id uuid NOT NULL DEFAULT gen_random_uuid());
INSERT INTO installation SELECT WHERE NOT EXISTS (SELECT FROM installation);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS installation")
