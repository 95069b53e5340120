"""Idempotency keys of requests, beside the jobs that they made.

Only requests with an `Idempotency-Key` header write here; `jobs` gains neither a column nor an index. A row holds a
digest of the caller and the key, a fingerprint of the request, and the job's id. No foreign key: each would make every
update of a job dearer (see 0004), and a key must be remembered beyond its job where retention is short.

`look_at`: the retention duty looks at the row then, and forgets it 24 hours after the job's end.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UP = """
CREATE TABLE idempotency_keys (
    digest bytea PRIMARY KEY,
    fingerprint text NOT NULL,
    job_id bigint NOT NULL,
    job_gone boolean NOT NULL DEFAULT false,
    look_at timestamptz NOT NULL
);
CREATE INDEX idempotency_keys_look_at ON idempotency_keys (look_at);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("DROP TABLE idempotency_keys")
