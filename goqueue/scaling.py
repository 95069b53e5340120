"""How many workers a pool needs. Pure mathematics; the operator feeds it, a simulator stands beside it in the tests.

Scaling is by time and not by length: a policy states the wait that is tolerated. A replica that is busy finishes
`rate` jobs a second, so the backlog is gone within the target while new jobs keep coming if

    replicas × rate  ≥  arrivals + waiting / target

More replicas than there are jobs for their slots would idle, whatever the formula says. As long as the rate is not
known, and it never is before the first job ended, a number of jobs for each replica stands in for it.

Going up follows the demand at once. Going down follows the highest demand of a whole window, and only a window that
was seen without a gap: what is not known never takes a worker away.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

MINUTE: Final = 60.0
"""Seconds for which the limits on change count."""

LATE: Final = 1.25
"""Growth where jobs wait longer than the target although the formula is content: the measured rate was too good."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool has to do, over all its queues. None: not known."""

    waiting: int | None
    """Jobs that are ready and wait."""
    running: int | None
    """Jobs that workers hold."""
    oldest: float = 0.0
    """Seconds for which the longest-waiting one has been ready."""
    arrivals: float = 0.0
    """New jobs a second."""
    rate: float | None = None
    """Jobs a second that one replica finishes while all its slots are busy."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is wanted of a pool. Times in seconds."""

    minimum: int = 0
    maximum: int = 10
    slots: int = 50
    """Jobs that one replica runs at the same time."""
    jobs_per_replica: int | None = None
    """Jobs for one replica while its rate is not known; None: `slots`."""
    target: float = 10.0
    """The wait that is tolerated."""
    window: float = 60.0
    """How long the demand must have been lower before replicas go."""
    up: int | None = None
    """Most replicas that come within a minute."""
    down: int | None = None
    """Most replicas that go within a minute."""
    pinned: int | None = None
    """So many, whatever there is to do."""

    def clamp(self, replicas: int) -> int:
        """The nearest number within the bounds."""
        return max(self.minimum, min(self.maximum, replicas))


@dataclass(frozen=True, slots=True)
class History:
    """What was wanted and done before, as long as it still counts. Times by any clock that only goes forward."""

    since: float | None = None
    """Start of the observation."""
    wanted: tuple[tuple[float, int], ...] = ()
    """(time, replicas wanted), oldest first; one a second, the highest."""
    changes: tuple[tuple[float, int], ...] = ()
    """(time, difference) of what was decided."""

    def after(self, now: float, wanted: int, change: int, window: float) -> "History":
        """The history with one more decision, without what is over."""
        kept = [item for item in self.wanted if item[0] > now - window]
        if kept and int(kept[-1][0]) == int(now):
            kept[-1] = (kept[-1][0], max(kept[-1][1], wanted))
        else:
            kept.append((now, wanted))
        changes = [item for item in self.changes if item[0] > now - MINUTE]
        if change:
            changes.append((now, change))
        return History(now if self.since is None else self.since, tuple(kept), tuple(changes))

    def recent(self, now: float, sign: int) -> int:
        """Replicas that came (`sign` 1) or went (-1) within the last minute, as a number from 0."""
        return sum(abs(change) for at, change in self.changes if at > now - MINUTE and change * sign > 0)


Cause = Literal["idle", "load", "minimum", "maximum", "window", "limit", "pinned", "unknown"]


@dataclass(frozen=True, slots=True)
class Decision:
    """How many there shall be, why, and what to remember for the next time."""

    replicas: int
    reason: str
    history: History = field(repr=False)
    cause: Cause = "load"
    """The reason in one word."""


def _replicas(jobs: float, each: float) -> int:
    return math.ceil(min(jobs / each, 1e9) - 1e-9)


