"""How many jobs a second one worker finishes, measured from what workers say of themselves. Pure: it is told the time.

Each heartbeat tells, by queue and type, a histogram of how long attempts ran and how old those are that run now. From
it follows the mean duration of the jobs that *started* lately: an attempt that ran for `d` seconds started `d` seconds
ago and counts with exp(-d / MEMORY). So the last three long jobs do not make a stream of short ones look slow, and a
stream of long ones has their own mean. An attempt that runs for longer than the mean counts with its age.

How many slots a type can really use is measured, too: slot time by wall time while jobs waited. Handlers that await
fill all slots; async handlers that compute leave one slot at work, whatever the concurrency is.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MEMORY: Final = 60.0
"""Seconds after which a start counts for 1/e of a new one."""

KEPT: Final = 1.0
"""Starts for which a mean counts at least, however old it is, once that many were seen."""

DOMINANT: Final = 0.8
"""Share of the slot time of an interval from which on it says how many slots a type can use."""

SHORTEST: Final = 1e-4
"""Seconds that a job takes at least: below, the worker's own work dominates."""

MOST: Final = 100
"""Estimates that are kept: of the pairs of queue and type seen last."""

Key = tuple[str, str]
"""Queue and type; the type is empty where a worker does not tell it (one of an earlier version)."""


def bucket_name(bound: float) -> str:
    """The name of a bucket with this upper bound in seconds."""
    return f"{bound:g}"


@dataclass(frozen=True, slots=True)
class Told:
    """One heartbeat of one worker. `started` and `at` by one clock, in seconds."""

    id: int
    started: float
    at: float
    slots: int
    draining: bool
    stats: Mapping[str, Any]


@dataclass(slots=True)
class Estimate:
    """Of one queue and type. `mean`: seconds of a job, from starts that count as `weight`; `starts` without the least
    weight; `usable`: slots that it can use at the same time, None: all."""

    mean: float
    weight: float
    starts: float
    usable: float | None = None


@dataclass(slots=True)
class _Counters:
    """What a worker has told of one queue and type since it started."""

    ended: dict[float, int] = field(default_factory=dict)
    """Upper bound of a bucket in seconds → attempts."""
    seconds: float = 0.0
    running: dict[float, int] = field(default_factory=dict)
    age: float = 0.0

    @property
    def slot_seconds(self) -> float:
        """Time in slots: of attempts that ended and of those that run."""
        return self.seconds + self.age


