"""How many workers a pool needs. Pure mathematics; the operator feeds it, a simulator stands beside it in the tests.

Scaling is by time and not by length: a policy states the wait that is tolerated. A replica that is busy finishes
`rate` jobs a second, so the backlog is gone within the target while new jobs keep coming if

    replicas × rate  ≥  arrivals + waiting / target

More replicas than there are jobs for their slots would idle, whatever the formula says. As long as the rate is not
known, and it never is before the first job ended, a number of jobs for each replica stands in for it.

Replicas that were ordered count as capacity from then on. What gathers while they start is theirs to do, and no reason
to order more: more would start no sooner. A rate that was too good is corrected once all that was ordered is ready, and
then once in each target wait.

Going up follows the demand at once. Going down follows the highest demand of a whole window, and only a window that
was seen without a gap: what is not known never takes a worker away.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

MINUTE: Final = 60.0
"""Seconds for which the limits on change count."""

LATE: Final = 1.25
"""Growth where jobs wait longer than the target although the formula is content: the measured rate was too good."""

STUCK: Final = 600.0
"""Seconds after the last order from which on replicas that are still not ready count as never to come."""


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
    ready: int | None = None
    """Replicas that take jobs; None: all that were ordered."""


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
    looked: float | None = None
    """When the load was last known."""
    pending: float | None = None
    """Since when replicas that were ordered are not ready, or when the last one was ordered; None: all are ready."""
    settled: float | None = None
    """Since when all replicas have been ready and no correction was made."""
    credit: float = 0.0
    """Waiting jobs that replicas under way would have done by now."""

    def seen(self, now: float, current: int, load: Load) -> "History":
        """The history with what a look shows of the replicas that were ordered."""
        if load.waiting is None:
            return self
        missing = 0 if load.ready is None else max(0, current - load.ready)
        pending = None
        if missing:
            ordered = max((at for at, change in self.changes if change > 0), default=-math.inf)
            pending = max(now if self.pending is None else self.pending, ordered)
            if now - pending > STUCK:
                missing = 0
        done = missing * (load.rate or 0.0) * (now - self.looked) if self.looked is not None else 0.0
        settled = None if missing else now if self.settled is None else self.settled
        credit = min(float(load.waiting), self.credit + max(0.0, done))
        return replace(self, looked=now, pending=pending, settled=settled, credit=credit)

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
        since = now if self.since is None else self.since
        return replace(self, since=since, wanted=tuple(kept), changes=tuple(changes))

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


class Demand(NamedTuple):
    """Replicas for a load, before bounds, and why. `corrected`: more than the formula says, as jobs wait too long."""

    replicas: int
    reason: str
    corrected: bool = False


def demand(load: Load, policy: Policy, current: int, credit: float = 0.0, correct: bool = True) -> Demand | None:
    """Replicas for this load; None where the load is not known.

    Args:
        load: What there is to do.
        policy: What is wanted.
        current: Replicas that were ordered.
        credit: Waiting jobs that are left to replicas under way.
        correct: Whether jobs that wait too long tell that the rate is too good.
    """
    if load.waiting is None or load.running is None:
        return None
    if load.waiting + load.running == 0:
        return Demand(0, "nothing to do")
    held = _replicas(load.running, policy.slots)
    if load.rate is None or load.rate <= 0:
        each = policy.jobs_per_replica or policy.slots
        wanted = _replicas(load.waiting + load.running, each)
        return Demand(max(1, held, wanted), f"{load.waiting} waiting, {load.running} running, {each} for each replica")
    useful = _replicas(load.waiting + load.running + load.arrivals * policy.target, policy.slots)
    needed = _replicas(load.arrivals + max(0.0, load.waiting - credit) / policy.target, load.rate)
    reason = f"{load.waiting} waiting, {load.arrivals:.3g}/s arriving, {load.rate:.3g}/s for each replica"
    more = math.ceil(max(current, 1) * LATE)
    corrected = correct and load.waiting > 0 and load.oldest > policy.target and needed < more
    if corrected:
        needed = more
        reason = f"jobs wait for {load.oldest:.0f} s, more than {policy.target:g} s"
    return Demand(max(1, held, min(needed, useful)), reason, corrected)


def decide(now: float, current: int, load: Load, policy: Policy, history: History) -> Decision:
    """How many replicas shall take jobs instead of `current`; `now` in seconds."""
    history = history.seen(now, current, load)
    settled = history.settled is not None and now - history.settled >= policy.target
    asked = demand(load, policy, current, history.credit, settled)
    known = asked is not None
    wanted, reason, corrected = asked or Demand(current, "what waits is not known, nothing changes")
    if corrected:
        history = replace(history, settled=now)
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
