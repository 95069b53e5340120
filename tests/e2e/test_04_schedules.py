"""A schedule that is there since the installation has made one job for each minute, and no other."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.system import EACH_MINUTE, System, until

pytestmark = pytest.mark.timeout(200)


def test_a_schedule_fires_exactly_once_for_each_tick(system: System) -> None:
    resource = system.get("gqs", EACH_MINUTE)
    created = datetime.fromisoformat(resource["metadata"]["creationTimestamp"])
    first = created.replace(second=0) + timedelta(minutes=1)
    enough = first + timedelta(minutes=1, seconds=5)
    query = f"SELECT source_key FROM jobs WHERE source_key LIKE '%{resource['metadata']['uid']}%'"  # noqa: S608

    def made() -> list[str]:
        return [key for (key,) in system.sql(query)]

    until("two ticks of the schedule", lambda: datetime.now(UTC) > enough, 130)
    keys = until("two jobs of the schedule", lambda: made() if len(made()) >= 2 else None, 10)
    last = datetime.fromisoformat(system.get("gqs", EACH_MINUTE)["status"]["lastScheduleTime"])
    ticks = (last - first) // timedelta(minutes=1) + 1
    assert len(keys) == len(set(keys)) == ticks, keys
    wrong = query.replace("source_key FROM", "status, attempts FROM") + " AND (status, attempts) != ('completed', 1)"
    until("the jobs of the schedule to be done", lambda: not system.sql(wrong), 20)
    system.kubectl("delete", "gqs", EACH_MINUTE, "--timeout=10s")
    assert len(made()) == ticks  # the jobs stay
