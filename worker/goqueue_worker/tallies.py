"""What the worker counts for each attempt, cheap enough for the hot path: plain lists, turned into metrics at a scrape.

An `observe()` of prometheus_client costs more than a microsecond; here a whole attempt costs a fraction of it.
"""

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from goqueue import metrics, tracecontext, tracing
from goqueue.instruments import Histogram, bound
from goqueue.job import ClaimedJob, Outcome

_LABELS: Final = ("queue", "type")


FRESH: Final = 500
"""Values that wait to be counted together."""

_QUEUE: Final = attrgetter("queue")


class Sizes:
    """A histogram. Of each bucket it remembers the last value that was observed in a recorded trace.

    Values are noted by the event loop's thread, and counted many at a time: by any thread, since a scrape wants all.
    """

    __slots__ = ("_bounds", "_counting", "_counts", "_examples", "_fresh", "_sum")

    def __init__(self, declared: Histogram) -> None:
        self._bounds = declared.buckets
        self._counts = [0] * (len(declared.buckets) + 1)
        self._sum = 0.0
        self._examples: dict[int, tuple[str, float, float]] = {}
        self._fresh: list[float] = []
        self._counting = threading.Lock()

    def add(self, value: float, trace_id: str | None = None) -> None:
        """Take in one value."""
        self._fresh.append(value)
        if trace_id is not None:
            self.example(value, trace_id)
        if len(self._fresh) >= FRESH:
            self._count()

    def example(self, value: float, trace_id: str) -> None:
        """Remember this one as the last of its bucket that a recorded trace has."""
        self._examples[bisect_left(self._bounds, value)] = (trace_id, value, time.time())

    def add_all(self, values: list[float]) -> None:
        """Take in many."""
        self._fresh += values
        if len(self._fresh) >= FRESH:
            self._count()

    def _count(self) -> tuple[list[int], float]:
        """Count what was noted: sorted, a bucket's values are those between two places. How many each has, and the sum
        of all."""
        with self._counting:
            fresh = self._fresh[:]
            del self._fresh[: len(fresh)]  # and not what came meanwhile
            fresh.sort()
            counted = 0
            for bucket, most in enumerate(self._bounds):
                place = bisect_right(fresh, most, counted)
                self._counts[bucket] += place - counted
                counted = place
            self._counts[-1] += len(fresh) - counted
            self._sum += sum(fresh)
            return self._counts[:], self._sum

    @property
    def counted(self) -> tuple[list[int], float]:
        """How many values each bucket has, and the sum of all."""
        return self._count()

    def show(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Write it into the family."""
        counts, seconds = self._count()
        buckets: list[Any] = []
        for place, count in enumerate(accumulate(counts)):
            end = self._bounds[place] if place < len(self._bounds) else float("inf")
            name = floatToGoString(end)  # type: ignore[no-untyped-call]
            example = self._examples.get(place)
            exemplar = Exemplar({"trace_id": example[0]}, *example[1:]) if example is not None else None
            buckets.append((name, count, exemplar))
        family.add_metric(labels, buckets, seconds)


class _Tally:
    """Of one queue and type."""

    __slots__ = ("completed", "labels", "otherwise", "seconds")

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.completed = 0
        self.otherwise: dict[str, int] = {}
        self.seconds = Sizes(metrics.ATTEMPT_SECONDS)


class Tallies(Collector):
    """All attempts of this worker."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, ...], _Tally] = {}
        self._waits: dict[str, Sizes] = {}

    def claimed(self, jobs: Iterable[ClaimedJob]) -> None:
        """These jobs wait no more."""
        for queue, some in groupby(jobs, _QUEUE):
            waits = self._waits.get(queue)
            if waits is None:
                (label,) = bound(("queue",), (queue,))
                waits = self._waits.setdefault(label, Sizes(metrics.WAIT_SECONDS))
            if tracing.on is None:
                waits.add_all([job.waited for job in some])
            else:
                traced = list(some)
                waits.add_all([job.waited for job in traced])
                for job in traced:
                    context = job.trace_context
                    if context is None or tracecontext.unrecorded(context):
                        continue
                    if (trace_id := tracecontext.trace_id(context)) is not None:
                        waits.example(job.waited, trace_id)

    def ended(self, job: ClaimedJob, outcome: Outcome, seconds: float | None, trace_id: str | None = None) -> None:
        """An attempt is over; `seconds` None: its handler was never called. `trace_id`: where it is recorded."""
        tally = self._tallies.get((job.queue, job.type))
        if tally is None:
            labels = bound(_LABELS, (job.queue, job.type))
            tally = self._tallies.get(labels) or self._tallies.setdefault(labels, _Tally(labels))
        if outcome is Outcome.COMPLETED:
            tally.completed += 1
        else:
            tally.otherwise[outcome.value] = tally.otherwise.get(outcome.value, 0) + 1
        if seconds is not None:
            tally.seconds.add(seconds, trace_id)

    def durations(self) -> dict[tuple[str, str], tuple[list[int], float]]:
        """By queue and type: of handlers that came to an end, how many each bucket has and the seconds of all."""
        return {(tally.labels[0], tally.labels[1]): tally.seconds.counted for tally in list(self._tallies.values())}

    def collect(self) -> Iterable[Metric]:
        """The metrics, in the probes' thread."""
        attempts = CounterMetricFamily(metrics.ATTEMPTS.name, metrics.ATTEMPTS.help, labels=metrics.ATTEMPTS.labels)
        seconds = _family(metrics.ATTEMPT_SECONDS)
        waits = _family(metrics.WAIT_SECONDS)
        for tally in list(self._tallies.values()):
            for outcome, count in (("completed", tally.completed), *list(tally.otherwise.items())):
                attempts.add_metric((*tally.labels, outcome), count)
            tally.seconds.show(seconds, tally.labels)
        for queue, sizes in list(self._waits.items()):
            sizes.show(waits, (queue,))
        return attempts, seconds, waits


def _family(declared: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(declared.name, declared.help, labels=declared.labels)
