"""Tasks that are told to end do, however they take it."""

import asyncio

from goqueue.tasks import end_all


async def test_a_task_that_loses_a_cancellation_is_told_again() -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1

    async def heeding() -> None:
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(deaf()), asyncio.create_task(heeding())]
    await asyncio.sleep(0)  # both have begun
    await end_all(tasks, again=0.01)
    assert all(task.cancelled() for task in tasks)
    assert lost == 2
