"""A walk through all open jobs in bounded steps: first by id from the floor on, then by `dispatch_at` below it.

Pure: the caller reads what `position` says and tells with `advance` how far it came.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from goqueue.store.dispatch import Boundary, Place

_START: Place = (datetime(1, 1, 1, tzinfo=UTC), 0)


@dataclass(frozen=True, slots=True)
class Above:
    """Read rows with `after` < id < `before`, at or above the floor, by id."""

    after: int
    before: int


@dataclass(frozen=True, slots=True)
class Listed:
    """Read rows after this place whose `dispatch_at` is not after `until`, below the floor."""

    after: Place
    until: datetime


class Walk:
    """One walk, as far as `edge`: what comes later is the sweeps' business."""

    def __init__(self, edge: Boundary) -> None:
        self.edge = edge
        self.open_above = 0
        """Jobs above the floor that are not final."""
        self.position: Above | Listed | None = Above(0, edge.next_id)
        """What to read next; None at the end."""

    @classmethod
    def below_floor(cls, edge: Boundary) -> "Walk":
        """The second part only."""
        walk = cls(edge)
        walk.position = Listed(_START, edge.at)
        return walk

    def advance(self, read: int, limit: int, last: object, open: int = 0) -> bool:
        """Note that `read` rows were read of `limit` asked for, the last one at `last`; whether that was the end."""
        at_end = read < limit
        match self.position:
            case Above(before=before):
                self.open_above += open
                if at_end:
                    self.position = Listed(_START, self.edge.at)
                elif isinstance(last, int):
                    self.position = Above(last, before)
            case Listed(until=until):
                if at_end:
                    self.position = None
                elif isinstance(last, tuple):
                    self.position = Listed(last, until)
            case None:
                raise ValueError("the walk is over")
        return self.position is None


@dataclass(slots=True)
class Agenda:
    """When to walk. Times in seconds of one monotonic clock.

    A walk that is asked for while another one is under way follows it, as that one may have passed the place in
    question; one for a Redis that lost its contents takes its place, as what it pushed is lost, too.
    """

    interval: float
    asked: bool = True
    refilling: bool = False
    """Whether Redis lost its contents and is being filled anew."""
    finished_at: float = 0.0
    walk: Walk | None = None

    def wants(self, now: float) -> bool:
        """Whether a walk is to begin."""
        return self.walk is None and (self.asked or now - self.finished_at > self.interval)

    def lost(self) -> None:
        """Redis lost its contents: what is under way begins anew."""
        self.refilling, self.asked, self.walk = True, True, None

    def begin(self, edge: Boundary) -> Walk:
        """A walk begins; requests until now are met by it."""
        self.asked = False
        self.walk = Walk(edge)
        return self.walk

    def finish(self, now: float) -> None:
        """The walk has reached its end."""
        self.walk, self.finished_at = None, now

    def filled(self, *, complete: bool) -> None:
        """The refill has ended; not `complete`: Redis lost its contents once more, and is looked at again."""
        self.refilling = False
        self.asked = self.asked or not complete
