"""What a worker tells of itself with each heartbeat: the autoscaler reads from it how fast the worker is."""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from goqueue import metrics
from goqueue.pace import bucket_name
from goqueue_worker.attempt import RunningAttempt
from goqueue_worker.tallies import Tallies

BOUNDS: Final = metrics.ATTEMPT_SECONDS.buckets

_NAMES: Final = [bucket_name(bound) for bound in (*BOUNDS, float("inf"))]


@dataclass(slots=True)
class Standing:
    """One heartbeat. `busy`: slots that are taken; `stats`: see `queue_stats`."""

    busy: int
    draining: bool
    stats: dict[str, Any]


def queue_stats(
    queues: Iterable[str], running: Collection[RunningAttempt], tallies: Tallies, now: float
) -> dict[str, dict[str, Any]]:
    """By queue: slots that are `busy`, attempts that `finished` and the `seconds` that they took together.

    `types` has the same for each type, as a histogram: of attempts that ended (`ended`, with their `seconds`) and of
    the ages of those that run (`running`, with their `age` together). A bucket is named by its upper bound in seconds.
    `now` is `time.monotonic()`.
    """
    stats: dict[str, dict[str, Any]] = {
        queue: {"busy": 0, "finished": 0, "seconds": 0.0, "types": {}} for queue in queues
    }
    for (queue, kind), (counts, seconds) in tallies.durations().items():
        if queue in stats and (finished := sum(counts)):
            stats[queue]["finished"] += finished
            stats[queue]["seconds"] = round(stats[queue]["seconds"] + seconds, 3)
            ended = {name: count for name, count in zip(_NAMES, counts, strict=True) if count}
            stats[queue]["types"][kind] = {"ended": ended, "seconds": round(seconds, 3)}
    for attempt in running:
        if (of_queue := stats.get(attempt.job.queue)) is None:
            continue
        of_queue["busy"] += 1
        if attempt.begun:
            age = max(0.0, now - attempt.started)
            of_type = of_queue["types"].setdefault(attempt.job.type, {})
            name = _NAMES[bisect_left(BOUNDS, age)]
            ages = of_type.setdefault("running", {})
            ages[name] = ages.get(name, 0) + 1
            of_type["age"] = round(of_type.get("age", 0.0) + age, 3)
    return stats
