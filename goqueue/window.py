"""Which jobs a process may leave out of a ready set that is full, and what it must then remember of them. Pure.

Each ready set holds a bounded window of its queue: at most so many members, those of the lowest scores. The rest of
the queue is in PostgreSQL only; the scheduler's leader refills the window as it drains (`goqueue_scheduler.refill`).
The rule that loses nothing: a job that is ready is in its ready set, or its id is not below the mark of its level.
docs/decisions/0017-bounded-ready-sets.md tells what follows from it.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from goqueue.job import ReadyJob, ready_priority, ready_time_ms

LOOK_SECONDS: Final = 0.25
"""Seconds after which a push asks again how full the ready set is, where it was half full or more."""

CALM_SECONDS: Final = 2.0
"""The same where it was not."""

STALE_SECONDS: Final = 1.0
"""Seconds for which the answer counts; later a job is pushed, and the leader trims."""

PARTS: Final = 10
"""A push asks again, too, after this part of the window was pushed."""

LOW: Final = 20
"""Below this part of the window everything is pushed, whatever waits in PostgreSQL: no worker shall idle."""


class Level(NamedTuple):
    """Jobs of one queue and priority."""

    queue: str
    priority: int


class Mark(NamedTuple):
    """What is left out of a level: no id lower than `id`, nothing that could run before `since_ms`."""

    id: int
    since_ms: int


@dataclass(slots=True)
class _Seen:
    """A ready set as it was when a push last asked."""

    at: float
    full: bool
    last: tuple[float, int]
    """Score and id of its last member: jobs that come after it are left out."""
    patience: float
    """Seconds after which to ask again."""
    pushed: int = 0
    """Pushed here since then."""


class Window:
    """How full the ready sets are, as one process knows it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._seen: dict[str, _Seen] = {}

    def forget(self) -> None:
        """Know nothing: Redis lost its contents."""
        self._seen.clear()

    def limit(self, queue: str) -> tuple[float, int] | None:
        """Score and id after which jobs of the queue are left out; None: none are."""
        seen = self._seen.get(queue)
        if seen is None or not seen.full or time.monotonic() - seen.at > STALE_SECONDS:
            return None
        return seen.last

    def must_look(self, queue: str, pushed: int) -> bool:
        """Count what was pushed; whether to ask again."""
        seen = self._seen.get(queue)
        if seen is None:
            return True
        seen.pushed += pushed
        return seen.pushed * PARTS >= self.size or time.monotonic() - seen.at > seen.patience

    def saw(self, queue: str, depth: int, last: tuple[float, int] | None, beyond: int) -> None:
        """Take in how a ready set is: its members, score and id of the last one, jobs of the queue that it has not."""
        full = depth >= self.size or (beyond > 0 and depth * LOW >= self.size)
        patience = LOOK_SECONDS if full or 2 * depth >= self.size else CALM_SECONDS
        self._seen[queue] = _Seen(time.monotonic(), full and last is not None, last or (0.0, 0), patience)


def marks_of(jobs: Iterable[ReadyJob]) -> dict[Level, Mark]:
    """The marks that cover these jobs."""
    marks: dict[Level, Mark] = {}
    for job in jobs:
        lower(marks, Level(job.queue, ready_priority(job.score)), Mark(job.id, ready_time_ms(job.score)))
    return marks


def lower(marks: dict[Level, Mark], level: Level, mark: Mark) -> None:
    """Let the marks cover one more."""
    known = marks.get(level, mark)
    marks[level] = Mark(min(known.id, mark.id), min(known.since_ms, mark.since_ms))


Place = tuple[datetime, int]
"""A place in the order of (`dispatch_at`, id)."""


@dataclass(slots=True)
class LeftOut:
    """What the leader left out and has not marked in Redis. In its memory only: a new leader reconciles first.

    Jobs with a `dispatch_at` (retried, scheduled, handed back) are found by it. Their ids may be far below those of the
    rest, and a mark there would have all rows in between read again.
    """

    marks: dict[Level, Mark] = field(default_factory=dict)
    listed: dict[Level, Place] = field(default_factory=dict)
    """No job of the level that has a `dispatch_at` and was left out comes before the place. A `dispatch_at` is never
    earlier than the time at which the job could run, so that time is such a place."""
    full: bool = False
    """Whether Redis refused a push for want of memory since the leader last made room."""

    def add(self, jobs: Iterable[ReadyJob]) -> None:
        """Remember jobs that were not pushed."""
        plain = []
        for job in jobs:
            if job.listed:
                due = datetime.fromtimestamp(ready_time_ms(job.score) / 1000, UTC)
                self.lower_listed(Level(job.queue, ready_priority(job.score)), (due, 0))
            else:
                plain.append(job)
        for level, mark in marks_of(plain).items():
            lower(self.marks, level, mark)

    def restore(self, marks: dict[Level, Mark]) -> None:
        """Take back marks that could not be written."""
        for level, mark in marks.items():
            lower(self.marks, level, mark)

    def lower_listed(self, level: Level, place: Place) -> None:
        """Let the level begin at this place, or before."""
        self.listed[level] = min(place, self.listed.get(level, place))
