"""Fire times: zones, daylight saving, missed ticks."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue import cron
from goqueue.errors import InvalidInput
from tests.cronlines import ACCEPTED, REFUSED, WRONG

BERLIN = "Europe/Berlin"
"""An hour ahead of UTC in January."""


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_daily_tick_keeps_its_local_hour_over_a_change_of_the_clocks() -> None:
    around = list(islice(cron.ticks("0 9 * * *", "Europe/Berlin", utc("2026-03-27T12:00")), 3))
    assert around == [utc("2026-03-28T08:00"), utc("2026-03-29T07:00"), utc("2026-03-30T07:00")]


def test_a_time_that_the_clock_skips_fires_once_after_the_gap() -> None:
    # Berlin jumps from 02:00 to 03:00 on 29 March 2026: 02:30 does not exist.
    ticks = list(islice(cron.ticks("30 2 * * *", "Europe/Berlin", utc("2026-03-28T12:00")), 2))
    assert ticks == [utc("2026-03-29T01:00"), utc("2026-03-30T00:30")]


def test_a_time_that_the_clock_passes_twice_fires_once() -> None:
    # New York falls back from 02:00 to 01:00 on 1 November 2026: 01:30 comes twice.
    ticks = list(islice(cron.ticks("30 1 * * *", "America/New_York", utc("2026-10-31T12:00")), 2))
    assert ticks == [utc("2026-11-01T05:30"), utc("2026-11-02T06:30")]


def test_every_quarter_of_an_hour_goes_on_through_both_changes() -> None:
    for start in ("2026-03-29T00:00", "2026-10-25T00:00"):
        ticks = list(islice(cron.ticks("*/15 * * * *", "Europe/Berlin", utc(start)), 16))
        assert {later - earlier for earlier, later in pairwise(ticks)} == {timedelta(minutes=15)}


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "0 3 * * 1-5", "15 10 1 * *"]),
    st.sampled_from(["UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Auckland"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - made aware in the test
)
def test_ticks_are_after_the_start_and_strictly_ascending(expression: str, zone: str, start: datetime) -> None:
    after = start.replace(tzinfo=UTC)
    ticks = list(islice(cron.ticks(expression, zone, after), 5))
    assert after < ticks[0]
    assert all(earlier < later for earlier, later in pairwise(ticks))


@pytest.mark.parametrize("expression", ACCEPTED)
def test_usual_lines_are_understood(expression: str) -> None:
    cron.check(expression)
    assert cron.next_tick(expression, "UTC", utc("2026-01-01T00:00")) > utc("2026-01-01T00:00")


@pytest.mark.parametrize(("expression", "words"), [*REFUSED.items(), *WRONG.items()])
def test_a_line_that_is_not_ours_is_refused_in_words(expression: str, words: str) -> None:
    def stored() -> None:
        cron.check(expression)
        cron.next_tick(expression, "UTC", utc("2026-01-01T00:00"))

    with pytest.raises(InvalidInput) as caught:
        stored()
    assert caught.value.fields["cron"].startswith(words)


@pytest.mark.parametrize(("field", "size"), list(enumerate([60, 24, 31, 12, 7])))
def test_a_step_may_be_as_long_as_its_field_and_no_longer(field: int, size: int) -> None:
    def allowed(step: int) -> bool:
        fields = ["1"] * 5
        fields[field] = f"*/{step}"
        return all(rule.allows(" ".join(fields)) for rule in cron.RULES)

    assert [step for step in range(1, 1200) if allowed(step)] == list(range(1, size + 1))


@pytest.mark.parametrize(
    ("name", "expression"),
    [("@weekly", "0 0 * * SUN"), ("@monthly", "0 0 1 * *"), ("@annually", "0 0 1 JAN *"), ("@daily", "0 0 * * *")],
)
def test_a_name_fires_when_its_expression_does(name: str, expression: str) -> None:
    named, spelled = (
        islice(cron.ticks(one, "Europe/Berlin", utc("2026-01-01T00:00")), 5) for one in (name, expression)
    )
    assert list(named) == list(spelled)


@pytest.mark.parametrize(
    ("marked", "star"), [("0 9 ? * MON", "0 9 * * MON"), ("0 9 13 * ?", "0 9 13 * *"), ("0 9 ? * ?", "0 9 * * *")]
)
def test_a_question_mark_is_any_day(marked: str, star: str) -> None:
    one, other = (islice(cron.ticks(line, "UTC", utc("2026-01-01T00:00")), 5) for line in (marked, star))
    assert list(one) == list(other)


@pytest.mark.parametrize(("expression", "interval"), [("*/10 * * * * *", 10), ("*/90 * * * *", 3600)])
def test_what_an_earlier_release_has_stored_goes_on_to_fire(expression: str, interval: int) -> None:
    first, second = islice(cron.ticks(expression, "UTC", utc("2026-01-01T00:00")), 2)
    assert (second - first).total_seconds() == interval


@pytest.mark.parametrize(
    ("stored", "last", "changed", "expected"),
    [
        ("15T08:00", "14T08:00", "01T00:00", "15T08:00"),  # computed by the same data
        ("15T07:00", "14T07:00", "01T00:00", "15T08:00"),  # the right time is later
        ("15T09:00", "14T09:00", "01T00:00", "15T08:00"),  # earlier
        ("15T07:00", None, "14T12:00", "15T08:00"),  # has never fired
        ("16T07:00", "15T07:00", "01T00:00", "16T08:00"),  # has run at 07:00 today: not at 08:00 again
        ("15T08:00", "14T08:00", "15T08:01", "15T08:00"),  # put while it was due
        ("16T09:00", "14T09:00", "15T12:00", "16T08:00"),  # put since it fired
        ("10T09:00", "09T09:00", "01T00:00", "10T09:00"),  # too old to fire: left to `missed`
    ],
)
def test_a_stored_tick_is_held_against_the_zone_data_in_force(
    stored: str, last: str | None, changed: str, expected: str
) -> None:
    def moment(text: str) -> datetime:
        return utc(f"2026-01-{text}")

    tick = cron.in_force(
        "0 9 * * *",
        BERLIN,
        moment(stored),
        last=None if last is None else moment(last),
        changed=moment(changed),
        oldest=moment("14T12:00"),
    )
    assert tick == moment(expected)


def test_an_earlier_tick_that_the_data_in_force_know_fires_though_the_stored_one_is_right_too() -> None:
    # 09:00 and 10:00 were 09:00 and 10:00 UTC when the tick was stored, and are 08:00 and 09:00 UTC now.
    stored, last = utc("2026-01-15T09:00"), utc("2026-01-14T10:00")
    tick = cron.in_force("0 9,10 * * *", BERLIN, stored, last=last, changed=last - timedelta(days=9), oldest=last)
    assert tick == utc("2026-01-15T08:00")


@pytest.mark.parametrize("expression", ["", "* * * *", "61 * * * *", "a b c d e", "0 0 30 2 *", "* * * * * * *"])
def test_a_wrong_or_impossible_expression_is_named(expression: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        cron.next_tick(expression, "UTC", utc("2026-01-01T00:00"))
    assert list(caught.value.fields) == ["cron"]


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "Europe"])
def test_an_unknown_zone_is_named(zone: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        cron.next_tick("* * * * *", zone, utc("2026-01-01T00:00"))
    assert list(caught.value.fields) == ["time_zone"]


@pytest.mark.parametrize(
    ("first", "now", "expected"),
    [
        ("10:00", "10:00", "10:00"),  # on time
        ("10:00", "10:59", "10:00"),  # late, nothing missed
        ("10:00", "12:30", "12:00"),  # three missed: the latest stands for them
        ("01:00", "12:30", "12:00"),  # most of them too old, the latest is not
    ],
)
def test_after_an_absence_the_latest_missed_tick_fires_once(first: str, now: str, expected: str) -> None:
    at = utc(f"2026-05-05T{now}")
    tick = cron.missed("0 * * * *", "UTC", utc(f"2026-05-05T{first}"), at, at - timedelta(hours=1))
    assert tick == utc(f"2026-05-05T{expected}")


def test_a_tick_older_than_the_catch_up_bound_does_not_fire() -> None:
    now = utc("2026-05-05T12:00")
    assert cron.missed("0 3 * * *", "UTC", utc("2026-05-05T03:00"), now, now - timedelta(hours=1)) is None
