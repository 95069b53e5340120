"""What the worker counts in passing is what prometheus_client would count one by one."""

import itertools
import threading

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily

from goqueue import metrics
from goqueue_worker.tallies import FRESH, Sizes

BOUNDS = metrics.WAIT_SECONDS.buckets

seconds = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 2 * BOUNDS[-1]))


def shown(sizes: Sizes) -> dict[str, float]:
    """The samples of a scrape, by bucket."""
    family = HistogramMetricFamily("waits", "", labels=())
    sizes.show(family, ())
    return {sample.labels.get("le", sample.name): sample.value for sample in family.samples}


@given(st.lists(st.one_of(seconds, st.lists(seconds, max_size=2 * FRESH)), max_size=20), st.integers(1, 10))
def test_a_histogram_counts_as_prometheus_client_does(values: list[float | list[float]], scrapes: int) -> None:
    sizes = Sizes(metrics.WAIT_SECONDS)
    peer = prometheus_client.Histogram("waits", "", registry=CollectorRegistry(), buckets=BOUNDS)
    for number, value in enumerate(values):
        if isinstance(value, list):
            sizes.add_all(value)
        else:
            sizes.add(value)
        for one in value if isinstance(value, list) else [value]:
            peer.observe(one)
        if number % scrapes == 0:
            shown(sizes)
    ours = shown(sizes)
    (family,) = peer.collect()
    theirs = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    total = theirs.pop("waits_sum")
    assert abs(ours.pop("waits_sum") - total) <= 1e-9 * max(1.0, total)
    assert ours == {name: value for name, value in theirs.items() if name != "waits_created"}


def test_no_value_is_lost_or_counted_twice_while_another_thread_scrapes() -> None:
    sizes = Sizes(metrics.WAIT_SECONDS)
    counts: list[int] = []
    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            counts.append(sum(sizes.counted[0]))

    scraping = threading.Thread(target=scrape)
    scraping.start()
    try:
        for number in range(100_000):
            sizes.add(number / 1000)
    finally:
        over.set()
        scraping.join()
    assert all(before <= after for before, after in itertools.pairwise(counts))
    assert sum(sizes.counted[0]) == 100_000
