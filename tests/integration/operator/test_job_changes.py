"""What may change of a GoQueueJob that is there: priority, time to live, another round of attempts by annotation."""

import heapq
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from goqueue.broker.overflow import member
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World
from tests.integration.operator.test_jobs import rows

pytestmark = pytest.mark.asyncio

LATER = "2099-01-01T00:00:00Z"


async def change(world: World, name: str, **spec: Any) -> None:
    await world.kubectl("patch", "gqj", name, "--type=merge", "-p", json.dumps({"spec": spec}))


async def gone(world: World, name: str) -> None:
    async def deleted() -> bool:
        return name not in (await world.kubectl("get", "gqj", "-o", "name")).replace("/", " ").split()

    await eventually(deleted)


async def events(world: World, reason: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await world.get("events", f"--field-selector=reason={reason}"))["items"]
    return items


async def told(world: World, reason: str) -> dict[str, Any]:
    """The one event with this reason."""

    async def there() -> list[dict[str, Any]]:
        return await events(world, reason)

    [event] = await eventually(there)
    found: dict[str, Any] = event
    return found


async def test_the_priority_of_a_job_that_waits_can_be_changed(world: World) -> None:
    async with world.operator(), world.engine.scheduler():
        for name, priority in (("first", 5), ("second", 0)):
            await world.job(name, priority=priority)
            await world.state(name, "pending")
        await change(world, "second", priority=9)
        [(_, *_), (second, *_)] = await rows(world)
        broker = world.engine.broker

        async def comes_first() -> bool:
            [first] = await broker._redis.zrange(broker._ready("default"), 0, 0)
            return bool(first.decode() == member(second))

        await eventually(comes_first)
        assert await world.engine.rows("SELECT priority FROM jobs ORDER BY id") == [(5,), (9,)]


async def test_the_time_to_live_of_an_ended_job_can_be_changed(world: World) -> None:
    async with world.operator() as operator, world.engine.worker():
        for name in ("shorter", "longer"):
            await world.job(name, ttlSecondsAfterFinished=3600)
            await world.state(name, "completed")
        await change(world, "longer", ttlSecondsAfterFinished=7200)
        await change(world, "shorter", ttlSecondsAfterFinished=0)
        await gone(world, "shorter")
        # What is in the heap for the former time deletes it no more.
        jobs, uid = operator.jobs, (await world.get("gqj", "longer"))["metadata"]["uid"]
        assert jobs is not None

        async def known() -> bool:
            entry = jobs.entries.get(uid)
            return entry is not None and entry.ttl == 7200

        await eventually(known)
        heapq.heappush(jobs.expiry._ending, (datetime.now(UTC), uid))
        await world.job("canary", ttlSecondsAfterFinished=0)
        await gone(world, "canary")
        await world.get("gqj", "longer")


async def test_the_status_of_an_ended_job_follows_a_change_of_it_and_keeps_its_result(world: World) -> None:
    async with world.operator(), world.engine.worker():
        await world.job("one", payload={"n": 1})
        await world.state("one", "completed")
        for ttl in (3600, 7200):
            await change(world, "one", ttlSecondsAfterFinished=ttl)
            generation = (await world.get("gqj", "one"))["metadata"]["generation"]

            async def observed(generation: int = generation) -> bool:
                return bool((await world.get("gqj", "one"))["status"]["observedGeneration"] == generation)

            await eventually(observed)
        assert (await world.get("gqj", "one"))["status"]["result"] == {"n": 1}
    await change(world, "one", suspend=True)
    generation = (await world.get("gqj", "one"))["metadata"]["generation"]
    async with world.operator():
        await eventually(lambda: observed(generation))


async def test_one_condition_says_that_a_job_has_ended_however_it_did(world: World) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("no")

    world.engine.handle("fail", fail)
    async with world.operator(), world.engine.worker():
        await world.job("succeeded")
        await world.job("failed", type="fail", maxRetries=0)
        await world.job("refused", type="nobody_knows")
        await world.job("cancelled", availableAt=LATER)
        job_id = (await world.state("cancelled", "pending"))["jobID"]
        await world.engine.service.cancel(job_id)
        for name, reason in (
            ("succeeded", "Succeeded"),
            ("failed", "Failed"),
            ("refused", "Failed"),
            ("cancelled", "Cancelled"),
        ):
            await world.kubectl("wait", "--for=condition=Finished", f"gqj/{name}", "--timeout=60s")
            conditions = {item["type"]: item for item in (await world.get("gqj", name))["status"]["conditions"]}
            assert conditions["Finished"]["reason"] == reason


async def test_the_end_of_a_job_in_failure_leaves_an_event_without_the_words_of_its_handler(world: World) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("the card is 4111")

    world.engine.handle("fail", fail)
    async with world.operator(), world.engine.worker():
        await world.job("one", type="fail", maxRetries=0)
        assert "4111" in (await world.state("one", "failed"))["error"]
        event = await told(world, "RetriesUsedUp")
        assert event["type"] == "Warning"
        assert "failed in attempt 1" in event["message"]
        assert "4111" not in await world.kubectl("get", "events", "-o", "json")
        assert "RetriesUsedUp" in await world.kubectl("describe", "gqj", "one")
        await world.job("two", type="nobody_knows")
        assert "invalid job type" in (await told(world, "InvalidJobType"))["message"]
        await world.job("three")
        await world.state("three", "completed")
    about = {item["regarding" if "regarding" in item else "involvedObject"]["name"] for item in await all_events(world)}
    assert about == {"one", "two"}


async def all_events(world: World) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(await world.kubectl("get", "events", "-o", "json"))["items"]
    return items


async def annotate(world: World, name: str, token: str) -> None:
    await world.kubectl("annotate", "gqj", name, f"goqueue.io/retry={token}", "--overwrite")


async def noted(world: World, name: str, token: str) -> None:
    async def there() -> bool:
        return bool((await world.get("gqj", name))["status"].get("retry") == token)

    await eventually(there)


async def test_each_token_of_retry_gives_a_failed_job_one_more_round(world: World) -> None:
    runs = 0

    async def fail_twice(*_: Any) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise RuntimeError("not yet")

    world.engine.handle("fail_twice", fail_twice)
    async with world.operator(), world.engine.worker():
        await world.job("one", type="fail_twice", maxRetries=0)
        job_id = (await world.state("one", "failed"))["jobID"]
        await annotate(world, "one", "a")
        await noted(world, "one", "a")
        await world.state("one", "failed")
    async with world.operator(), world.engine.worker():  # the same token, another leader
        await annotate(world, "one", "b")
        assert (await world.state("one", "completed"))["jobID"] == job_id
        assert runs == 3
        await noted(world, "one", "b")
        await annotate(world, "one", "c")
        await noted(world, "one", "c")
        assert "completed job" in (await told(world, "CannotRetry"))["message"]
    assert runs == 3
    assert (await world.get("gqj", "one"))["status"]["state"] == "completed"


async def test_retry_accepts_a_job_that_was_refused(world: World) -> None:
    async with world.operator(), world.engine.worker():
        await world.job("one", type="comes_later")
        await world.state("one", "failed")
        assert await rows(world) == []

        async def works(*_: Any) -> None:
            return None

        world.engine.handle("comes_later", works)
        await annotate(world, "one", "now")
        await world.state("one", "completed")
        await noted(world, "one", "now")
