"""Enqueue inside a caller's own SQLAlchemy transaction: the job exists if and only if the caller commits.

The row carries `dispatch_at`, so the dispatcher owes it a push: nothing has to happen after the commit, and the caller
needs no Redis.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson
from sqlalchemy import Executable, func, literal, select, text
from sqlalchemy.dialects.postgresql import insert

from goqueue.encryption import Keyring, payload_of
from goqueue.job import NewJob
from goqueue.store import sql
from goqueue.store.schema import JOBS

TRIES: Final = 5
"""How often a unique key may change hands between our two statements."""


LOCK: Final = text(sql.LOCK_JOBS)
DRAW: Final = text("SELECT nextval('jobs_id_seq')")
"""To be executed before `statements` where there is a keyring: what is encrypted is bound to the job's id."""


def statements(job: NewJob, keyring: Keyring | None = None, id: int | None = None) -> Iterator[Executable]:
    """To be executed one after the other until one returns an id; `id` is the drawn one, for a keyring."""
    insertion = _insert(job)
    if keyring is not None and id is not None:
        sealed = keyring.seal(payload_of(id), orjson.dumps(job.payload))
        insertion = insertion.values(id=id, payload=orjson.loads(sealed))
    yield insertion
    if job.unique_key:
        for _ in range(TRIES):
            yield select(JOBS.c.id).where(JOBS.c.active_key == job.active_key)
            yield insertion


def _insert(job: NewJob) -> Any:
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
            active_key=job.active_key,
            source=job.source.value,
            trace_context=job.trace_context,
            tenant=job.tenant,
            dispatch_at=due,
        )
        .on_conflict_do_nothing()
        .returning(JOBS.c.id)
    )
