"""The life of a job: its states and the only transitions that exist between them.

    pending ──claim──▶ processing ──▶ completed
      ▲ │                 │  │ └────▶ cancelled
      │ └──cancel──┐      │  └──────▶ failed ──retry by hand──▶ pending
      │            ▼      │
      │        cancelled  │
      └── retry, snooze, hand back, rescue

Every SQL statement that changes `jobs.status` follows this table, the REST route that sets a status is checked
against it, and a CHECK constraint ties the final states to `finished_at`.
"""

from enum import StrEnum
from typing import Final


class JobStatus(StrEnum):
    """The state of a job, as stored in `jobs.status` and shown by the API."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True where nothing but a retry by hand can move the job any more."""
        return self in FINAL


FINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
OPEN: Final = frozenset({JobStatus.PENDING, JobStatus.PROCESSING})

TRANSITIONS: Final[dict[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.PENDING: frozenset({JobStatus.PROCESSING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.PROCESSING: frozenset({JobStatus.PENDING, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.PENDING}),
    JobStatus.CANCELLED: frozenset({JobStatus.PENDING}),
}


def allowed(source: JobStatus, target: JobStatus) -> bool:
    """Whether a job may go from `source` to `target`."""
    return target in TRANSITIONS[source]


def sources(target: JobStatus) -> list[JobStatus]:
    """The states from which `target` can be reached, for a statement's `WHERE status = ANY(…)`."""
    return [source for source, targets in TRANSITIONS.items() if target in targets]
