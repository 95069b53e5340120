"""When a schedule fires: cron expressions in IANA time zones. Pure.

Daylight saving follows Debian's cron, as cronsim implements it: a time that the clock skips fires right after the
gap, a time that it passes twice fires once; expressions that run every so many minutes or hours simply go on.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from goqueue.errors import InvalidInput


def zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name.

    Raises:
        InvalidInput: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput("validation failed", {"time_zone": "not an IANA time zone"}) from None


def ticks(expression: str, time_zone: str, after: datetime) -> Iterator[datetime]:
    """The fire times strictly after `after`, in UTC, in order.

    Raises:
        InvalidInput: the expression or the zone is wrong, or it never fires (30 February).
    """
    local = zone(time_zone)
    try:
        simulation = CronSim(expression, after.astimezone(local))
    except OverflowError:
        raise InvalidInput("validation failed", {"cron": "never fires"}) from None
    except CronSimError as error:
        raise InvalidInput("validation failed", {"cron": str(error)}) from None
    while True:
        try:
            yield next(simulation).astimezone(UTC)
        except (StopIteration, OverflowError):  # the calendar ends with the year 9999
            raise InvalidInput("validation failed", {"cron": "never fires"}) from None


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
