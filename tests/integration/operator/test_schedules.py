"""GoQueueSchedules on a real API server: one job for each time, and the concurrency policies."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from goqueue_operator.access import from_kubeconfig
from goqueue_operator.kube import Kube
from goqueue_operator.schedules import Schedule, Schedules
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World

pytestmark = pytest.mark.asyncio


async def schedule(world: World, **spec: Any) -> Schedule:
    template = {"spec": {"queue": "default", "type": "echo", "payload": {}}}
    await world.make("GoQueueSchedule", "each", {"cron": "* * * * *", "jobTemplate": template, **spec})
    return Schedule(await world.get("gqs", "each"), {}, {})


def one(world: World, subject: Schedule) -> Schedules:
    """The schedules of an operator that never looks by itself: the test is its clock."""
    kube = Kube(from_kubeconfig(world.kubernetes.kubeconfig))
    schedules = Schedules(kube, world.engine.service, world.engine.registry, world.engine.settings.queues)
    schedules.on_event("ADDED", subject.resource)
    return schedules


async def look(schedules: Schedules, at: datetime) -> Schedule:
    known = next(iter(schedules.schedules.values()))
    await schedules._look(known, at)
    return known


async def statuses(world: World) -> list[str]:
    return [row[0] for row in await world.engine.rows("SELECT status FROM jobs ORDER BY id")]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("Allow", ["pending", "pending"]),
        ("Forbid", ["pending"]),
        ("Replace", ["cancelled", "pending"]),
    ],
)
async def test_an_earlier_job_that_has_not_ended(world: World, rule: str, expected: list[str]) -> None:
    schedules = one(world, await schedule(world, concurrencyPolicy=rule))
    soon = datetime.now(UTC) + timedelta(seconds=61)
    await look(schedules, soon)
    assert await statuses(world) == ["pending"]
    await look(schedules, soon + timedelta(seconds=60))
    assert await statuses(world) == expected
    await schedules._kube.close()


async def test_a_time_whose_note_was_lost_makes_no_second_job(world: World) -> None:
    subject = await schedule(world)
    soon = datetime.now(UTC) + timedelta(seconds=61)
    for _ in range(2):  # the second one starts without what the first has noted
        schedules = one(world, subject)
        await look(schedules, soon)
        await schedules._kube.close()
    assert await statuses(world) == ["pending"]


async def test_times_missed_are_made_up_for_by_one_job_and_old_ones_by_none(world: World) -> None:
    subject = await schedule(world, startingDeadlineSeconds=120)
    schedules = one(world, subject)
    await look(schedules, datetime.now(UTC) + timedelta(hours=1))
    assert await statuses(world) == ["pending"]
    await schedules._kube.close()


async def test_a_wrong_zone_is_said_in_the_status_and_an_event(world: World) -> None:
    async with world.operator():
        await schedule(world, timeZone="Mars/Olympus")

        async def said() -> bool:
            status = (await world.get("gqs", "each")).get("status") or {}
            return "time_zone" in str(status.get("conditions"))

        await eventually(said)

        async def told() -> bool:  # after the status
            return "CannotFire" in await world.kubectl("get", "events")

        await eventually(told)


async def test_a_suspended_schedule_makes_nothing_and_has_no_next_time(world: World) -> None:
    subject = await schedule(world, suspend=True)
    schedules = one(world, subject)
    known = await look(schedules, datetime.now(UTC) + timedelta(hours=1))
    assert await statuses(world) == []
    assert "nextScheduleTime" not in known.status
    await schedules._kube.close()
