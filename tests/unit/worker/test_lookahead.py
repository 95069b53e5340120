"""How far a worker claims ahead of its free slots."""

from hypothesis import given
from hypothesis import strategies as st

from goqueue_worker.lookahead import MARGIN, Lookahead


def after(claims: int, *, every: float, seconds: float, ended: int, most: int = 50) -> Lookahead:
    """A lookahead that saw so many claims, each `every` seconds, taking `seconds`, with `ended` ends between two."""
    lookahead = Lookahead(most, 0.0)
    for number in range(1, claims + 1):
        lookahead.claimed(seconds, number * ended, number * every)
    return lookahead


def test_a_worker_that_has_done_nothing_claims_for_free_slots_only() -> None:
    assert Lookahead(50, 0.0).jobs == 0
    assert Lookahead(50, 0.0).batch == 1


def test_jobs_that_take_seconds_are_never_claimed_ahead() -> None:
    assert after(1000, every=1.0, seconds=0.003, ended=50).jobs == 0


def test_short_jobs_are_claimed_ahead_by_rate_times_round_trip() -> None:
    lookahead = after(200, every=0.002, seconds=0.002, ended=10)  # 5,000 ends a second
    assert lookahead.jobs == MARGIN * 5_000 * 0.002 == 30
    assert lookahead.batch == 15


def test_it_forgets_within_a_dozen_claims_when_jobs_become_long() -> None:
    lookahead = after(200, every=0.002, seconds=0.002, ended=10)
    for number in range(1, 13):
        lookahead.claimed(0.002, 2000, 0.4 + number)
    assert lookahead.jobs == 0


def test_a_miss_ends_it_at_once() -> None:
    lookahead = after(200, every=0.002, seconds=0.002, ended=10)
    lookahead.missed()
    assert lookahead.jobs == 0


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 100_000), st.floats(0, 5)), max_size=20),
)
def test_it_stays_between_nothing_and_its_bound(most: int, claims: list[tuple[float, int, float]]) -> None:
    lookahead, ended, now = Lookahead(most, 0.0), 0, 0.0
    for seconds, more, later in claims:
        ended, now = ended + more, now + later
        lookahead.claimed(seconds, ended, now)
        assert 0 <= lookahead.jobs <= most
