"""GoQueueJobs on a real API server: rows are made once, states come back, deletion cancels, absence is healed."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from goqueue.errors import StoreUnavailable
from goqueue.store.connect import Connection
from goqueue_operator import jobs
from goqueue_operator import rows as row_store
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World

pytestmark = pytest.mark.asyncio


async def refused(world: World, *arguments: str) -> bool:
    """Whether kubectl is told that a policy forbids it; it takes some seconds to come into force."""
    try:
        await world.kubectl(*arguments)
    except Exception as error:
        return "ValidatingAdmissionPolicy" in str(error)
    return False


async def rows(world: World) -> list[Any]:
    return await world.engine.rows("SELECT id, status, source_key FROM jobs ORDER BY id")


async def test_a_job_runs_and_its_result_stands_in_the_status(world: World) -> None:
    async with world.operator(), world.engine.worker():
        await world.job("one", payload={"n": 1})
        status = await world.state("one", "completed")
        assert status["result"] == {"n": 1}
        assert status["attempts"] == 1
        await world.kubectl("wait", "--for=condition=Succeeded", "gqj/one", "--timeout=60s")
    assert len(await rows(world)) == 1


async def test_a_result_in_the_status_is_the_jobs_own_and_no_mixture(world: World) -> None:
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        job_id = (await world.state("one", "pending"))["jobID"]
        for result in ({"step": 1, "none": None}, {"done": {"really": None}}):
            await world.engine.service.save_result(job_id, json.dumps(result), None)

            async def shown(result: Any = result) -> bool:
                return bool((await world.get("gqj", "one"))["status"].get("result") == result)

            await eventually(shown)


async def test_deleting_a_job_cancels_it(world: World) -> None:
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        job_id = (await world.state("one", "pending"))["jobID"]
        await world.kubectl("delete", "gqj", "one", "--timeout=60s")
        await world.engine.until(job_id, "cancelled")


async def test_a_job_deleted_while_the_operator_is_away_is_cancelled_when_it_is_back(world: World) -> None:
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        job_id = (await world.state("one", "pending"))["jobID"]
    await world.kubectl("delete", "gqj", "one", "--timeout=60s")
    async with world.operator():
        await world.engine.until(job_id, "cancelled")


async def test_rows_of_another_namespace_are_left_alone(world: World) -> None:
    job_id = await world.engine.enqueue("echo", source_key="kubernetes:some-uid@elsewhere")
    await world.engine.execute("UPDATE jobs SET source = 'kubernetes'")
    async with world.operator() as operator:
        await world.job("one")
        await world.state("one", "pending")
        await asyncio.sleep(1.5)  # a comparison
        assert operator.lease.leading
        assert (await world.engine.service.get(job_id)).status == "pending"


async def test_a_row_made_before_a_crash_is_found_again(world: World) -> None:
    await world.job("one", availableAt="2099-01-01T00:00:00Z")
    uid = (await world.get("gqj", "one"))["metadata"]["uid"]
    job_id = await world.engine.enqueue("echo", source_key=f"kubernetes:{uid}@{world.namespace}")
    async with world.operator():
        assert (await world.state("one", "pending"))["jobID"] == job_id
    assert len(await rows(world)) == 1


async def test_a_suspended_job_waits_and_one_suspended_later_is_held(world: World) -> None:
    async with world.operator(), world.engine.scheduler():
        await world.job("one", suspend=True)
        await world.state("one", "suspended")
        assert await rows(world) == []
        await world.kubectl("patch", "gqj", "one", "--type=merge", "-p", '{"spec":{"suspend":false}}')
        await world.state("one", "pending")
        await world.kubectl("patch", "gqj", "one", "--type=merge", "-p", '{"spec":{"suspend":true}}')
        await world.state("one", "suspended")
        async with world.engine.worker():
            await asyncio.sleep(0.5)
            assert (await world.state("one", "suspended"))["attempts"] == 0
            await world.kubectl("patch", "gqj", "one", "--type=merge", "-p", '{"spec":{"suspend":false}}')
            await world.state("one", "completed")


async def test_a_payload_comes_from_a_secret_that_allows_it_once_it_is_there(world: World) -> None:
    async with world.operator(), world.engine.worker():
        reference = {"secretKeyRef": {"name": "late", "key": "payload"}}
        body = {"queue": "default", "type": "echo", "payloadFrom": reference}
        await world.make("GoQueueJob", "one", body)
        status = await world.state("one", "waiting")
        assert status["conditions"][0]["reason"] == "PayloadNotFound"
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "late"},
            "stringData": {"payload": '{"a":2}'},
        }
        await world.kubectl("create", "-f", "-", stdin=secret)
        await world.kubectl("label", "secret", "late", "goqueue.io/payload=true")
        assert (await world.state("one", "completed"))["result"] == {"a": 2}


async def test_an_ended_job_is_deleted_after_its_time(world: World) -> None:
    async with world.operator(), world.engine.worker():
        await world.job("one", ttlSecondsAfterFinished=1)

        async def gone() -> bool:
            return "one" not in await world.kubectl("get", "gqj", "-o", "name")

        await eventually(gone)
    assert [status for _, status, _ in await rows(world)] == ["completed"]


async def test_a_deletion_that_is_refused_stops_nobody(world: World) -> None:
    async with world.forbidden("DELETE", "goqueuejobs", "kept"), world.operator(), world.engine.worker():
        await world.job("kept", availableAt="2099-01-01T00:00:00Z", ttlSecondsAfterFinished=0)
        job_id = (await world.state("kept", "pending"))["jobID"]
        await eventually(lambda: refused(world, "delete", "gqj", "kept", "--dry-run=server"))
        await world.engine.service.cancel(job_id)
        await world.state("kept", "cancelled")
        for name in ("one", "two"):
            await world.job(name, ttlSecondsAfterFinished=0)

            async def gone(name: str = name) -> bool:
                return name not in await world.kubectl("get", "gqj", "-o", "name")

            await eventually(gone)
        await world.get("gqj", "kept")
    assert [status for _, status, _ in await rows(world)] == ["cancelled", "completed", "completed"]


async def test_a_status_that_is_refused_is_written_once_it_is_allowed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "REFUSED_AGAIN", 0.3)
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        job_id = (await world.state("one", "pending"))["jobID"]
        async with world.forbidden("UPDATE", "goqueuejobs/status", "one"):
            patch = ("patch", "gqj", "one", "--subresource=status", "--type=merge", "-p", "{}", "--dry-run=server")
            await eventually(lambda: refused(world, *patch))
            await world.engine.service.cancel(job_id)
            with structlog.testing.capture_logs() as said:

                async def told() -> bool:
                    return any(line["event"] == "status refused" for line in said)

                await eventually(told)
        await world.state("one", "cancelled")


async def test_an_end_whose_time_is_before_that_of_what_was_seen_is_seen(world: World) -> None:
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        await world.state("one", "pending")
        await world.engine.execute(
            "UPDATE jobs SET status = 'completed', finished_at = now(), updated_at = updated_at - interval '1 s'"
        )
        await world.state("one", "completed")


async def test_a_suspension_that_postgresql_could_not_be_told_is_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, calls = row_store.hold, 0

    async def fails_at_first(connection: Connection, ids: Sequence[int]) -> list[tuple[int, str]]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable("database is unavailable")
        return await hold(connection, ids)

    monkeypatch.setattr(row_store, "hold", fails_at_first)
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        await world.state("one", "pending")
        await world.kubectl("patch", "gqj", "one", "--type=merge", "-p", '{"spec":{"suspend":true}}')
        await world.state("one", "suspended")
    assert calls == 2


async def test_a_type_that_nobody_knows_fails_with_a_reason(world: World) -> None:
    async with world.operator():
        await world.job("one", type="nobody_knows")
        status = await world.state("one", "failed")
        assert status["conditions"][0]["reason"] == "InvalidJobType"


async def test_two_jobs_with_one_unique_key_share_a_row_and_only_its_owner_cancels_it(world: World) -> None:
    async with world.operator():
        await world.job("one", uniqueKey="k", availableAt="2099-01-01T00:00:00Z")
        first = await world.state("one", "pending")
        await world.job("two", uniqueKey="k")
        second = await world.state("two", "pending")
        assert second["jobID"] == first["jobID"]
        assert second["conditions"][0]["reason"] == "SameUniqueKey"
        await world.kubectl("delete", "gqj", "two")
        await asyncio.sleep(1.5)  # a comparison as well
        assert (await world.engine.service.get(first["jobID"])).status == "pending"


async def test_a_job_retried_by_hand_is_followed_again(world: World) -> None:
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        job_id = (await world.state("one", "pending"))["jobID"]
        await world.engine.service.cancel(job_id)
        await world.state("one", "cancelled")
        await world.engine.service.retry(job_id)
        async with world.engine.worker():
            await world.state("one", "completed")


async def test_the_namespace_goes_while_the_operator_is_away(world: World) -> None:
    async with world.operator():
        await world.job("one", availableAt="2099-01-01T00:00:00Z")
        await world.state("one", "pending")
    await asyncio.to_thread(world.kubernetes, "delete", "namespace", world.namespace, "--timeout=60s")
    await asyncio.to_thread(world.kubernetes, "create", "namespace", world.namespace)


async def test_a_second_operator_takes_over_and_nothing_is_lost_or_doubled(world: World) -> None:
    async with world.engine.worker():
        async with world.operator() as first, world.operator() as second:
            for number in range(5):
                await world.job(f"before-{number}")
            await world.state("before-4", "completed")
            assert first.lease.leading is not second.lease.leading
        async with world.operator():
            for number in range(5):
                await world.job(f"after-{number}")
            for number in range(5):
                await world.state(f"after-{number}", "completed")
    assert len(await rows(world)) == 10
