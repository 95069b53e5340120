"""The store against a model: hypothesis drives every transition in any order and compares after each step."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from goqueue.errors import Conflict
from goqueue.job import AttemptEnd, NewJob, Outcome
from goqueue.lifecycle import OPEN, JobStatus, allowed
from goqueue.settings import DatabaseSettings
from goqueue.store import attempts, jobs, rescue
from goqueue.store.connect import Database, fetch_all
from goqueue.store.enqueue import insert
from tests.integration.engine import claim, empty
from tests.servers.stores import FreshDatabase


@dataclass
class Model:
    """What a job must look like."""

    status: JobStatus
    attempts: int
    max_retries: int
    lease: int
    key: str | None
    worker: int | None = None
    cancel: bool = False
    deaths: int = 0


class StoreMachine(RuleBasedStateMachine):
    """Jobs in a real database beside a dictionary that says what should be there."""

    database: FreshDatabase
    loop: asyncio.AbstractEventLoop
    jobs: Bundle[int] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, Model] = {}
        self.former: dict[int, int] = {}
        self.workers: set[int] = set()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        settings = DatabaseSettings(max_retries=0)
        self.pool = Database(self.database.dsn, settings, maximum=2)
        self.run(self.pool.open(settings))
        self.run(self._in(empty))
        self.worker = self.run(self._in(attempts.register, "w", ["default"], 1))
        self.workers = {self.worker}

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.run(self.pool.close())

    async def _in(self, call: Any, *arguments: Any) -> Any:
        async with self.pool.connection() as connection:
            return await call(connection, *arguments)

    @rule(target=jobs, retries=st.integers(0, 2), key=st.sampled_from([None, None, "a", "b"]))
    def enqueue(self, retries: int, key: str | None) -> int:
        (made,), _ = self.run(self._in(insert, [NewJob("default", "t", {}, max_retries=retries, unique_key=key)]))
        holder = [id for id, job in self.model.items() if key and job.key == key and job.status in OPEN]
        assert made.created == (not holder)
        if holder:
            assert made.id == holder[0]
        else:
            self.model[made.id] = Model(JobStatus.PENDING, 0, retries, 0, key)
        return int(made.id)

    def take_new_lease(self, job: int, drawn: int | None = None) -> None:
        """The job has another lease than before: the one that its claim drew, or one that PostgreSQL drew."""
        model = self.model[job]
        [[stored]] = self.run(self._in(fetch_all, "SELECT lease FROM jobs WHERE id = %s", (job,)))
        assert stored != model.lease
        assert drawn in (None, stored)
        self.former[job], model.lease = model.lease, stored

    @rule(job=jobs)
    def claim(self, job: int) -> None:
        claimed = self.run(self._in(claim, self.worker, [job]))
        model = self.model[job]
        assert bool(claimed) == (model.status is JobStatus.PENDING)
        if claimed:
            model.status, model.worker = JobStatus.PROCESSING, self.worker
            model.attempts += 1
            assert claimed[0].attempt == model.attempts
            self.take_new_lease(job, claimed[0].lease)

    @rule(job=jobs, stale=st.booleans(), outcome=st.sampled_from(list(Outcome)))
    def end(self, job: int, stale: bool, outcome: Outcome) -> None:
        if outcome is Outcome.RESCUED:
            return
        model = self.model[job]
        lease = self.former.get(job, 0) if stale else model.lease
        end = AttemptEnd(job, lease, outcome, error=None if outcome is Outcome.COMPLETED else "e")
        write = attempts.complete if outcome is Outcome.COMPLETED else attempts.end_otherwise
        ours = self.run(self._in(write, [end]))
        # A completion whose answer was lost is written again, and is ours then, too.
        again = outcome is Outcome.COMPLETED and model.status is JobStatus.COMPLETED
        assert bool(ours) == ((model.status is JobStatus.PROCESSING or again) and not stale)
        if not ours or again:
            return
        model.attempts -= outcome in (Outcome.SNOOZED, Outcome.HANDED_BACK, Outcome.DEFERRED)
        if outcome in (Outcome.RETRIED, Outcome.SNOOZED, Outcome.HANDED_BACK, Outcome.DEFERRED):
            model.status = JobStatus.CANCELLED if model.cancel else JobStatus.PENDING
        else:
            model.status = JobStatus(outcome.value)

    @rule(job=jobs)
    def cancel(self, job: int) -> None:
        model = self.model[job]
        done = self.run(self._in(jobs.cancel, job))
        assert (done is not None) == (model.status in OPEN)
        if done:
            model.cancel = True
            if not (model.status is JobStatus.PROCESSING and model.worker is not None):
                model.status = JobStatus.CANCELLED
            assert done[0] is model.status

    @rule(job=jobs)
    def retry(self, job: int) -> None:
        model = self.model[job]
        may = model.status in (JobStatus.FAILED, JobStatus.CANCELLED)
        if may and model.key and any(o.key == model.key and o.status in OPEN for o in self.model.values()):
            with pytest.raises(Conflict):  # the key has a new holder
                self.run(self._in(jobs.retry, job))
            return
        done = self.run(self._in(jobs.retry, job))
        assert (done is not None) == may
        if done:
            model.status, model.attempts, model.cancel, model.worker = JobStatus.PENDING, 0, False, None
            self.take_new_lease(job)

    @rule(job=jobs, status=st.sampled_from(list(JobStatus)))
    def set_status(self, job: int, status: JobStatus) -> None:
        model = self.model[job]
        if status is JobStatus.PENDING and model.key and model.status not in OPEN:
            return  # as retry; covered there
        done = self.run(self._in(jobs.set_status, job, status))
        assert (done is not None) == allowed(model.status, status)
        if done:
            model.status, model.worker = status, None
            self.take_new_lease(job)
            if status is JobStatus.PENDING:
                model.cancel = False

    @rule()
    def worker_dies(self) -> None:
        """Buried and replaced; whatever it held is rescued, nothing else."""
        held = [id for id, job in self.model.items() if job.status is JobStatus.PROCESSING]
        self.run(self._in(attempts.deregister, self.worker))
        self.worker = self.run(self._in(attempts.register, "w", ["default"], 1))
        done = self.run(self._in(rescue.rescue, dict.fromkeys(self.model, 0.0), "died"))
        rescued = [id for id in held if self.model[id].worker is not None]
        assert {one.id for one in done} == set(rescued)
        for id in rescued:
            model = self.model[id]
            self.take_new_lease(id)
            model.deaths += 1
            if model.cancel:
                model.status = JobStatus.CANCELLED
            elif model.deaths <= 2:
                model.status, model.attempts = JobStatus.PENDING, model.attempts - 1
            elif model.attempts > model.max_retries:
                model.status = JobStatus.FAILED
            else:
                model.status = JobStatus.PENDING

    @invariant()
    def the_table_agrees_with_the_model(self) -> None:
        if not self.model:
            return

        async def read(connection: Any) -> Any:
            cursor = await connection.execute(
                "SELECT id, status, attempts, lease, finished_at IS NOT NULL, failed_at IS NOT NULL,"
                " active_key IS NOT NULL, status = 'pending' AND dispatch_at IS NULL AND lease > 0 FROM jobs"
            )
            return await cursor.fetchall()

        rows = self.run(self._in(read))
        assert {row[0] for row in rows} == set(self.model)
        for id, status, tried, lease, finished, failed, holds_key, forgotten in rows:
            model = self.model[id]
            assert (status, tried, lease) == (model.status, model.attempts, model.lease)
            assert finished == model.status.final
            assert failed == (model.status is JobStatus.FAILED)
            assert holds_key == (model.key is not None and model.status in OPEN)
            assert not forgotten, "a job that waits again must be the dispatcher's business"


@pytest.mark.timeout(180)
def test_the_store_does_what_the_model_says_in_any_order(database: FreshDatabase) -> None:
    StoreMachine.database = database
    StoreMachine.loop = asyncio.new_event_loop()
    try:
        run_state_machine_as_test(
            StoreMachine,
            settings=settings(
                max_examples=40,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        StoreMachine.loop.close()