class Pace:
    """The pace of the workers of one pool."""

    def __init__(self) -> None:
        self.estimates: dict[Key, Estimate] = {}
        self._former: dict[int, tuple[Told, dict[Key, _Counters]]] = {}
        self._since: float | None = None  # by the workers' clock; older ones were there before we looked
        self._at: float | None = None

    def learn(self, now: float, workers: Iterable[Told], oldest: Mapping[str, float] | None = None) -> None:
        """Take in the workers' counters.

        `oldest`: queue → seconds for which its longest-waiting job has waited. Where that is longer than the time
        since a worker's former heartbeat, jobs waited all the time, and the worker did as much as it can.
        """
        told = list(workers)
        if self._since is None:
            self._since = max((worker.at for worker in told), default=-math.inf)
        self._forget(now)
        former, self._former = self._former, {}
        for worker in told:
            counters = _read(worker)
            before = former.get(worker.id)
            self._former[worker.id] = (worker, counters)
            if before is not None and worker.at <= before[0].at:
                self._former[worker.id] = before
            elif before is not None:
                self._step(before[1], counters)
                seconds = worker.at - before[0].at
                waited = max((age for queue, age in (oldest or {}).items() if queue in worker.stats), default=0.0)
                saturated = waited >= seconds and not (worker.draining or before[0].draining)
                self._use(before[1], counters, seconds, worker.slots, saturated)
            elif worker.started >= self._since and _is_whole_life(worker, counters):
                self._step({}, counters)

    def _forget(self, now: float) -> None:
        factor = math.exp(-max(0.0, now - self._at) / MEMORY) if self._at is not None else 1.0
        self._at = now
        for estimate in self.estimates.values():
            estimate.weight = max(estimate.weight * factor, min(estimate.weight, KEPT))
            estimate.starts *= factor

    def _step(self, before: Mapping[Key, _Counters], after: Mapping[Key, _Counters]) -> None:
        """Take in what ended between two heartbeats."""
        for key, counters in after.items():
            former = before.get(key, _Counters())
            ended = {bound: count - former.ended.get(bound, 0) for bound, count in counters.ended.items()}
            ended = {bound: count for bound, count in ended.items() if count > 0}
            seconds = counters.seconds - former.seconds
            if not ended or seconds < 0:
                continue
            starts = work = 0.0
            for duration, count in _durations(ended, seconds):
                weight = count * math.exp(-min(duration / MEMORY, 50.0))
                starts += weight
                work += weight * duration
            self._blend(key, starts, work)

    def _blend(self, key: Key, starts: float, work: float) -> None:
        old = self.estimates.pop(key, None) or Estimate(0.0, 0.0, 0.0)  # and to the end: seen last
        weight = old.weight + starts
        mean = (old.mean * old.weight + work) / weight
        self.estimates[key] = Estimate(mean, weight, old.starts + starts, old.usable)
        while len(self.estimates) > MOST:
            del self.estimates[next(iter(self.estimates))]

    def _use(
        self,
        before: Mapping[Key, _Counters],
        after: Mapping[Key, _Counters],
        seconds: float,
        slots: int,
        saturated: bool,
    ) -> None:
        """Measure how many slots the type that dominated an interval had in use on average."""
        spent = {key: after[key].slot_seconds - before.get(key, _Counters()).slot_seconds for key in after}
        total = sum(spent.values())
        if seconds <= 0 or total <= 0:
            return
        key = max(spent, key=lambda each: spent[each])
        estimate = self.estimates.get(key)
        if estimate is None or spent[key] < DOMINANT * total:
            return
        used = min(float(slots), max(1.0, total / seconds))
        if saturated:
            used = used if estimate.usable is None else (used + estimate.usable) / 2
            estimate.usable = None if used > 0.9 * slots else used
        elif estimate.usable is not None and used > estimate.usable:
            estimate.usable = None if used > 0.9 * slots else used

    # --- what follows from it ----------------------------------------------------------------------------------------

    def rate(
        self,
        slots: int,
        work: Mapping[str, float] | None = None,
        types: Mapping[str, Mapping[str, float]] | None = None,
    ) -> float | None:
        """Jobs a second of one worker with all slots busy; None: not known.

        Args:
            slots: Jobs that it runs at the same time.
            work: Queue → how many jobs there are to do, by which its pace counts. What is not known of counts as the
                rest does.
            types: Queue → type → how many of those jobs there are; else the types count as they started lately.
        """
        costs = {queue: cost for queue in self._queues() if (cost := self._cost(queue, slots, types)) is not None}
        if not costs:
            return None
        weights = {queue: (work or {}).get(queue, 0.0) for queue in costs}
        if not sum(weights.values()):
            weights = {queue: self._starts(queue) for queue in costs}
        total = sum(weights.values())
        cost = sum(costs[queue] * weight for queue, weight in weights.items()) / total
        return 1.0 / max(cost, SHORTEST / slots)

    def _queues(self) -> list[str]:
        return list(dict.fromkeys(queue for queue, _ in self.estimates))

    def _starts(self, queue: str) -> float:
        return max(sum(estimate.starts for key, estimate in self.estimates.items() if key[0] == queue), 1e-300)

    def _cost(self, queue: str, slots: int, types: Mapping[str, Mapping[str, float]] | None) -> float | None:
        """Seconds of a whole worker that a job of the queue takes."""
        mine = {key: estimate for key, estimate in self.estimates.items() if key[0] == queue}
        known = (types or {}).get(queue, {})
        weights = {key: known.get(key[1], 0.0) for key in mine}
        if not sum(weights.values()):
            weights = {key: max(estimate.starts, 1e-300) for key, estimate in mine.items()}
        total = sum(weights.values())
        if not total:
            return None
        cost = 0.0
        for key, estimate in mine.items():
            usable = float(slots) if estimate.usable is None else min(estimate.usable, float(slots))
            cost += weights[key] / total * self._mean(key, estimate) / usable
        return cost

    def _mean(self, key: Key, estimate: Estimate) -> float:
        """The mean duration, and what runs for longer than it counts with its age."""
        starts, work = max(estimate.weight, 1e-9), max(estimate.weight, 1e-9) * estimate.mean
        for _, counters in self._former.values():
            running = counters.get(key)
            if running is None or not running.running:
                continue
            for age, count in _durations(running.running, running.age):
                if age > estimate.mean:
                    weight = count * math.exp(-min(age / MEMORY, 50.0))
                    starts += weight
                    work += weight * age
        return work / starts

    # --- what is kept ------------------------------------------------------------------------------------------------

    def saved(self) -> list[dict[str, Any]]:
        """The estimates, for `restore`; with two digits, so that they change rarely."""
        saved = []
        for (queue, kind), estimate in sorted(self.estimates.items()):
            one: dict[str, Any] = {"queue": queue, "type": kind, "seconds": float(f"{estimate.mean:.2g}")}
            if estimate.usable is not None:
                one["usableSlots"] = float(f"{estimate.usable:.2g}")
            saved.append(one)
        return saved

    def restore(self, saved: Iterable[Mapping[str, Any]]) -> None:
        """Begin with what another process has measured; anything that is not understood is left out."""
        for one in saved:
            try:
                key, mean = (str(one["queue"]), str(one["type"])), float(one["seconds"])
                usable = float(one["usableSlots"]) if "usableSlots" in one else None
            except (KeyError, TypeError, ValueError):
                continue
            if 0 <= mean < math.inf and (usable is None or 1 <= usable < math.inf):
                self.estimates.setdefault(key, Estimate(mean, KEPT, 1e-9, usable))


