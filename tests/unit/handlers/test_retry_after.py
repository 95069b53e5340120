from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue_worker.handlers.retry_after import LONGEST, retry_after

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@given(st.integers(1, 3600))
def test_whole_seconds_are_taken_as_they_are(seconds: int) -> None:
    assert retry_after(f" {seconds} ", NOW) == seconds


@given(st.integers(1, 3600))
def test_a_date_is_the_time_until_it(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after(date, NOW) == seconds


@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000"])
def test_a_date_in_any_writing_of_utc_is_understood(zone: str) -> None:
    assert retry_after(f"Sun, 01 Mar 2026 12:01:00 {zone}", NOW) == 60


@given(st.integers(3601, 10**40) | st.just(10**4000))
def test_nobody_makes_a_job_wait_longer_than_the_bound(seconds: int) -> None:
    assert retry_after(str(seconds), NOW) == LONGEST


def test_a_date_far_away_is_bounded() -> None:
    assert retry_after("Fri, 31 Dec 9999 23:59:59 GMT", NOW) == LONGEST


@pytest.mark.parametrize(
    "value",
    [None, "", "0", "-5", "1.5", "soon", "٣", "Sun, 01 Mar 2026 11:59:59 GMT", "Sun, 99 Mar 2026", "nan"],
)
def test_a_senseless_or_past_value_leaves_the_usual_backoff(value: str | None) -> None:
    assert retry_after(value, NOW) is None


@given(st.text())
def test_any_text_gives_none_or_a_bounded_wait(value: str) -> None:
    wait = retry_after(value, NOW)
    assert wait is None or 0 < wait <= LONGEST
