"""Ends of attempts go out together: alone at once, and in a burst by few statements."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

import goqueue_worker.completer as module
from goqueue.job import AttemptEnd, Outcome
from goqueue.store import attempts
from goqueue.store.connect import Connection
from goqueue_worker.completer import Completer
from tests.integration.engine import Engine, claim

LONG = 600.0


@contextlib.asynccontextmanager
async def completing(engine: Engine) -> AsyncIterator[tuple[Completer, list[AttemptEnd]]]:
    """A running completer, and the ends of three claimed jobs."""
    ids = [await engine.enqueue("noop") for _ in range(3)]
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "completer", ["default"], 3)
        jobs = await claim(connection, worker, ids)
    completer = Completer(engine.database, lambda: None)
    running = asyncio.create_task(completer.run())
    try:
        yield completer, [AttemptEnd(job.id, job.lease, Outcome.COMPLETED) for job in jobs]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ends each write had."""
    counts: list[int] = []
    complete = attempts.complete

    async def counted(connection: Connection, ends: Sequence[AttemptEnd], keyring: None) -> set[int]:
        counts.append(len(ends))
        return await complete(connection, ends, keyring)

    monkeypatch.setattr(attempts, "complete", counted)
    return counts


async def test_a_lone_end_is_written_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, writes: list[int]
) -> None:
    monkeypatch.setattr(module, "GAP", LONG)
    async with completing(engine) as (completer, ends):
        completer.put(ends[0])
        await asyncio.wait_for(completer.drained(), 60)
    assert writes == [1]


async def test_ends_that_come_soon_after_a_write_gather_until_they_are_enough(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, writes: list[int]
) -> None:
    monkeypatch.setattr(module, "GAP", LONG)
    monkeypatch.setattr(module, "ENOUGH", 2)
    async with completing(engine) as (completer, ends):
        completer.put(ends[0])
        await asyncio.wait_for(completer.drained(), 60)
        completer.put(ends[1])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(completer.drained(), 0.2)
        completer.put(ends[2])
        await asyncio.wait_for(completer.drained(), 60)
    assert writes == [1, 2]


async def test_what_a_full_write_leaves_is_written_at_once_where_it_is_enough(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, writes: list[int]
) -> None:
    monkeypatch.setattr(module, "GAP", LONG)
    monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(module, "ENOUGH", 1)
    async with completing(engine) as (completer, ends):
        for end in ends:
            completer.put(end)
        await asyncio.wait_for(completer.drained(), 60)
    assert writes == [2, 1]


async def test_a_write_holds_no_more_results_than_fit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, writes: list[int]
) -> None:
    monkeypatch.setattr(module, "RESULTS", 20)
    async with completing(engine) as (completer, ends):
        for end in ends:
            end.result = '"twelve char"'
            completer.put(end)
        await asyncio.wait_for(completer.drained(), 60)
    assert writes == [2, 1]


async def test_ends_written_together_keep_their_own_results(engine: Engine) -> None:
    async with completing(engine) as (_, ends):
        ends[0].result, ends[2].result = '{"first": [1, null]}', '"last"'
        async with engine.database.connection() as connection:
            assert await attempts.complete(connection, ends[::-1]) == {end.id for end in ends}
    assert [(await engine.service.get(end.id)).result for end in ends] == [{"first": [1, None]}, None, "last"]


@pytest.mark.parametrize("late_comes", ["first", "last"])
async def test_of_two_ends_of_one_job_written_together_the_one_that_holds_the_lease_counts(
    engine: Engine, late_comes: str
) -> None:
    job_id = await engine.enqueue("noop")
    async with engine.database.connection() as connection:
        worker = await attempts.register(connection, "completer", ["default"], 1)
        (old,) = await claim(connection, worker, [job_id])
        await engine.execute("UPDATE jobs SET status = 'pending', dispatch_at = now() WHERE id = %s", job_id)
        (new,) = await claim(connection, worker, [job_id])
        late = AttemptEnd(job_id, old.lease, Outcome.COMPLETED, result='"late"')
        mine = AttemptEnd(job_id, new.lease, Outcome.COMPLETED)
        ends = [late, mine] if late_comes == "first" else [mine, late]
        assert await attempts.complete(connection, ends) == {job_id}
    job = await engine.service.get(job_id)
    assert (job.status, job.result) == ("completed", None)


async def test_an_end_written_once_more_is_still_ours(engine: Engine) -> None:
    """As after a connection that broke before the answer: the job is not reported as lost."""
    async with completing(engine) as (_, ends), engine.database.connection() as connection:
        for _ in range(2):
            assert await attempts.complete(connection, ends) == {end.id for end in ends}
        ended = [await engine.service.get(end.id) for end in ends]
        assert await attempts.complete(connection, ends[:1]) == {ends[0].id}
    assert [await engine.service.get(end.id) for end in ends] == ended


async def test_what_gathers_is_written_when_the_gap_is_over(engine: Engine, writes: list[int]) -> None:
    async with completing(engine) as (completer, ends):
        completer.put(ends[0])
        await asyncio.wait_for(completer.drained(), 60)
        for end in ends[1:]:
            completer.put(end)
        await asyncio.wait_for(completer.drained(), 60)
    assert sum(writes) == 3
    assert writes == [1, 2]
    for end in ends:
        assert (await engine.service.get(end.id)).status == "completed"