def _is_whole_life(worker: Told, counters: Mapping[Key, _Counters]) -> bool:
    """Whether all of it can have happened since the worker registered: a process that registers anew goes on counting
    from before."""
    spent = sum(one.slot_seconds for one in counters.values())
    return spent <= 1.1 * worker.slots * (worker.at - worker.started + 1.0)


def _read(worker: Told) -> dict[Key, _Counters]:
    """The counters, by queue and type. What cannot be read is left out."""
    read: dict[Key, _Counters] = {}
    for queue, stats in worker.stats.items():
        try:
            if "types" in stats:
                for kind, told in stats["types"].items():
                    ended = {float(bound): int(count) for bound, count in told.get("ended", {}).items()}
                    running = {float(bound): int(count) for bound, count in told.get("running", {}).items()}
                    seconds, age = float(told.get("seconds", 0.0)), float(told.get("age", 0.0))
                    read[queue, kind] = _Counters(ended, seconds, running, age)
            elif finished := int(stats.get("finished", 0)):
                read[queue, ""] = _Counters({math.inf: finished}, float(stats.get("seconds", 0.0)))
        except (AttributeError, TypeError, ValueError):
            continue
    return read


def _durations(buckets: Mapping[float, int], seconds: float) -> list[tuple[float, int]]:
    """(duration, attempts) of each bucket, so that together they took `seconds`."""
    count = sum(buckets.values())
    if len(buckets) == 1:
        return [(seconds / count, count)]
    middles = [(0.6 * bound if math.isfinite(bound) else 7200.0, number) for bound, number in buckets.items()]
    scale = seconds / sum(middle * number for middle, number in middles)
    return [(middle * scale, number) for middle, number in middles]
