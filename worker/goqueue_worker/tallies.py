"""What the worker counts for each attempt, cheap enough for the hot path: plain lists, turned into metrics at a scrape.

An `observe()` of prometheus_client costs more than a microsecond; here a whole attempt costs less.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from goqueue import metrics
from goqueue.instruments import Histogram, bound
from goqueue.job import ClaimedJob, Outcome

_LABELS: Final = ("queue", "type")


class Sizes:
    """A histogram."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, declared: Histogram) -> None:
        self._bounds = declared.buckets
        self._counts = [0] * (len(declared.buckets) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Take in one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def show(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Write it into the family."""
        names = [floatToGoString(bound) for bound in (*self._bounds, float("inf"))]  # type: ignore[no-untyped-call]
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


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
        for job in jobs:
            waits = self._waits.get(job.queue)
            if waits is None:
                (queue,) = bound(("queue",), (job.queue,))
                waits = self._waits.setdefault(queue, Sizes(metrics.WAIT_SECONDS))
            waits.add((job.claimed_at - job.available_at).total_seconds())

    def ended(self, job: ClaimedJob, outcome: Outcome, seconds: float | None) -> None:
        """An attempt is over; `seconds` None: its handler was never called."""
        tally = self._tallies.get((job.queue, job.type))
        if tally is None:
            labels = bound(_LABELS, (job.queue, job.type))
            tally = self._tallies.get(labels) or self._tallies.setdefault(labels, _Tally(labels))
        if outcome is Outcome.COMPLETED:
            tally.completed += 1
        else:
            tally.otherwise[outcome.value] = tally.otherwise.get(outcome.value, 0) + 1
        if seconds is not None:
            tally.seconds.add(seconds)

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
