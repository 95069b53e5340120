"""Jobs that are opened again by hand, and schedules that are put again while a tick is due: nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from goqueue.registry import REGISTRY
from goqueue.settings import EngineSettings
from tests.integration.api.serving import app_on, new_key, serving
from tests.integration.engine import Engine, eventually

MAIL = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}
KEYED = {"queue": "email", "payload": MAIL, "unique_key": "invoice-7"}
TAKEN = {"error": "another open job has this job's unique key", "fields": {"unique_key": "taken"}}


@pytest.fixture(params=[None, "acme"])
async def client(engine: Engine, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API, of the default tenant and of another one."""
    headers = await new_key(engine, tenant=request.param)
    async with serving(app_on(engine)) as client:
        client.headers.update(headers)
        yield client


async def keyed(client: httpx.AsyncClient, status: int = 201) -> int:
    answer = await client.post("/jobs/create", json=KEYED)
    assert answer.status_code == status, answer.text
    return int(answer.json()["id"])


async def ended(client: httpx.AsyncClient, status: str) -> int:
    """A job with the key that has ended."""
    job = await keyed(client)
    answer = await client.put(f"/jobs/{job}/status", json={"status": status})
    assert answer.status_code == 204
    return job


async def reopen(client: httpx.AsyncClient, job: int, by: str) -> httpx.Response:
    if by == "status":
        return await client.put(f"/jobs/{job}/status", json={"status": "pending"})
    return await client.post(f"/jobs/{job}/retry")


WAYS = [("status", "failed"), ("status", "cancelled"), ("retry", "failed"), ("retry", "cancelled")]


@pytest.mark.parametrize(("by", "status"), WAYS)
async def test_a_job_that_is_open_again_has_its_unique_key_again(
    client: httpx.AsyncClient, by: str, status: str
) -> None:
    job = await ended(client, status)
    assert (await reopen(client, job, by)).is_success
    assert await keyed(client, 200) == job
    assert (await client.put(f"/jobs/{job}/status", json={"status": "processing"})).status_code == 204
    assert await keyed(client, 200) == job


@pytest.mark.parametrize(("by", "status"), WAYS)
async def test_a_job_whose_unique_key_another_open_job_has_is_not_opened_again_and_nothing_changes(
    client: httpx.AsyncClient, engine: Engine, by: str, status: str
) -> None:
    first = await ended(client, status)
    second = await keyed(client)
    rows = "SELECT to_jsonb(jobs) FROM jobs ORDER BY id"
    before, audit = await engine.rows(rows), await engine.rows("SELECT count(*) FROM audit_log")
    answer = await reopen(client, first, by)
    assert (answer.status_code, answer.json()) == (409, TAKEN)
    assert await engine.rows(rows) == before
    assert await engine.rows("SELECT count(*) FROM audit_log") == audit
    assert (await client.post(f"/jobs/{second}/cancel")).status_code == 200
    assert (await reopen(client, first, by)).is_success


@pytest.mark.parametrize("by", ["status", "retry"])
async def test_of_many_jobs_with_one_key_that_are_opened_again_at_once_one_is(
    client: httpx.AsyncClient, engine: Engine, by: str
) -> None:
    jobs = [await ended(client, "failed") for _ in range(8)]
    answers = await asyncio.gather(*(reopen(client, job, by) for job in jobs))
    assert sorted(answer.status_code for answer in answers) == [204 if by == "status" else 200] + [409] * 7
    assert await engine.rows("SELECT count(*) FROM jobs WHERE status = 'pending'") == [(1,)]


# --- schedules -------------------------------------------------------------------------------------------------------

TICK = datetime.now(UTC).replace(second=0, microsecond=0)
"""A tick of `PLAN` that is due; the next one is a day away."""

PLAN: dict[str, Any] = {
    "cron": f"{TICK.astimezone(ZoneInfo('Europe/Berlin')):%M %H} * * *",
    "time_zone": "Europe/Berlin",
    "job": {"queue": "email", "payload": MAIL},
}
OTHER_JOB = {**PLAN, "job": {"queue": "email", "payload": {**MAIL, "subject": "Changed"}}}


async def put(client: httpx.AsyncClient, plan: dict[str, Any]) -> dict[str, Any]:
    answer = await client.put("/schedules/yearly", json=plan)
    assert answer.is_success, answer.text
    return dict(answer.json())


async def make_due(engine: Engine) -> None:
    """Let the tick be the one that has not fired yet."""
    await engine.execute("UPDATE schedules SET next_tick = %s", TICK)


@pytest.mark.parametrize("plan", [PLAN, OTHER_JOB], ids=["the same", "another job"])
async def test_a_tick_that_is_due_fires_although_the_schedule_is_put_again(
    client: httpx.AsyncClient, engine: Engine, plan: dict[str, Any]
) -> None:
    await put(client, PLAN)
    await make_due(engine)
    await put(client, plan)
    assert await engine.rows("SELECT next_tick FROM schedules") == [(TICK,)]
    engine.registry, engine.settings = REGISTRY, EngineSettings(queues=["default", "email"])
    async with engine.scheduler():

        async def fired() -> bool:
            return bool(await engine.rows("SELECT FROM schedules WHERE last_job_id IS NOT NULL"))

        await eventually(fired)
    assert await engine.rows("SELECT payload FROM jobs") == [(plan["job"]["payload"],)]


@pytest.mark.parametrize(
    "change", [{"cron": "0 0 2 1 *"}, {"time_zone": "UTC"}, {"enabled": False}], ids=lambda change: next(iter(change))
)
async def test_a_schedule_that_is_to_fire_at_other_times_or_not_at_all_begins_anew(
    client: httpx.AsyncClient, engine: Engine, change: dict[str, Any]
) -> None:
    await put(client, PLAN)
    await make_due(engine)
    await put(client, {**PLAN, **change})
    assert await engine.rows("SELECT next_tick > now() FROM schedules") == [(True,)]


async def test_a_schedule_that_is_switched_on_again_does_not_fire_for_the_past(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    await put(client, {**PLAN, "enabled": False})
    await make_due(engine)
    await put(client, PLAN)
    assert await engine.rows("SELECT next_tick > now() FROM schedules") == [(True,)]
