"""Backoff mathematics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue.retry import RetryPolicy

policies = st.builds(
    RetryPolicy,
    base=st.floats(0, 100),
    factor=st.floats(1, 10),
    maximum=st.floats(100, 1e6),
    jitter=st.floats(0, 1),
)
attempts = st.integers(1, 10_000)
chances = st.floats(0, 1, exclude_max=True)


@given(policies, attempts, chances)
def test_a_delay_lies_between_its_jittered_floor_and_the_maximum(
    policy: RetryPolicy, attempt: int, chance: float
) -> None:
    delay = policy.delay(attempt, chance)
    ceiling = policy.ceiling(attempt)
    assert ceiling * (1 - policy.jitter) <= delay + 1e-9
    assert delay <= ceiling <= policy.maximum


@given(policies, attempts)
def test_the_ceiling_never_shrinks(policy: RetryPolicy, attempt: int) -> None:
    assert policy.ceiling(attempt) <= policy.ceiling(attempt + 1)


@given(policies)
def test_the_first_retry_waits_for_the_base(policy: RetryPolicy) -> None:
    assert policy.ceiling(1) == policy.base


@given(policies, attempts, chances, chances)
def test_more_jitter_means_a_shorter_delay(policy: RetryPolicy, attempt: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert policy.delay(attempt, high) <= policy.delay(attempt, low)


def test_without_chance_given_the_dice_are_thrown() -> None:
    policy = RetryPolicy(base=10, jitter=1)
    assert len({policy.delay(3) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    "wrong",
    [{"base": -1}, {"base": 10, "maximum": 5}, {"factor": 0.5}, {"jitter": -0.1}, {"jitter": 1.1}],
)
def test_bounds_out_of_order_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="retry"):
        RetryPolicy(**wrong)
