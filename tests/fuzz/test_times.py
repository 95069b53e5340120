"""Cron expressions and time zones: only `InvalidInput` comes out; times go forward, and keep to the local clock."""

from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import available_timezones

from hypothesis import strategies as st

from goqueue import cron
from goqueue.errors import InvalidInput
from tests.fuzz.inputs import TEXTS, fuzz

ZONES = sorted(available_timezones() - {"Factory", "localtime"})
CHANGING = [
    *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca"),
    *("America/Santiago", "Pacific/Chatham", "Asia/Tehran", "Atlantic/Azores", "Pacific/Norfolk", "Africa/Cairo"),
]
_MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - see timezones
_ANY_MOMENT = _MOMENTS | st.sampled_from([datetime(9999, 12, 31, 23, 59, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)])
_GOOD = st.sampled_from(["*", "*", "*", "0", "*/7", "1-5", "1,2,3", "5"])
_ODD = st.sampled_from(
    [
        "59",
        "60",
        "-1",
        "*/0",
        "5-1",
        "L",
        "1L",
        "1#2",
        "W",
        "MON",
        "JAN",
        "sun-sat",
        "29",
        "30",
        "31",
        "2",
        "7",
        "0-59/61",
        "99999999999",
        "*/*",
        ",",
        "-",
        "/",
        "?",
        "@",
        "١",
        "1-",
        "*,*",
        "L-3",
        "*/60",
        "*/90",
        "0/025",
        "*/32",
        "1,2/13",
        "*/7/8",
        "15W",
        "H",
    ]
)
_NAMELESS = ["@every", "@reboot", "@Daily", "@", "5m", "* * * * *"]
_BLANKS = st.sampled_from([" ", "  ", "\t", "\n", "\r", "\v", "\x0c", "\x1f", "\xa0", "\u2003"])


def _separated(fields: list[str], blank: str) -> str:
    return f"{blank}{blank.join(fields)}{blank}"


_EXPRESSIONS: st.SearchStrategy[str] = st.deferred(
    lambda: (
        st.builds(" ".join, st.lists(_GOOD, min_size=5, max_size=5))
        | st.builds(_separated, st.lists(_GOOD | _ODD, min_size=4, max_size=6), _BLANKS)
        | st.builds(_separated, st.lists(st.sampled_from([*cron.NAMES, *_NAMELESS]), min_size=1, max_size=2), _BLANKS)
        | st.builds("{}{}".format, st.sampled_from(["CRON_TZ=", "TZ=UTC ", " TZ=", "@"]), TEXTS)
        | st.sampled_from(["0 0 30 2 *", "0 0 29 2 MON#5", "* * * * * *"])
        | TEXTS
    )
)
_ZONES = st.sampled_from(ZONES) | st.sampled_from(CHANGING) | TEXTS | st.sampled_from(["../x", "/etc/passwd"])


def _told(error: InvalidInput) -> str:
    assert set(error.fields) in ({"cron"}, {"time_zone"})
    return "refused"


@fuzz(
    expression=_EXPRESSIONS,
    zone=_ZONES,
    after=_ANY_MOMENT,
)
def test_any_expression_fires_later_and_later_or_is_refused(expression: str, zone: str, after: datetime) -> str:
    try:
        ticks = list(islice(cron.ticks(expression, zone, after), 5))
    except InvalidInput as error:
        return _told(error)
    assert after < ticks[0]
    assert all(earlier < later for earlier, later in pairwise(ticks))
    assert all(tick.tzinfo is UTC for tick in ticks)
    return "accepted"


@fuzz(expression=_EXPRESSIONS, zone=st.sampled_from(CHANGING), after=_MOMENTS)
def test_what_the_doors_let_through_has_five_fields_and_fires_at_whole_minutes_or_never(
    expression: str, zone: str, after: datetime
) -> str:
    try:
        cron.check(expression)
        ticks = list(islice(cron.ticks(expression, zone, after), 3))
    except InvalidInput as error:
        return _told(error)
    assert expression.strip() in cron.NAMES or len(expression.split()) == 5
    assert all((tick.second, tick.microsecond) == (0, 0) for tick in ticks)
    return "accepted"


