"""What the operator sees of queues that only a pool names."""

from goqueue_operator.load import Looker, of_pool
from tests.integration.engine import Engine


async def test_a_queue_that_a_pool_names_counts_for_it_where_the_operator_has_not_loaded_its_types(
    engine: Engine,
) -> None:
    looker = Looker(engine.service, ["default"])
    job_id = await engine.enqueue("squeeze", "lemons")

    async def seen(named: list[str]) -> int | None:
        return of_pool(await looker.look(named), ["lemons"], [], None).waiting

    assert await seen([]) == 0
    await engine.service.close()  # its push is over
    assert await seen(["lemons"]) == 1
    assert (await engine.service.get(job_id)).status == "pending"


async def test_of_what_types_the_waiting_jobs_are_is_known_by_a_sample(engine: Engine) -> None:
    looker = Looker(engine.service, ["default", "other"])
    for _ in range(3):
        await engine.enqueue("slow")
    await engine.enqueue("quick")
    await engine.enqueue("quick", "other")
    await engine.service.close()  # its pushes are over
    facts = await looker.look()
    assert facts.types == {"default": {"slow": 3.0, "quick": 1.0}}
