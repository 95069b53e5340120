"""Rates out of counters that grow, start anew, come and go."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from goqueue.store.dispatch import WorkerRow
from goqueue_api.rates import LOOKS, Rate, Rates

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def worker(id: int, finished: int, queue: str = "a") -> WorkerRow:
    return WorkerRow(id, "w", [queue], 1, 0, 0, False, NOW, NOW, {queue: {"busy": 0, "finished": finished}})


def test_there_is_no_rate_before_the_second_look() -> None:
    rates = Rates()
    assert rates.of("a") == Rate()
    rates.look({"a": 5}, [worker(1, 5)], now=100)
    assert rates.of("a") == Rate()


def test_what_was_counted_before_the_first_look_is_not_in_the_rate() -> None:
    rates = Rates()
    rates.look({"a": 1000}, [worker(1, 1000)], now=100)
    rates.look({"a": 1010}, [worker(1, 1005)], now=105)
    assert rates.of("a") == Rate(arrived=2.0, finished=1.0)


def test_a_queue_of_which_nothing_is_known_stands_still() -> None:
    rates = Rates()
    rates.look({}, [], now=100)
    rates.look({}, [], now=105)
    assert rates.of("a") == Rate(0.0, 0.0)


def test_a_counter_that_fell_began_anew() -> None:
    rates = Rates()
    rates.look({"a": 1000}, [worker(1, 7)], now=100)
    rates.look({"a": 10}, [worker(1, 7)], now=105)
    assert rates.of("a") == Rate(2.0, 0.0)


def test_a_new_worker_counts_from_nought_and_one_that_left_takes_nothing_back() -> None:
    rates = Rates()
    rates.look({}, [worker(1, 100)], now=100)
    rates.look({}, [worker(1, 110), worker(2, 10)], now=105)
    rates.look({}, [worker(2, 20)], now=110)
    assert rates.of("a").finished == 3.0


def test_the_rate_is_that_of_the_last_looks_only() -> None:
    rates = Rates()
    for look in range(LOOKS):
        rates.look({"a": 1000 * look}, [], now=100 + 5 * look)
    for look in range(LOOKS):
        rates.look({"a": 1000 * LOOKS}, [], now=200 + 5 * look)
    assert rates.of("a").arrived == 0.0


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=2, max_size=10))
def test_no_rate_is_negative(looks: list[tuple[int, int]]) -> None:
    rates = Rates()
    for at, (arrived, finished) in enumerate(looks):
        rates.look({"a": arrived}, [worker(1, finished)], now=100 + at)
    rate = rates.of("a")
    assert rate.arrived is not None
    assert rate.finished is not None
    assert min(rate.arrived, rate.finished) >= 0
