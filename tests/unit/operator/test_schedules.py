"""When a GoQueueSchedule is due by what its status says."""

from datetime import UTC, datetime
from typing import Any

import pytest

from goqueue_operator.scheduleplan import Schedule

NOW = datetime(2026, 1, 15, 7, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "last", "planned", "expected"),
    [
        ("0 9 * * *", "15T08:00", "16T08:00", "16T08:00"),
        ("0 9 * * *", "15T07:00", "16T07:00", "16T08:00"),  # by newer zone data later: it has run today
        ("0 9 * * *", "14T09:00", "15T09:00", "15T08:00"),  # by newer zone data earlier
        ("0 9 * * *", "15T07:00", "15T08:00", "15T08:00"),  # was `0 8 * * *` when it ran
        ("0 9 * * *", "15T07:00", None, "15T08:00"),  # was suspended
    ],
)
def test_after_a_restart_the_next_time_is_that_of_the_zone_data_in_force(
    cron: str, last: str, planned: str | None, expected: str
) -> None:
    status: dict[str, Any] = {"observedGeneration": 1, "lastScheduleTime": f"2026-01-{last}:00Z"}
    if planned is not None:
        status["nextScheduleTime"] = f"2026-01-{planned}:00Z"
    metadata = {"name": "daily", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    spec = {"cron": cron, "timeZone": "Europe/Berlin"}
    schedule = Schedule({"metadata": metadata, "spec": spec}, status, status)
    schedule.plan(NOW)
    assert schedule.next == datetime.fromisoformat(f"2026-01-{expected}:00+00:00")
