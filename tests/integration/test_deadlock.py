"""Two that insert the same unique keys in another order."""

import asyncio

from goqueue.job import NewJob
from tests.integration.engine import Engine, eventually


async def test_an_insert_that_postgresql_ends_to_resolve_a_deadlock_is_made_once_more(engine: Engine) -> None:
    def keyed(key: str) -> NewJob:
        return NewJob("default", "t", {}, unique_key=key)

    insert = (
        "INSERT INTO jobs (queue, type, payload, unique_key, active_key) SELECT queue, type, payload, %s, active_key"
        " FROM (SELECT 'default' AS queue, 't' AS type, '{}'::jsonb AS payload, %s AS active_key) AS one"
    )
    keys = [keyed(name).active_key for name in ("a", "b")]
    async with engine.database.connection() as other, other.transaction():
        await other.execute("SET LOCAL deadlock_timeout = '1min'")  # so that it is not this one that is ended
        await other.execute(insert, ("b", keys[1]))
        bulk = asyncio.create_task(engine.service.enqueue_many([keyed("a"), keyed("b"), NewJob("default", "t", {})]))
        await eventually(engine.lock_awaited)
        await other.execute(insert, ("a", keys[0]))  # the bulk has it, and waits for b
    made = await bulk
    assert [one.created for one in made] == [False, False, True]
    assert await engine.rows("SELECT count(*) FROM jobs") == [(3,)]
