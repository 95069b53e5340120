"""A row is a resource's own if its source key says so: ids are given again, databases are shared, keys meet."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from goqueue_operator import rows
from tests.integration.engine import Engine, eventually
from tests.integration.operator.apiserver import ApiServer
from tests.integration.operator.conftest import World, another_namespace, compared
from tests.integration.operator.test_schedules import look, one, schedule

pytestmark = pytest.mark.asyncio

FAR = "2099-01-01T00:00:00Z"
STRANGERS = {"secret": "of somebody else"}


async def restore(world: World, job_id: int) -> None:
    """Make the database what it was before that job: its row is gone, and the next one gets its id."""
    await world.engine.execute("DELETE FROM jobs WHERE id >= %s", job_id)
    await world.engine.rows("SELECT setval(pg_get_serial_sequence('jobs', 'id'), %s, false)", job_id)


async def stranger(world: World, job_id: int, **more: Any) -> int:
    """A job by REST that gets this id."""
    made = await world.engine.enqueue("echo", payload=STRANGERS, **more)
    assert made == job_id
    return made


async def due(world: World) -> None:
    """Let the jobs that wait for a later time start now."""
    await world.engine.execute("UPDATE jobs SET available_at = now(), dispatch_at = now() WHERE status = 'pending'")


async def status(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await world.get("gqj", name))["status"]
    return found


async def source_keys(world: World) -> list[str | None]:
    return [row[0] for row in await world.engine.rows("SELECT source_key FROM jobs ORDER BY id")]


async def installation_of(world: World) -> str:
    found = await world.get("namespace", world.namespace)
    return str(found["metadata"]["uid"])


@pytest.fixture
async def other(kubernetes: ApiServer, engine: Engine) -> Any:
    """A second namespace, on the same stores."""
    async with another_namespace(kubernetes, engine) as world:
        yield world


# --- ids that are given again ----------------------------------------------------------------------------------------


async def test_an_open_job_whose_id_was_given_to_another_is_accepted_anew(world: World) -> None:
    async with world.operator():
        await world.job("charge", payload={"mine": True}, availableAt=FAR)
        job_id = (await world.state("charge", "pending"))["jobID"]
    await restore(world, job_id)
    await stranger(world, job_id)
    async with world.operator():

        async def anew() -> bool:
            return bool((await status(world, "charge"))["jobID"] != job_id)

        await eventually(anew)
        async with world.engine.worker():
            await world.engine.until(job_id, "completed")
            now = await world.state("charge", "pending")
            assert now.get("result") is None
            assert now["conditions"][0]["reason"] == "Accepted"
            await world.engine.execute(
                "UPDATE jobs SET available_at = now(), dispatch_at = now() WHERE status = 'pending'"
            )
            async with world.engine.scheduler():
                assert (await world.state("charge", "completed"))["result"] == {"mine": True}


async def test_an_id_that_is_given_again_while_the_operator_runs_is_noticed(world: World) -> None:
    async with world.operator():
        await world.job("charge", payload={"mine": True}, availableAt=FAR)
        job_id = (await world.state("charge", "pending"))["jobID"]
        await restore(world, job_id)
        await stranger(world, job_id)

        async def anew() -> bool:
            return bool((await status(world, "charge"))["jobID"] != job_id)

        await eventually(anew)


async def test_an_ended_job_keeps_its_status_when_its_id_is_given_again(world: World) -> None:
    async with world.operator() as operator, world.engine.worker():
        await world.job("done", payload={"mine": 1})
        job_id = (await world.state("done", "completed"))["jobID"]
        before = await status(world, "done")
        await restore(world, job_id)
        await stranger(world, job_id)
        await world.engine.until(job_id, "completed")
        await compared(operator)
        assert await status(world, "done") == before


async def test_deleting_a_resource_does_not_cancel_the_job_that_got_its_id(world: World) -> None:
    async with world.operator():
        await world.job("charge", availableAt=FAR)
        job_id = (await world.state("charge", "pending"))["jobID"]
    await restore(world, job_id)
    await stranger(world, job_id)
    await world.kubectl("patch", "gqj", "charge", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    async with world.operator() as operator:
        await compared(operator)
        await world.kubectl("delete", "gqj", "charge")
        await compared(operator)
        job = await world.engine.service.get(job_id)
        assert (job.status, job.available_at < datetime.now(UTC)) == ("pending", True), "cancelled or held"


async def test_all_open_jobs_are_accepted_anew_on_an_empty_database(world: World) -> None:
    async with world.operator():
        for number in range(5):
            await world.job(f"job-{number}", payload={"number": number}, availableAt=FAR)
            await world.state(f"job-{number}", "pending")
    await restore(world, 1)
    await world.engine.execute("DELETE FROM jobs")
    async with world.operator():

        async def all_there() -> bool:
            return len(await source_keys(world)) == 5

        await eventually(all_there)
        found = await world.engine.rows("SELECT id, payload FROM jobs")
        by_id = {id: payload["number"] for id, payload in found}
        assert sorted(by_id.values()) == [0, 1, 2, 3, 4]
        for number in range(5):

            async def own(number: int = number) -> bool:
                return by_id.get((await status(world, f"job-{number}"))["jobID"]) == number

            await eventually(own)


async def test_an_open_job_whose_row_is_gone_is_accepted_anew(world: World) -> None:
    async with world.operator():
        await world.job("one", availableAt=FAR)
        job_id = (await world.state("one", "pending"))["jobID"]
        await world.engine.execute("DELETE FROM jobs WHERE id = %s", job_id)

        async def anew() -> bool:
            return bool((await status(world, "one"))["jobID"] != job_id)

        await eventually(anew)
    assert len(await source_keys(world)) == 1


async def test_a_job_that_may_have_ended_and_been_removed_by_retention_does_not_run_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.operator():
        await world.job("one")
        job_id = (await world.state("one", "pending"))["jobID"]
    await world.engine.execute("DELETE FROM jobs WHERE id = %s", job_id)
    # As after a time without an operator that was longer than ended jobs are kept: nobody saw whether it ran.
    monkeypatch.setenv("GOQUEUE_SCHEDULER_KEEP_COMPLETED", "0.001")
    async with world.operator():
        ended = await world.state("one", "failed")
    assert {item["type"]: item["reason"] for item in ended["conditions"]}["Failed"] == "RowGone"
    assert await source_keys(world) == []


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["Forbid", "Replace"])
async def test_a_schedule_counts_and_cancels_no_job_that_it_did_not_make(world: World, rule: str) -> None:
    schedules = one(world, await schedule(world, concurrencyPolicy=rule))
    soon = datetime.now(UTC) + timedelta(seconds=61)
    known = await look(schedules, soon)
    job_id = known.status["lastJobID"]
    await restore(world, job_id)
    await stranger(world, job_id, available_at=datetime(2099, 1, 1, tzinfo=UTC))
    known = await look(schedules, soon + timedelta(seconds=60))
    assert (await world.engine.service.get(job_id)).status == "pending", "another's job was cancelled"
    assert known.status["active"] == [known.status["lastJobID"]] != [job_id], "another's job counts as active"
    await schedules._kube.close()


async def test_a_time_that_an_earlier_version_fired_is_not_fired_again(world: World) -> None:
    subject = await schedule(world)
    schedules = one(world, subject)
    schedules._installation = "i-1"
    tick = next(iter(schedules.schedules.values())).next
    assert tick is not None
    before = rows.tick_key(subject.resource["metadata"]["uid"], world.namespace, tick)
    made = await world.engine.enqueue("echo", source_key=before)
    known = await look(schedules, tick)
    assert known.status["lastJobID"] == made
    assert await source_keys(world) == [before]
    await schedules._kube.close()


# --- installations on one database -----------------------------------------------------------------------------------


async def test_a_source_key_names_resource_namespace_and_installation(world: World) -> None:
    async with world.operator():
        await world.job("one", availableAt=FAR)
        await world.state("one", "pending")
    uid = (await world.get("gqj", "one"))["metadata"]["uid"]
    assert await source_keys(world) == [f"kubernetes:{uid}@{world.namespace}/{await installation_of(world)}"]


@pytest.mark.parametrize("everywhere", [False, True])
async def test_open_jobs_of_another_cluster_on_the_same_database_are_left_alone(world: World, everywhere: bool) -> None:
    foreign = [f"kubernetes:some-uid@{world.namespace}/another-installation", "kubernetes:some-uid@elsewhere"]
    for key in foreign:
        await world.engine.enqueue("echo", source_key=key)
    await world.engine.execute("UPDATE jobs SET source = 'kubernetes'")
    async with world.operator(cluster_wide=everywhere) as operator:
        await compared(operator)
    assert [row[0] for row in await world.engine.rows("SELECT status FROM jobs")] == ["pending", "pending"]


async def test_orphans_of_this_installation_are_cancelled_and_those_of_before_in_its_one_namespace(
    world: World, other: World
) -> None:
    ours = await installation_of(world)
    keys = [
        rows.key_of("gone-1", world.namespace, ours),
        rows.key_of("gone-2", world.namespace),
        rows.key_of("gone-3", other.namespace, ours),
        rows.key_of("gone-4", other.namespace),
    ]
    for key in keys:
        await world.engine.enqueue("echo", source_key=key)
    await world.engine.execute("UPDATE jobs SET source = 'kubernetes'")

    async def cancelled() -> list[str]:
        found = await world.engine.rows("SELECT source_key FROM jobs WHERE status = 'cancelled' ORDER BY id")
        return [row[0] for row in found]

    async with world.operator() as operator:
        await compared(operator)

        async def own() -> bool:
            return await cancelled() == keys[:2]

        await eventually(own)
    async with world.operator(cluster_wide=True) as operator:
        await compared(operator)

        async def all_ours() -> bool:
            return await cancelled() == keys[:3]

        await eventually(all_ours)


@pytest.mark.parametrize("former", ["", "installation-of-before"])
async def test_an_open_job_of_before_is_adopted_and_cancelled_with_its_resource(world: World, former: str) -> None:
    await world.job("one", uniqueKey="k", availableAt=FAR)
    found = await world.get("gqj", "one")
    uid = found["metadata"]["uid"]
    job_id = await world.engine.enqueue("echo", unique_key="k", source_key=rows.key_of(uid, world.namespace, former))
    await world.engine.execute("UPDATE jobs SET source = 'kubernetes', active_key = unique_key")
    noted = json.dumps({"status": {"state": "pending", "jobID": job_id}})
    await world.kubectl("patch", "gqj", "one", "--subresource=status", "--type=merge", "-p", noted)
    ours = await installation_of(world)
    async with world.operator():

        async def adopted() -> bool:
            found = await world.engine.rows("SELECT source_key, active_key FROM jobs")
            return found == [(rows.key_of(uid, world.namespace, ours), f"\x1f{world.namespace}/{ours}\x1fk")]

        await eventually(adopted)
        await world.job("two", uniqueKey="k")
        assert (await world.state("two", "pending"))["jobID"] == job_id
    await world.kubectl("delete", "gqj", "one")
    async with world.operator():
        await world.engine.until(job_id, "cancelled")


# --- unique keys -----------------------------------------------------------------------------------------------------


async def test_a_unique_key_of_another_namespace_is_another_key(world: World, other: World) -> None:
    async with world.operator(cluster_wide=True), world.engine.worker(), world.engine.scheduler():
        await world.job("salary", payload={"iban": "DE02 real"}, uniqueKey="payroll", availableAt=FAR)
        first = await world.state("salary", "pending")
        await other.job("peek", payload={"x": 1}, uniqueKey="payroll")
        second = await other.state("peek", "completed")
        assert second["result"] == {"x": 1}
        assert second["jobID"] != first["jobID"]
        assert (await world.state("salary", "pending"))["jobID"] == first["jobID"]
        assert second["conditions"][0]["reason"] == "Accepted"


async def test_a_unique_key_of_the_rest_api_is_another_key(world: World) -> None:
    held = await world.engine.enqueue(
        "echo", payload=STRANGERS, unique_key="order-1", available_at=datetime(2099, 1, 1, tzinfo=UTC)
    )
    async with world.operator(), world.engine.worker():
        await world.job("peek", payload={"x": 1}, uniqueKey="order-1")
        assert (await world.state("peek", "completed"))["result"] == {"x": 1}
    assert (await world.engine.service.get(held)).status == "pending"


async def test_a_job_that_is_retried_by_hand_has_its_key_in_its_namespace_again(world: World) -> None:
    async with world.operator():
        await world.job("one", uniqueKey="k", availableAt=FAR)
        job_id = (await world.state("one", "pending"))["jobID"]
        (before,) = await world.engine.rows("SELECT active_key FROM jobs")
        await world.engine.service.cancel(job_id)
        await world.state("one", "cancelled")
        await world.engine.service.retry(job_id)
        assert await world.engine.rows("SELECT active_key FROM jobs") == [before]
        assert before[0].startswith(f"\x1f{world.namespace}/")


async def test_a_schedules_result_is_not_shown_to_a_job_with_its_unique_key(world: World) -> None:
    ours = await installation_of(world)
    tick = rows.tick_key("a-schedule", world.namespace, datetime.now(UTC), ours)
    held = await world.engine.enqueue(
        "echo", payload=STRANGERS, unique_key="nightly", source_key=tick, available_at=datetime(2099, 1, 1, tzinfo=UTC)
    )
    async with world.operator():
        await world.job("peek", payload={"x": 1}, uniqueKey="nightly")
        assert (await world.state("peek", "pending"))["jobID"] == held
        await due(world)
        async with world.engine.worker(), world.engine.scheduler():
            ended = await world.state("peek", "completed")
    assert "result" not in ended


async def test_a_job_that_was_made_and_not_noted_is_held_when_it_is_suspended_meanwhile(world: World) -> None:
    await world.job("one", availableAt=FAR)
    uid = (await world.get("gqj", "one"))["metadata"]["uid"]
    key = rows.key_of(uid, world.namespace, await installation_of(world))
    job_id = await world.engine.enqueue("echo", source_key=key)
    await world.kubectl("patch", "gqj", "one", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    async with world.operator():
        assert (await world.state("one", "suspended")).get("jobID") == job_id
        assert (await world.engine.service.get(job_id)).available_at.year == rows.HELD_UNTIL.year
