"""PromQL, put together from declared metrics.

What the leader exports alone is taken by `latest` (a maximum: after a change of the lead two may be seen for a moment),
what every process counts for itself by `rate`, `quantile` and `total` (sums).
"""

from typing import Final, Literal

from goqueue.instruments import Histogram, Instrument

NAMESPACE: Final = 'namespace=~"$namespace"'
WINDOW: Final = "$__rate_interval"
API: Final = 'process="api"'
SCHEDULER: Final = 'process="scheduler"'
OPERATOR: Final = 'process="operator"'


def of(metric: Instrument, *matchers: str, suffix: Literal["", "_bucket", "_sum", "_count"] = "") -> str:
    """Select a metric in the namespaces of the dashboard's variable; `matchers` like `queue=~"$queue"`."""
    return f"{metric.name}{suffix}{{{', '.join((NAMESPACE, *matchers))}}}"


def latest(metric: Instrument, by: str, *matchers: str) -> str:
    """A gauge that one process exports for all."""
    return f"max by ({by}) ({of(metric, *matchers)})"


def total(metric: Instrument, by: str, *matchers: str) -> str:
    """A gauge that every process exports for itself."""
    return f"sum by ({by}) ({of(metric, *matchers)})"


def rate(metric: Instrument, by: str, *matchers: str, suffix: Literal["", "_sum", "_count"] = "") -> str:
    """How much a counter grows in a second."""
    return f"sum by ({by}) (rate({of(metric, *matchers, suffix=suffix)}[{WINDOW}]))"


def grown(metric: Instrument, by: str, *matchers: str) -> str:
    """How much a counter grew between two points of the graph."""
    return f"sum by ({by}) (increase({of(metric, *matchers)}[{WINDOW}]))"


def quantile(share: float, metric: Histogram, by: str, *matchers: str) -> str:
    """The value below which this share of what a histogram observed lies."""
    buckets = f"rate({of(metric, *matchers, suffix='_bucket')}[{WINDOW}])"
    return f"histogram_quantile({share}, sum by ({', '.join(filter(None, ('le', by)))}) ({buckets}))"


def quantiles(
    metric: Histogram, by: str, *matchers: str, shares: tuple[float, ...] = (0.5, 0.95, 0.99)
) -> list[tuple[str, str]]:
    """A line for each share; `by` is one label or none, and begins the name of its lines."""
    prefix = f"{{{{{by}}}}} " if by else ""
    return [(quantile(share, metric, by, *matchers), f"{prefix}p{share * 100:g}") for share in shares]


def ratio(part: str, whole: str) -> str:
    """Part of a whole from 0 to 1; 0 while there is no whole."""
    return f"({part} or 0 * {whole}) / ({whole} > 0) or 0 * {whole}"


def phases_of(metric: Instrument, by: str, *matchers: str) -> str:
    """Only what is 1, of a gauge that is 1 for one state of several."""
    return f"{latest(metric, by, *matchers)} == 1"
