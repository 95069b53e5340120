"""GoQueueSchedules on a real API server: one job for each time, and the concurrency policies."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from goqueue.errors import StoreUnavailable
from goqueue_operator.access import from_kubeconfig
from goqueue_operator.conditions import timestamp
from goqueue_operator.kube import Kube
from goqueue_operator.scheduleplan import Schedule
from goqueue_operator.schedules import Schedules
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
            return "timeZone" in str(status.get("conditions"))

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


async def test_a_suspended_schedule_is_ready_so_that_nobody_waits_for_its_end(world: World) -> None:
    schedules = one(world, await schedule(world, suspend=True))
    await look(schedules, datetime.now(UTC))
    await world.kubectl("wait", "--for=condition=Ready", "gqs/each", "--timeout=30s")
    assert ready(await world.get("gqs", "each")) == ("True", "Suspended")
    await schedules._kube.close()


def ready(resource: dict[str, Any]) -> tuple[str, str]:
    [condition] = resource["status"]["conditions"]
    return condition["status"], condition["reason"]


async def with_a_late_payload(world: World, **spec: Any) -> tuple[Schedules, datetime]:
    """A daily schedule whose ConfigMap is not there yet, one second after its time; and that time."""
    reference = {"configMapKeyRef": {"name": "late", "key": "payload"}}
    template = {"spec": {"queue": "default", "type": "echo", "payloadFrom": reference}}
    schedules = one(world, await schedule(world, cron="0 3 * * *", jobTemplate=template, **spec))
    due = next(iter(schedules.schedules.values())).next
    assert due is not None
    await look(schedules, due + timedelta(seconds=1))
    return schedules, due


async def test_a_time_whose_payload_is_late_makes_its_job_once_the_payload_is_there(world: World) -> None:
    schedules, due = await with_a_late_payload(world)
    status = (await world.get("gqs", "each"))["status"]
    assert ready(await world.get("gqs", "each")) == ("False", "PayloadNotFound")
    assert "lastScheduleTime" not in status
    assert status["nextScheduleTime"] == timestamp(due)
    assert "CannotFire" in await world.kubectl("get", "events")
    await world.kubectl("create", "configmap", "late", "--from-literal=payload={}")
    for seconds in (2, 3, 60):
        await look(schedules, due + timedelta(seconds=seconds))
    found = await world.get("gqs", "each")
    assert found["status"]["lastScheduleTime"] == timestamp(due)
    assert ready(found) == ("True", "Scheduled")
    assert await statuses(world) == ["pending"]
    await schedules._kube.close()


async def test_a_time_that_is_given_up_for_the_next_one_counts_as_skipped(world: World) -> None:
    template = {
        "spec": {"queue": "default", "type": "echo", "payloadFrom": {"configMapKeyRef": {"name": "late", "key": "p"}}}
    }
    schedules = one(world, await schedule(world, jobTemplate=template))
    first = next(iter(schedules.schedules.values())).next
    assert first is not None
    for seconds in (1, 61):
        await look(schedules, first + timedelta(seconds=seconds))
    status = (await world.get("gqs", "each"))["status"]
    assert status["lastSkippedTime"] == timestamp(first)
    assert status["nextScheduleTime"] == timestamp(first + timedelta(seconds=60))
    [event] = (await world.get("events", "--field-selector=reason=MissSchedule"))["items"]
    assert "no ConfigMap late" in event["message"]
    await world.kubectl("create", "configmap", "late", "--from-literal=p={}")
    known = await look(schedules, first + timedelta(seconds=100))
    assert known.status["lastScheduleTime"] == timestamp(first + timedelta(seconds=60))
    assert await statuses(world) == ["pending"]
    await schedules._kube.close()


async def test_a_template_of_which_no_job_can_be_made_is_told_before_a_time_is_due(world: World) -> None:
    template = {"spec": {"queue": "default", "type": "nobody-knows", "payload": {}}}
    schedules = one(world, await schedule(world, cron="0 0 1 1 *", jobTemplate=template))
    await look(schedules, datetime.now(UTC))
    assert ready(await world.get("gqs", "each")) == ("False", "InvalidJobType")
    await schedules._kube.close()


async def test_a_time_whose_payload_never_comes_is_skipped_at_its_deadline_and_that_is_said(world: World) -> None:
    schedules, due = await with_a_late_payload(world, startingDeadlineSeconds=60)
    await look(schedules, due + timedelta(seconds=59))
    await world.kubectl("create", "configmap", "late", "--from-literal=payload={}")
    known = await look(schedules, due + timedelta(seconds=120))
    assert known.next == due + timedelta(days=1)
    status = (await world.get("gqs", "each"))["status"]
    assert "lastScheduleTime" not in status
    assert status["lastSkippedTime"] == timestamp(due)
    [event] = (await world.get("events", "--field-selector=reason=MissSchedule"))["items"]
    assert "no ConfigMap late" in event["message"]
    assert await statuses(world) == []
    await schedules._kube.close()


async def test_a_time_at_which_postgresql_is_unavailable_stays_due_and_that_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules = one(world, await schedule(world))
    due = next(iter(schedules.schedules.values())).next
    assert due is not None

    async def unavailable(*_: Any) -> Any:
        raise StoreUnavailable("database is unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(world.engine.service, "enqueue", unavailable)
        await look(schedules, due)
    assert ready(await world.get("gqs", "each")) == ("False", "StoreUnavailable")
    known = await look(schedules, due + timedelta(seconds=2))
    assert known.status["lastScheduleTime"] == timestamp(due)
    assert await statuses(world) == ["pending"]
    await schedules._kube.close()


async def test_a_time_that_forbid_skips_is_told_and_is_no_time_at_which_a_job_was_made(world: World) -> None:
    schedules = one(world, await schedule(world, concurrencyPolicy="Forbid"))
    soon = datetime.now(UTC) + timedelta(seconds=61)
    first = (await look(schedules, soon)).status["lastScheduleTime"]
    for minutes in (1, 2):
        await look(schedules, soon + timedelta(minutes=minutes))
    status = (await world.get("gqs", "each"))["status"]
    assert status["lastScheduleTime"] == first
    assert status["lastSkippedTime"] > first
    events = (await world.get("events", "--field-selector=reason=JobAlreadyActive"))["items"]
    assert len(events) == 1
    again = one(world, Schedule(await world.get("gqs", "each"), {}, {}))
    await look(again, soon + timedelta(minutes=2))  # another leader deals with no time a second time
    assert await statuses(world) == ["pending"]
    for each in (schedules, again):
        await each._kube.close()


async def test_the_status_says_when_a_job_of_it_completed(world: World) -> None:
    schedules = one(world, await schedule(world))
    soon = datetime.now(UTC) + timedelta(seconds=61)
    known = await look(schedules, soon)
    job_id = known.status["lastJobID"]
    await schedules.follow()
    assert known.status["active"] == [job_id]
    async with world.engine.worker():
        job = await world.engine.until(job_id, "completed")
    await schedules.follow()
    await look(schedules, soon)
    status = (await world.get("gqs", "each"))["status"]
    assert job.finished_at is not None
    assert status["lastSuccessfulTime"] == timestamp(job.finished_at)
    assert status["active"] == []
    await schedules._kube.close()


async def test_each_token_of_run_now_makes_one_job_at_once_whoever_leads(world: World) -> None:
    await schedule(world, cron="0 3 1 1 *", suspend=True)

    async def made(number: int) -> bool:
        return len(await statuses(world)) == number

    for number, token in enumerate(("first", "second", "second"), 1):
        async with world.operator():
            await world.kubectl("annotate", "gqs", "each", f"goqueue.io/run-now={token}", "--overwrite")

            async def noted(token: str = token) -> bool:
                return ((await world.get("gqs", "each")).get("status") or {}).get("runNow") == token

            await eventually(noted)
        assert await made(min(number, 2))
    assert "lastScheduleTime" not in (await world.get("gqs", "each"))["status"]


async def test_a_schedule_that_a_finalizer_of_others_holds_fires_no_more(world: World) -> None:
    schedules = one(world, await schedule(world))
    async with world.held("gqs", "each"):
        await look(schedules, datetime.now(UTC) + timedelta(seconds=61))
    assert not schedules.schedules
    assert await statuses(world) == []
    await schedules._kube.close()


async def test_a_status_is_never_written_to_another_schedule_of_the_same_name(world: World) -> None:
    schedules = one(world, await schedule(world))
    await world.kubectl("delete", "gqs", "each")
    await schedule(world, suspend=True)
    known = next(iter(schedules.schedules.values()))
    with structlog.testing.capture_logs() as said:
        await schedules._look_or_tell(known, datetime.now(UTC))
    assert not schedules.schedules
    assert "status" not in await world.get("gqs", "each")
    assert "status refused" not in [line["event"] for line in said]
    await schedules._kube.close()
