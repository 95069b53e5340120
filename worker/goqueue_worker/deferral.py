"""Jobs that this worker cannot run and another may: a rollout, or a new encryption key, is under way."""

import asyncio
import random
import time
from typing import Final

import psycopg
import structlog

from goqueue.errors import GoQueueError
from goqueue.job import AttemptEnd, ClaimedJob, Outcome
from goqueue.store import attempts
from goqueue.store.connect import Database
from goqueue_worker.attempt import Deferred

DELAYS: Final = (5.0, 300.0)
"""First and longest pause, in seconds, until such a job is looked at again."""

JITTER: Final = 0.2
"""Share of a pause that chance takes away, so that the jobs of a burst do not come back together."""

LOG_SECONDS: Final = 60.0
"""Least time between two log lines about the same type."""

MOST_TYPES: Final = 1_000
"""Most types that are logged within `LOG_SECONDS`. Names of types come from outside."""

log = structlog.get_logger(__name__)


def pause(waited: float) -> float:
    """Seconds until the job is looked at again: as long as it has waited so far, within `DELAYS`."""
    first, longest = DELAYS
    return min(max(waited, first), longest)


class Deferrals:
    """Gives such jobs back uncharged, and fails them when nobody has taken them for `patience` seconds."""

    def __init__(self, database: Database, patience: float) -> None:
        self._database = database
        self._patience = patience
        self._logged: dict[str, float] = {}  # type -> `time.monotonic()` of its last line, in this order
        self._asking = asyncio.Lock()  # a burst of them must not take the connections of those that can run

    async def end(self, job: ClaimedJob, why: Deferred) -> AttemptEnd:
        """The end of an attempt that could not begin."""
        waited = await self._waited(job)
        if not why.endless and waited >= self._patience:
            return AttemptEnd(job.id, job.lease, Outcome.FAILED, error=f"{why.error} (for {waited:.0f} s)")
        self._log(job, why)
        delay = pause(waited) * (1 - JITTER * random.random())  # noqa: S311 - jitter, not a secret
        return AttemptEnd(job.id, job.lease, Outcome.DEFERRED, error=why.error, delay=delay)

    async def _waited(self, job: ClaimedJob) -> float:
        """Seconds since the job was first deferred; 0 where PostgreSQL does not say."""
        try:
            async with self._asking, self._database.connection() as connection:
                return await attempts.deferred_for(connection, job.id) or 0.0
        except (GoQueueError, psycopg.Error) as error:
            log.warning("age of a deferred job unknown", job_id=job.id, error=type(error).__name__)
            return 0.0

    def _log(self, job: ClaimedJob, why: Deferred) -> None:
        """Log one line a minute for each type. Without the error's own words: names of fields may come from outside."""
        now = time.monotonic()
        while self._logged and now - next(iter(self._logged.values())) >= LOG_SECONDS:
            del self._logged[next(iter(self._logged))]
        if job.type in self._logged or len(self._logged) >= MOST_TYPES:
            return
        self._logged[job.type] = now
        fails = None if why.endless else self._patience
        log.warning("jobs wait for a worker that can run them", type=job.type, job_id=job.id, fail_after_seconds=fails)
