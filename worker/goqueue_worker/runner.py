"""Runs attempts: from the start of their handlers to their ends in the completer's hands."""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Callable
from typing import Final

import structlog

from goqueue import logs, metrics, tracing
from goqueue.job import AttemptEnd, ClaimedJob, Outcome
from goqueue.registry import JobType
from goqueue.retry import DEFAULT_RETRY, RetryPolicy
from goqueue.store.connect import Database
from goqueue_worker.attempt import Deferred, RunningAttempt, Stop, describe, failed, interrupted, run, tell
from goqueue_worker.completer import Completer
from goqueue_worker.deferral import Deferrals
from goqueue_worker.isolation import SUSPECT, Isolation
from goqueue_worker.reports import Reports
from goqueue_worker.tallies import Tallies
from goqueue_worker.threads import Threads

HAND_BACK_SECONDS: Final = 2.0
"""How long handlers that are told to stop at the end of a drain have for it."""

DEFER_SECONDS: Final = 30.0
"""Longest wait for PostgreSQL's word on how long a job has been deferred."""

AGAIN_SECONDS: Final = 10.0
"""Pause before the next try to end an attempt, after one that failed."""

log = structlog.get_logger(__name__)


class Runner:
    """The attempts of one worker. Everything here belongs to the event loop's thread."""

    def __init__(
        self,
        name: str,
        slots: int,
        threads: int,
        policy: RetryPolicy,
        database: Database,
        defer_seconds: float,
        completer: Completer,
        tallies: Tallies,
        reports: Reports,
        ended: Callable[[], None],
        isolation: Isolation | None = None,
    ) -> None:
        """`policy` is that of types that have none of their own; `ended` is called whenever a slot is free again.

        `isolation` None: suspects run like other jobs.
        """
        self._isolation = isolation
        self._name = name
        self._slots = slots
        self._policy = policy
        self._keyring = database.keyring
        self._deferrals = Deferrals(database, defer_seconds)
        self._completer = completer
        self._tallies = tallies
        self._ended = ended
        self.running: dict[int, RunningAttempt] = {}
        """The attempts under way, by the ids of their jobs: one for each slot that is taken."""
        self.threads = Threads(threads or slots)
        self.reports = reports
        self._deaf: set[asyncio.Task[None]] = set()  # tasks of async handlers whose attempts ended without them
        self._context = contextvars.copy_context()  # no attempt may inherit what another one's handler has set
        if tracing.on is not None:
            self._context.run(tracing.on.begin_worker)

    @property
    def context(self) -> contextvars.Context:
        """The context of which each attempt gets a copy."""
        return self._context

    def attempt(self, job: ClaimedJob, kind: JobType | None) -> RunningAttempt:
        """A new attempt, which has the job's slot from now on."""
        policy = kind.retry if kind is not None and kind.retry is not DEFAULT_RETRY else self._policy
        timeout = job.timeout or (kind.timeout if kind else 60.0)
        running = self.running[job.id] = RunningAttempt(job, timeout, self.reports, policy)
        running.context = self._context.copy()
        return running

    async def run(self, running: RunningAttempt, kind: JobType | None) -> None:
        """The attempt from here to its end. Whatever happens on the way, the attempt ends and its slot is free.

        At last it lets go of its task and its failure: the context of the one and the traceback of the other lead back
        to it, and in a circle they would wait for a collection of garbage, which stops all slots for milliseconds.
        """
        job = running.job
        if running.stop is not None:  # before its first step
            running.context = None
            self._finish(running, interrupted(running, running.policy))
            return
        running.task = asyncio.current_task()
        try:
            logs.JOB.set(running)
            if tracing.on is not None:
                self._begin_span(running)
            try:
                if job.deaths < SUSPECT or self._isolation is None:
                    end = await run(running, kind, running.policy, self.threads, self._keyring)
                else:
                    end = await self._isolation.run(running)
            except Deferred as why:
                running.failure = why
                running.wait(DEFER_SECONDS)
                end = await self._deferrals.end(job, why)
        except asyncio.CancelledError:
            end = interrupted(running, running.policy)
        except BaseException as error:
            running.failure = error
            end = failed(job, describe(error), None, running.policy)
        if running.over:  # and ended without this task
            self._deaf.discard(running.task)
            running.task = running.context = running.failure = None
            return
        running.task = running.context = None
        self._finish(running, end)

    def _begin_span(self, running: RunningAttempt) -> None:
        try:
            running.span = tracing.on and tracing.on.begin_attempt(running.job, self._name)
        except Exception:  # a provider, sampler or processor of the handlers' own
            log.exception("attempt without a span", job_id=running.job.id)

    def _finish(self, running: RunningAttempt, end: AttemptEnd) -> None:
        """Count the end and hand it over. In the attempt's own context, which has its span."""
        job = running.job
        running.over = True
        if running.reported is not None:
            end.progress = running.reported
            self.reports.forget(job.id, job.lease)
        if running.logged is not None:
            self.reports.end_log(running.logged, job)
        if self.running.get(job.id) is running:
            del self.running[job.id]
        try:
            seconds = time.monotonic() - running.started if running.begun else None
            if tracing.on is None:
                self._tallies.ended(job, end.outcome, seconds)
            else:
                self._count(running, end, seconds)
        except Exception:
            log.exception("attempt not counted", job_id=job.id)
        self._completer.put(end)
        self._ended()
        if end.outcome is Outcome.DEFERRED:  # logged once a minute for each type
            running.failure = None
        elif end.outcome is not Outcome.COMPLETED:
            with contextlib.suppress(Exception):  # a log's own troubles
                tell(running, end, self._name)
            running.failure = None

    def _count(self, running: RunningAttempt, end: AttemptEnd, seconds: float | None) -> None:
        """Count an end where there are spans."""
        job, spans, span = running.job, tracing.on, running.span
        trace_id = None
        if spans is not None and (span is not None or end.outcome is not Outcome.COMPLETED):
            try:
                spans.end_attempt(span, job, end, running.failure)
                trace_id = spans.trace_id_of(span)
            except Exception:
                log.exception("span of an attempt not ended", job_id=job.id)
        self._tallies.ended(job, end.outcome, seconds, trace_id)

    def look(self, now: float) -> None:
        """Act on the attempts whose deadline is over."""
        for running in list(self.running.values()):
            if running.deadline < now:
                try:
                    self._act(running)
                except Exception:  # one odd attempt must not cost the others their deadlines
                    running.deadline = now + AGAIN_SECONDS
                    log.exception("attempt not interrupted", job_id=running.job.id)

    def _act(self, running: RunningAttempt) -> None:
        if running.stop is not None:
            self._abandon(running)
        else:
            running.interrupt(Stop.TIMEOUT if running.begun else Stop.HAND_BACK)

    def _abandon(self, running: RunningAttempt) -> None:
        """End an attempt whose handler was interrupted and goes on."""
        end = interrupted(running, running.policy)
        if running.task is not None:
            self._deaf.add(running.task)
        if running.context is not None:
            running.context.run(self._finish, running, end)
        else:
            self._finish(running, end)
        job = running.job
        with contextlib.suppress(Exception):
            log.warning("handler goes on after its interruption", job_id=job.id, type=job.type, reason=running.stop)

    def hand_back_all(self) -> None:
        """Interrupt everything that runs; it goes back uncharged if its lease still holds."""
        for running in list(self.running.values()):
            running.interrupt(Stop.HAND_BACK)

    def hand_back_waiting(self) -> None:
        """The same for what has not begun, since it waits for a thread."""
        for running in list(self.running.values()):
            if not running.begun:
                running.interrupt(Stop.HAND_BACK)

    async def give_up(self) -> None:
        """Interrupt everything that runs, and end without it what does not stop within `HAND_BACK_SECONDS`."""
        self.hand_back_all()
        if tasks := [running.task for running in self.running.values() if running.task]:
            await asyncio.wait(tasks, timeout=HAND_BACK_SECONDS)
        for running in list(self.running.values()):
            self._abandon(running)

    @property
    def abandoned(self) -> int:
        """Handlers that go on although their attempt is over."""
        return self.threads.abandoned + len(self._deaf)

    def unwell(self) -> dict[str, str]:
        """Why no more handlers can run here, for the liveness probe."""
        wrong = {}
        if self.threads.abandoned >= self.threads.most:
            wrong["threads"] = f"all {self.threads.most} threads run handlers whose attempts are over"
        if len(self._deaf) >= self._slots:
            wrong["handlers"] = f"{len(self._deaf)} async handlers go on although their attempts are over"
        return wrong

    def show(self) -> None:
        """Let the metrics read what there is."""
        metrics.SLOTS.set(self._slots)
        metrics.SLOTS_BUSY.read(lambda: len(self.running))
        metrics.THREADS_AWAITED.read(lambda: self.threads.waiting)
        metrics.ABANDONED.read(lambda: self.abandoned)
        metrics.ISOLATED_BUSY.read(lambda: self._isolation.busy if self._isolation is not None else 0)