def demand(load: Load, policy: Policy, current: int) -> tuple[int, str] | None:
    """Replicas for this load, before bounds, and why; None where the load is not known."""
    if load.waiting is None or load.running is None:
        return None
    if load.waiting + load.running == 0:
        return 0, "nothing to do"
    held = _replicas(load.running, policy.slots)
    if load.rate is None or load.rate <= 0:
        each = policy.jobs_per_replica or policy.slots
        wanted = _replicas(load.waiting + load.running, each)
        return max(1, held, wanted), f"{load.waiting} waiting, {load.running} running, {each} for each replica"
    useful = _replicas(load.waiting + load.running + load.arrivals * policy.target, policy.slots)
    needed = _replicas(load.arrivals + load.waiting / policy.target, load.rate)
    reason = f"{load.waiting} waiting, {load.arrivals:.3g}/s arriving, {load.rate:.3g}/s for each replica"
    more = math.ceil(max(current, 1) * LATE)
    if load.waiting and load.oldest > policy.target and needed < more:
        needed = more
        reason = f"jobs wait for {load.oldest:.0f} s, more than {policy.target:g} s"
    return max(1, held, min(needed, useful)), reason


def decide(now: float, current: int, load: Load, policy: Policy, history: History) -> Decision:
    """How many replicas there shall be instead of `current`; `now` in seconds."""
    asked = demand(load, policy, current)
    known = asked is not None
    wanted, reason = asked or (current, "what waits is not known, nothing changes")
    cause: Cause = "unknown" if not known else "load" if wanted else "idle"
    bounded = policy.clamp(wanted)
    if known and bounded != wanted:
        cause = "minimum" if bounded > wanted else "maximum"
        reason += f"; {'minReplicas' if bounded > wanted else 'maxReplicas'}"
    wanted = bounded
    if policy.pinned is not None:
        chosen, reason, cause = policy.pinned, "set by hand (spec.replicas)", "pinned"
    elif wanted >= current:
        chosen = _grow(now, current, wanted, policy, history)
        if current < policy.minimum and chosen == policy.minimum:
            reason, cause = "minReplicas", "minimum"
        elif chosen < wanted:
            cause = "limit"
    elif current > policy.maximum:
        chosen, reason, cause = policy.maximum, "maxReplicas", "maximum"
    else:
        chosen, held_by = _shrink(now, current, wanted, policy, history)
        if chosen > wanted:
            cause = "window" if held_by else "limit"
        reason = held_by or reason
    remembered = wanted if known else max(wanted, current)
    return Decision(chosen, reason, history.after(now, remembered, chosen - current, policy.window), cause)


def _grow(now: float, current: int, wanted: int, policy: Policy, history: History) -> int:
    if policy.up is None:
        return wanted
    allowed = max(policy.up - history.recent(now, 1), 0 if current else 1)
    return max(policy.clamp(current), min(wanted, current + allowed))


def _shrink(now: float, current: int, wanted: int, policy: Policy, history: History) -> tuple[int, str | None]:
    """The number after going down as far as window and limit allow, and what holds it where it stays higher."""
    if policy.window and (history.since is None or history.since > now - policy.window):
        return current, "watched for less than scaleDownWindowSeconds"
    highest = max((replicas for at, replicas in history.wanted if at > now - policy.window), default=wanted)
    target = min(current, max(wanted, policy.clamp(highest)))
    if policy.down is not None:
        target = max(target, current - max(policy.down - history.recent(now, -1), 0))
    return target, "more was needed within scaleDownWindowSeconds" if target > wanted else None


def arrival_rate(counts: Iterable[tuple[float, int]]) -> float:
    """Jobs a second from (time, counter) pairs in order of time; where the counter fell back it began anew at 0."""
    points = list(counts)
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return 0.0
    pairs = itertools.pairwise(points)
    total = sum(later - earlier if later >= earlier else later for (_, earlier), (_, later) in pairs)
    return total / (points[-1][0] - points[0][0])


def service_rate(finished: int, seconds: float, slots: int) -> float | None:
    """Jobs a second of one replica with all slots busy, from jobs finished and the seconds they took together."""
    if finished <= 0 or seconds < 0:
        return None
    return slots * finished / max(seconds, finished * 1e-4)
