"""A schedule that is there since the installation has made one job for each minute, and no other."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.system import EACH_MINUTE, System, until

pytestmark = pytest.mark.timeout(200)

MINUTE = timedelta(minutes=1)


def test_a_schedule_fires_exactly_once_for_each_tick(system: System) -> None:
    """The operator was away for a while since (test_04_deletion.py)."""
    resource = system.get("gqs", EACH_MINUTE)
    first = datetime.fromisoformat(resource["metadata"]["creationTimestamp"]).replace(second=0) + MINUTE
    until("two ticks of the schedule", lambda: datetime.now(UTC) > first + MINUTE * 1.1, 130)
    mine = f"source_key LIKE '%{resource['metadata']['uid']}%'"

    def ticks() -> int:
        last = system.get("gqs", EACH_MINUTE)["status"]["lastScheduleTime"]
        return (datetime.fromisoformat(last) - first) // MINUTE + 1

    def all_there() -> int | None:
        """The number of jobs, where it was that of the ticks before and after it was asked for."""
        before, jobs, after = ticks(), system.number(f"SELECT count(*) FROM jobs WHERE {mine}"), ticks()  # noqa: S608 - numbers and names of the test itself
        return jobs if before == jobs == after else None

    made = until("one job for each tick of the schedule", all_there, 60)
    assert made >= 2
    system.note("ticks of a schedule, each with its one job", made)
    done = f"SELECT count(*) FROM jobs WHERE {mine} AND (status, attempts) = ('completed', 1)"  # noqa: S608 - numbers and names of the test itself
    until("the jobs of the schedule to be done", lambda: system.number(done) >= made, 30)
    system.kubectl("delete", "gqs", EACH_MINUTE, "--timeout=30s")
    assert system.number(done) >= made  # the jobs stay
