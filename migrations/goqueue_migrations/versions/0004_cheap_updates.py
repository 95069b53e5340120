"""What each update of a job paid for beside its work: foreign keys that pointed at it, and two CHECKs where one does.

For each foreign key that refers to a table PostgreSQL asks at every update of a row whether the key changed, and reads
the old row again to find out. A job is updated at least twice and its id never changes. A trigger that runs once for
each DELETE takes attempts and log lines along with their jobs instead; updates do not meet it. It acts with its owner's
rights, so that the processes' role needs none to delete from these tables, as with the foreign keys.

The CHECK says in one walk through the states what two said in two: which there are, and which have `finished_at`.

docs/decisions/0012-cheap-rows.md has the measurements. Nothing here locks writers out for longer than a moment: the
constraint is validated beside them.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# All of it may run again: what stands before the validation is kept where that fails.
EXPAND = """
DO $migration$
BEGIN
    EXECUTE format($create$
        CREATE OR REPLACE FUNCTION goqueue_forget_jobs() RETURNS trigger LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = %I, pg_temp AS $function$
        BEGIN
            DELETE FROM job_attempts USING gone WHERE job_attempts.job_id = gone.id;
            DELETE FROM job_logs USING gone WHERE job_logs.job_id = gone.id;
            RETURN NULL;
        END
        $function$
    $create$, current_schema());
END
$migration$;
REVOKE ALL ON FUNCTION goqueue_forget_jobs() FROM PUBLIC;
DROP TRIGGER IF EXISTS jobs_gone ON jobs;
CREATE TRIGGER jobs_gone AFTER DELETE ON jobs REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION goqueue_forget_jobs();
ALTER TABLE jobs
    DROP CONSTRAINT IF EXISTS jobs_finished_if_final,
    ADD CONSTRAINT jobs_finished_if_final CHECK (CASE status
        WHEN 'completed' THEN finished_at IS NOT NULL
        WHEN 'processing' THEN finished_at IS NULL
        WHEN 'pending' THEN finished_at IS NULL
        WHEN 'failed' THEN finished_at IS NOT NULL
        WHEN 'cancelled' THEN finished_at IS NOT NULL
        ELSE false END) NOT VALID;
"""

CONTRACT = """
ALTER TABLE jobs DROP CONSTRAINT jobs_status_known, DROP CONSTRAINT jobs_final_is_finished;
ALTER TABLE job_attempts DROP CONSTRAINT job_attempts_job_id_fkey;
ALTER TABLE job_logs DROP CONSTRAINT job_logs_job_id_fkey;
"""

DOWN = """
DELETE FROM job_attempts WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = job_id);
DELETE FROM job_logs WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = job_id);
ALTER TABLE job_attempts ADD FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE;
ALTER TABLE job_logs ADD FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE;
DROP TRIGGER jobs_gone ON jobs;
DROP FUNCTION goqueue_forget_jobs();
ALTER TABLE jobs
    ADD CONSTRAINT jobs_status_known
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    ADD CONSTRAINT jobs_final_is_finished
        CHECK ((finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))),
    DROP CONSTRAINT jobs_finished_if_final;
"""


def upgrade() -> None:
    op.execute(EXPAND)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE jobs VALIDATE CONSTRAINT jobs_finished_if_final")
    op.execute(CONTRACT)


def downgrade() -> None:
    op.execute(DOWN)