@fuzz(
    expression=_EXPRESSIONS,
    zone=st.sampled_from(CHANGING),
    put=_MOMENTS,
    waited=st.timedeltas(timedelta(0), timedelta(days=400)),
    bound=st.timedeltas(timedelta(0), timedelta(days=2)),
)
def test_a_tick_by_the_data_in_force_is_left_as_it_is(
    expression: str, zone: str, put: datetime, waited: timedelta, bound: timedelta
) -> str:
    try:
        first, second = islice(cron.ticks(expression, zone, put), 2)
    except InvalidInput as error:
        return _told(error)
    oldest = put + waited - bound
    assert cron.in_force(expression, zone, first, last=None, changed=put, oldest=min(oldest, first)) == first
    assert cron.in_force(expression, zone, second, last=first, changed=put, oldest=min(oldest, second)) == second
    return "kept"


@fuzz(
    expression=st.sampled_from(["0 9 * * *", "*/10 * * * *", "7 */3 * * *", "0 9,10 * * 1-5", "30 2 * * *"]),
    zone=st.sampled_from(CHANGING),
    other=st.sampled_from(CHANGING),
    put=_MOMENTS,
    fired=st.booleans(),
)
def test_a_tick_by_other_data_is_replaced_by_one_in_force_and_only_once(
    expression: str, zone: str, other: str, put: datetime, fired: bool
) -> str:
    stored = cron.next_tick(expression, other, put)
    last = put.replace(second=0, microsecond=0) if fired else None
    changed = put - timedelta(days=3) if fired else put
    oldest = put - timedelta(hours=1)
    tick = cron.in_force(expression, zone, stored, last=last, changed=changed, oldest=oldest)
    assert tick == cron.next_tick(expression, zone, tick - timedelta(microseconds=1))
    assert tick > max(last or changed, oldest - timedelta(microseconds=1))
    assert cron.in_force(expression, zone, tick, last=last, changed=changed, oldest=oldest) == tick
    return "the same" if tick == stored else "replaced"


@fuzz(
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    zone=st.sampled_from(CHANGING),
    start=st.dates(date(2015, 1, 1), date(2035, 1, 1)),
)
def test_a_daily_time_comes_once_on_each_local_date(hour: int, minute: int, zone: str, start: date) -> str:
    local = cron.zone(zone)
    after = datetime(start.year, start.month, start.day, tzinfo=local) - timedelta(minutes=1)
    ticks = [tick.astimezone(local) for tick in islice(cron.ticks(f"{minute} {hour} * * *", zone, after), 40)]
    dates = [tick.date() for tick in ticks]
    assert len(set(dates)) == len(dates)
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(dates))
    moved = 0
    for tick in ticks:
        named = datetime(tick.year, tick.month, tick.day, hour, minute, tzinfo=local)
        exists = named.astimezone(UTC).astimezone(local).replace(tzinfo=None) == named.replace(tzinfo=None)
        if exists:  # where the clock skips it, it fires right after the gap
            assert (tick.hour, tick.minute) == (hour, minute)
        moved += not exists
    return "over a gap" if moved else "plain"


@fuzz(every=st.sampled_from([1, 2, 3, 5, 6, 10, 15, 30]), zone=st.sampled_from(CHANGING), after=_MOMENTS)
def test_every_so_many_minutes_goes_on_through_changes_of_the_clock(every: int, zone: str, after: datetime) -> str:
    ticks = list(islice(cron.ticks(f"*/{every} * * * *", zone, after), 30))
    assert all(later - earlier <= timedelta(minutes=every) for earlier, later in pairwise(ticks))
    return "steady"


@fuzz(
    first=_MOMENTS,
    late=st.integers(0, 10 * 86400),
    bound=st.integers(0, 86400),
    every=st.sampled_from(["0 * * * *", "7 3 * * *"]),
)
def test_after_an_absence_what_fires_is_the_latest_due_and_not_too_old(
    first: datetime, late: int, bound: int, every: str
) -> str:
    first = cron.next_tick(every, "UTC", first)
    now = first + timedelta(seconds=late)
    oldest = now - timedelta(seconds=bound)
    tick = cron.missed(every, "UTC", first, now, oldest)
    if tick is None:
        assert cron.next_tick(every, "UTC", max(first, oldest)) > now or first < oldest
        return "too old"
    assert max(first, oldest) <= tick <= now
    assert cron.next_tick(every, "UTC", tick) > now
    return "fires"
