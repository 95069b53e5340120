"""Metrics as declarations. Nothing is made or counted before `begin()`: a program that only uses the library pays
nothing, and each process shows only what it counts.

The values of the labels `queue` and `type` come from outside; those that the process does not know become `other`, so
that nobody can make new series.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import prometheus_client
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

Process = Literal["api", "worker", "scheduler", "operator"]

ALL: Final[tuple[Process, ...]] = ("api", "worker", "scheduler", "operator")

OTHER: Final = "other"
"""Stands for every queue and type that the process does not know."""

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Variable by which prometheus_client learns, when it is imported, that several processes count together."""

CATALOGUE: Final[list["Instrument"]] = []
"""All declarations, in their order."""

_known: dict[str, frozenset[str]] = {}
_registry: CollectorRegistry | None = None


class Instrument:
    """One declared metric. `outside`: a collector of the process's own yields it, see `collect`."""

    kind: ClassVar[str]

    def __init__(
        self,
        name: str,
        help: str,
        processes: Sequence[Process],
        labels: Sequence[str] = (),
        *,
        unit: str = "",
        outside: bool = False,
    ) -> None:
        self.name = name
        self.help = help
        self.processes = tuple(processes)
        self.labels = tuple(labels)
        self.unit = unit
        self.outside = outside
        self._live: Any = None
        self._children: dict[tuple[str, ...], Any] = {}
        CATALOGUE.append(self)

    @property
    def on(self) -> bool:
        """Whether this process counts it."""
        return self._live is not None

    def start(self, registry: CollectorRegistry) -> None:
        """Make it."""
        self._live = self._make(registry)

    def stop(self, registry: CollectorRegistry) -> None:
        """Forget it."""
        registry.unregister(self._live)
        self._live = None
        self._children.clear()

    def _make(self, registry: CollectorRegistry) -> Any:
        raise NotImplementedError

    def child(self, *labels: str) -> Any:
        """The metric with these labels, for those who count often; None where this process does not count it."""
        return self._child(labels) if self._live is not None else None

    def _child(self, labels: tuple[str, ...]) -> Any:
        child = self._children.get(labels)
        if child is None:
            bounded = bound(self.labels, labels)
            child = self._live.labels(*bounded) if bounded else self._live
            if bounded == labels:
                self._children[labels] = child
        return child


class Counter(Instrument):
    """Only grows."""

    kind = "counter"

    def inc(self, amount: float = 1, *labels: str) -> None:
        """Count."""
        if self._live is not None and amount:
            self._child(labels).inc(amount)

    def _make(self, registry: CollectorRegistry) -> Any:
        return prometheus_client.Counter(self.name, self.help, self.labels, registry=registry)


class Gauge(Instrument):
    """Goes up and down. `mode`: what counts where the API has several processes."""

    kind = "gauge"

    def __init__(
        self, *arguments: Any, mode: Literal["livesum", "livemin", "livemax"] = "livesum", **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self._mode = mode

    def set(self, value: float, *labels: str) -> None:
        """Say how much it is."""
        if self._live is not None:
            self._child(labels).set(value)

    def read(self, function: Callable[[], float], *labels: str) -> None:
        """Ask this function at each scrape, in the probes' thread. Not for the API."""
        if self._live is not None:
            self._child(labels).set_function(function)

    def forget(self) -> None:
        """Show nothing until the next `set`."""
        if self._live is not None:
            self._children.clear()
            self._live.clear()

    def remove(self, *labels: str) -> None:
        """Show these labels no more."""
        if self._live is not None and self._children.pop(labels, None) is not None:
            self._live.remove(*labels)

    def _make(self, registry: CollectorRegistry) -> Any:
        return prometheus_client.Gauge(
            self.name, self.help, self.labels, registry=registry, multiprocess_mode=self._mode
        )


class Histogram(Instrument):
    """Counts what was observed by size. `buckets` are upper bounds, the last one but +Inf."""

    kind = "histogram"

    def __init__(self, *arguments: Any, buckets: Sequence[float], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.buckets = tuple(buckets)

    def observe(self, value: float, *labels: str) -> None:
        """Take in one value."""
        if self._live is not None:
            self._child(labels).observe(value)

    def _make(self, registry: CollectorRegistry) -> Any:
        return prometheus_client.Histogram(self.name, self.help, self.labels, registry=registry, buckets=self.buckets)


def bound(names: tuple[str, ...], values: tuple[str, ...]) -> tuple[str, ...]:
    """The label values, with `other` for each queue and type that is not known."""
    return tuple(
        value if (known := _known.get(name)) is None or value in known else OTHER
        for name, value in zip(names, values, strict=True)
    )


def begin(
    process: Process, queues: Iterable[str], types: Iterable[str], registry: CollectorRegistry = REGISTRY
) -> None:
    """Count in this process from now on: see `goqueue.metrics.begin`."""
    global _registry
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    _registry = registry
    _known.update(queue=frozenset((*queues, OTHER)), type=frozenset((*types, OTHER)))
    for instrument in CATALOGUE:
        if process in instrument.processes and not instrument.outside:
            instrument.start(registry)


def end() -> None:
    """Count no more; for tests."""
    global _registry
    if _registry is not None:
        for instrument in CATALOGUE:
            if instrument.on:
                instrument.stop(_registry)
    _registry = None
    _known.clear()


def collect(collector: Collector) -> None:
    """Show what this collector yields as well, where this process counts at all."""
    if _registry is not None:
        _registry.register(collector)


class _Processes(Collector):
    """What all processes that share the folder have counted; gauges only of those that live."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._all = MultiProcessCollector(None, path=folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for file in Path(self._folder).glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                mark_process_dead(pid, self._folder)  # type: ignore[no-untyped-call]
        found: Iterable[Metric] = self._all.collect()  # type: ignore[no-untyped-call]
        return found


@contextmanager
def shared() -> Iterator[CollectorRegistry]:
    """Let the processes that are started within the block count together; the registry shows their sum."""
    with tempfile.TemporaryDirectory(prefix="goqueue-metrics-") as folder:
        registry = CollectorRegistry()
        registry.register(_Processes(folder))
        os.environ[SHARED] = folder
        try:
            yield registry
        finally:
            del os.environ[SHARED]
