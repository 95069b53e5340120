"""Enqueue inside a caller's own SQLAlchemy transaction: the job exists if and only if the caller commits.

The row carries `dispatch_at`, so the dispatcher owes it a push: nothing has to happen after the commit, and the caller
needs no Redis.
"""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Executable, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from goqueue.job import NewJob
from goqueue.store.schema import JOBS

TRIES: Final = 5
"""How often a unique key may change hands between our two statements."""


def statements(job: NewJob) -> Iterator[Executable]:
    """To be executed one after the other until one returns an id."""
    insertion = _insert(job)
    yield insertion
    if job.unique_key:
        for _ in range(TRIES):
            yield select(JOBS.c.id).where(JOBS.c.active_key == job.unique_key)
            yield insertion


def _insert(job: NewJob) -> Executable:
    """An INSERT that returns the id, or no row where the unique key is taken."""
    due: Any = func.now() if job.available_at is None else literal(job.available_at, JOBS.c.available_at.type)
    return (
        insert(JOBS)
        .values(
            queue=job.queue,
            type=job.type,
            payload=job.payload,
            max_retries=job.max_retries,
            priority=job.priority,
            available_at=due,
            timeout=job.timeout,
            unique_key=job.unique_key,
            active_key=job.unique_key,
            source=job.source.value,
            trace_context=job.trace_context,
            dispatch_at=due,
        )
        .on_conflict_do_nothing()
        .returning(JOBS.c.id)
    )
