"""When a schedule fires: cron expressions in IANA time zones. Pure, but for the zone data it reads.

The dialect is that of docs/schedules.md. Daylight saving follows Debian's cron, as cronsim implements it: a time that
the clock skips fires right after the gap, a time that it passes twice fires once; expressions that run every so many
minutes or hours simply go on.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from goqueue import zonedata
from goqueue.errors import InvalidInput

NAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Names that stand for an expression, as in Vixie's cron."""

FIELDS: Final = ("minute", "hour", "day of month", "month", "day of week")

_DAYS: Final = (FIELDS.index("day of month"), FIELDS.index("day of week"))


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on expressions: `pattern` must be found in them, or must not.

    CEL evaluates the same patterns by RE2 in the definition of GoQueueSchedule. They use no `\\s`: RE2 and `re` differ
    in what it matches.
    """

    pattern: str
    wanted: bool
    message: str

    def allows(self, expression: str) -> bool:
        """Whether the expression meets the condition."""
        return (re.search(self.pattern, expression) is not None) == self.wanted


_BLANK: Final = r"[\t\n\r ]"
_TEXT: Final = "[!-~]"

_TOO_LONG: Final = (
    "6[1-9]|[7-9][0-9]",
    "2[5-9]|[3-9][0-9]",
    "3[2-9]|[4-9][0-9]",
    "1[3-9]|[2-9][0-9]",
    "[89]|[1-9][0-9]",
)
"""For each field the steps of at most two digits that are longer than the number of its values."""

_LONG_STEPS: Final = "|".join(
    rf"({_TEXT}+{_BLANK}+){{{field}}}{_TEXT}*/0*({steps}|[1-9][0-9][0-9]+)([!-/:-~]{_TEXT}*)?({_BLANK}|$)"
    for field, steps in enumerate(_TOO_LONG)
)

RULES: Final = (
    Rule(r"[^\t\n\r -~]", False, "cron may contain printable ASCII characters only"),
    Rule(
        rf"^{_BLANK}*(CRON_TZ|TZ)=",
        False,
        "CRON_TZ= and TZ= cannot be part of cron: set time_zone (timeZone in a GoQueueSchedule)",
    ),
    Rule(
        rf"^{_BLANK}*([!-?A-~]|({'|'.join(NAMES)}){_BLANK}*$|$)",
        True,
        f"cron knows the names {', '.join(NAMES)}; for @every 5m write */5 * * * *",
    ),
    Rule(
        rf"^{_BLANK}*(@|CRON_TZ=|TZ=|({_TEXT}+{_BLANK}+){{4}}{_TEXT}+{_BLANK}*$)",
        True,
        f"cron must have five fields: {', '.join(FIELDS)}",
    ),
    Rule(
        rf"^{_BLANK}*({_LONG_STEPS})",
        False,
        "a step in cron is at most 60 minutes, 24 hours, 31 days, 12 months or 7 days of the week",
    ),
)
"""What every door checks before a schedule is stored: REST, console, and the definition of GoQueueSchedule."""


def zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name, by the data of `goqueue.zonedata`.

    Raises:
        InvalidInput: there is none.
    """
    try:
        return zonedata.zone(name)
    except KeyError:
        raise InvalidInput("validation failed", {"time_zone": "not an IANA time zone"}) from None


def check(expression: str) -> None:
    """Check an expression before it is stored. `ticks` goes on to accept what earlier releases stored.

    Raises:
        InvalidInput: it is not in our dialect.
    """
    for rule in RULES:
        if not rule.allows(expression):
            raise InvalidInput("validation failed", {"cron": rule.message})


def ticks(expression: str, time_zone: str, after: datetime) -> Iterator[datetime]:
    """The fire times strictly after `after`, in UTC, in order.

    Raises:
        InvalidInput: the expression or the zone is wrong, or it never fires (30 February).
    """
    local = zone(time_zone)
    translated = _translated(expression)
    try:
        simulation = CronSim(translated, after.astimezone(local))
    except OverflowError:
        raise InvalidInput("validation failed", {"cron": "never fires"}) from None
    except CronSimError as error:
        check(expression)
        raise InvalidInput("validation failed", {"cron": _wrong_field(translated, str(error))}) from None
    while True:
        try:
            yield next(simulation).astimezone(UTC)
        except (StopIteration, OverflowError):  # the calendar ends with the year 9999
            raise InvalidInput("validation failed", {"cron": "never fires"}) from None


def _translated(expression: str) -> str:
    """The expression as cronsim understands it."""
    stripped = expression.strip("\t\n\r ")
    fields = NAMES.get(stripped, stripped).split()
    if len(fields) == len(FIELDS):
        fields = ["*" if field == "?" and index in _DAYS else field for index, field in enumerate(fields)]
    return " ".join(fields)


def _wrong_field(translated: str, error: str) -> str:
    """cronsim's `Bad day-of-month`, with what stands in that field; it says the same of 30 February."""
    name = error.removeprefix("Bad ").replace("-", " ")
    fields = translated.split()
    if name not in FIELDS or len(fields) != len(FIELDS):
        return error
    if name == "day of month":
        with suppress(CronSimError):
            minute, hour, day, _, weekday = fields
            CronSim(f"{minute} {hour} {day} * {weekday}", datetime.now(UTC))
            return "never fires"
    return f"{name} is not valid: {fields[FIELDS.index(name)]}"


def next_tick(expression: str, time_zone: str, after: datetime) -> datetime:
    """The first fire time strictly after `after`, in UTC; raises like `ticks`."""
    return next(ticks(expression, time_zone, after))


def missed(expression: str, time_zone: str, first: datetime, now: datetime, oldest: datetime) -> datetime | None:
    """Which tick to fire after an absence: the latest one due, or None where even that is before `oldest`.

    `first` is the earliest tick that has not fired. One job stands for all that were missed.
    """
    latest = first.astimezone(UTC)
    for tick in ticks(expression, time_zone, max(first, oldest)):
        if tick > now:
            break
        latest = tick
    return latest if latest >= oldest else None


def in_force(
    expression: str,
    time_zone: str,
    stored: datetime,
    *,
    last: datetime | None,
    changed: datetime,
    oldest: datetime,
) -> datetime:
    """The tick to fire next by the present zone data; `stored` was computed by those of its time.

    `last` is the tick that fired last, `changed` the time at which the schedule was put. Ticks before `oldest` do not
    fire, and are left to `missed`.
    """
    if stored < oldest or time_zone == "UTC":  # no zone data move UTC
        return stored
    after = changed if last is None or last <= changed else counterpart(expression, time_zone, last)
    after = max(after, oldest - timedelta(microseconds=1))
    if stored <= after:  # put while it was due, or by a clock that is behind
        after = stored - timedelta(microseconds=1)
    return next_tick(expression, time_zone, after)


def is_tick(expression: str, time_zone: str, moment: datetime) -> bool:
    """Whether it fires at that moment, by the present zone data; raises like `ticks`."""
    try:
        before = moment - timedelta(microseconds=1)
    except OverflowError:  # the first moment of the calendar
        return False
    return next_tick(expression, time_zone, before) == moment


def counterpart(expression: str, time_zone: str, last: datetime) -> datetime:
    """The tick for which a job was made at `last`.

    Where the zone data have since moved the tick to a later time, that is the one: a daily job that has run at the old
    time does not run again on the same day. A move counts as such where it is shorter than half the interval.
    """
    if is_tick(expression, time_zone, last):
        return last
    following, second = islice(ticks(expression, time_zone, last), 2)
    return following if 2 * (following - last) < second - following else last
