"""Schedules over a new release of the zone data: processes on folders of zone files, as an upgrade leaves them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from goqueue import zonedata
from goqueue.store import schedules
from goqueue_scheduler import cronduty
from tests import zonefiles
from tests.integration.console import Console
from tests.integration.engine import Engine, eventually
from tests.servers.process import GOQUEUE, Process

TOWN = "Test/Town"
JOB = {"queue": "default", "type": "greet", "payload": {"name": "Ada"}}
OLD_OFFSET = timedelta(hours=2)


async def stored(engine: Engine, tick: datetime, last: datetime | None) -> None:
    """A daily schedule whose next tick was computed while the zone had its old offset."""
    local = tick + OLD_OFFSET
    async with engine.database.connection() as connection:
        await schedules.put(connection, "daily", f"{local.minute} {local.hour} * * *", TOWN, JOB, True, tick)
    await engine.execute("UPDATE schedules SET updated_at = now() - interval '3 days', last_tick = %s", last)


def scheduler(goqueue: Console, offset: timedelta) -> Process:
    """`goqueue scheduler` on a release in which the zone has this offset."""
    folder = zonefiles.write(goqueue.folder / "zones", TOWN, offset, release="2031c")
    environment = goqueue.full(GOQUEUE_SCHEDULER_HEALTH_PORT="0", PYTHONTZPATH=str(folder))
    log = goqueue.folder / "scheduler.log"
    return Process([GOQUEUE, "scheduler"], log=log, environment=environment, cwd=goqueue.folder)


async def next_tick(engine: Engine) -> Any:
    return (await engine.rows("SELECT next_tick FROM schedules"))[0][0]


def log_of(goqueue: Console) -> str:
    return (goqueue.folder / "scheduler.log").read_text()


@pytest.mark.parametrize("fired_before", [True, False])
async def test_a_tick_that_the_zone_data_in_force_do_not_know_does_not_fire(
    goqueue: Console, engine: Engine, fired_before: bool
) -> None:
    due = datetime.now(UTC).replace(second=0, microsecond=0)
    right = due + timedelta(hours=1)
    await stored(engine, due, due - timedelta(days=1) if fired_before else None)
    with scheduler(goqueue, OLD_OFFSET - timedelta(hours=1)):

        async def moved() -> bool:
            return bool(await next_tick(engine) == right)

        await eventually(moved, seconds=30)
    assert await engine.rows("SELECT FROM jobs") == []
    assert "next tick computed anew" in log_of(goqueue)


async def test_a_tick_that_is_due_by_the_zone_data_in_force_fires_though_a_later_one_is_stored(
    goqueue: Console, engine: Engine
) -> None:
    right = datetime.now(UTC).replace(second=0, microsecond=0)
    later = right + timedelta(hours=1)
    await stored(engine, later, later - timedelta(days=1))
    with scheduler(goqueue, OLD_OFFSET + timedelta(hours=1)):

        async def advanced() -> bool:
            return bool(await next_tick(engine) == right + timedelta(days=1))

        await eventually(advanced, seconds=30)
    (fired,) = await engine.rows("SELECT source_key, last_tick FROM jobs, schedules WHERE jobs.id = last_job_id")
    assert fired[0].endswith(right.isoformat())
    assert fired[1] == right


async def test_a_new_leader_computes_the_ticks_of_all_schedules_anew(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cronduty, "CHUNK", 2)
    monkeypatch.setenv(zonedata.PATH_VARIABLE, str(zonefiles.write(tmp_path, TOWN, OLD_OFFSET - timedelta(hours=1))))
    zonedata.zone.cache_clear()
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=1)
    async with engine.database.connection() as connection:
        for name, zone in (("one", TOWN), ("two", TOWN), ("gone", "Mars/Olympus"), ("utc", "UTC"), ("three", TOWN)):
            await schedules.put(connection, name, "0 14 * * *", zone, JOB, True, noon)
    async with engine.scheduler():

        async def all_moved() -> bool:
            moved = await engine.rows("SELECT name FROM schedules WHERE next_tick <> %s ORDER BY name", noon)
            return moved == [("one",), ("three",), ("two",)]

        await eventually(all_moved)
    assert await engine.rows("SELECT DISTINCT next_tick FROM schedules WHERE time_zone = %s", TOWN) in (
        [(noon + timedelta(hours=1),)],
        [(noon - timedelta(hours=23),)],  # before 13:00 UTC today's is the next one
    )
    zonedata.zone.cache_clear()


async def test_a_scheduler_says_at_its_start_by_which_zone_data_it_computes(goqueue: Console, engine: Engine) -> None:
    with scheduler(goqueue, OLD_OFFSET):

        async def said() -> bool:
            return "starting" in log_of(goqueue)

        await eventually(said, seconds=30)
    (line,) = [line for line in log_of(goqueue).splitlines() if "starting" in line]
    assert f"2031c ({goqueue.folder / 'zones'})" in line


async def test_the_version_names_the_release_of_the_zone_data(goqueue: Console) -> None:
    assert (await goqueue("--version")).out.splitlines()[1] == f"zone data {zonedata.release()}"


async def test_a_schedule_in_a_zone_that_is_gone_is_listed_with_the_reason(goqueue: Console, engine: Engine) -> None:
    await stored(engine, datetime.now(UTC) + timedelta(hours=1), None)
    (shown,) = (await goqueue("schedules", "list", "-o", "json")).json
    assert (shown["next_ticks"], shown["cannot_fire"]) == ([], "time_zone: not an IANA time zone")
    assert "not an IANA time zone" in (await goqueue("schedules", "list")).out
