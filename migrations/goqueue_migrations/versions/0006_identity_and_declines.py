"""Who this installation is, and which payments were declined.

`installation` has one row, whose id makes identities of messages (`webhook-id`, `Message-ID`) differ between databases
that count their jobs from 1 alike. `payment_declines` counts the definite declines of a payment, so that the next
charge has another idempotency key (docs/decisions/0013-declined-payments.md); it holds a digest of each payment_id.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE installation (id uuid NOT NULL DEFAULT gen_random_uuid());
CREATE UNIQUE INDEX installation_one_row ON installation ((true));
INSERT INTO installation DEFAULT VALUES;
CREATE TABLE payment_declines (
    payment bytea PRIMARY KEY,
    declines integer NOT NULL,
    declined_at timestamptz NOT NULL DEFAULT now()
);
"""

DOWN = """
DROP TABLE payment_declines;
DROP TABLE installation;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
