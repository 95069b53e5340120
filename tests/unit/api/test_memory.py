"""Room for large requests: who gets it, in which order, and who is refused."""

import asyncio

import pytest

from goqueue_api.memory import Overloaded, Room


async def holding(room: Room, amount: int, done: asyncio.Event, order: list[int]) -> None:
    async with room.take(amount):
        order.append(amount)
        await done.wait()


async def test_room_is_given_in_the_order_of_arrival_and_a_large_one_is_not_overtaken() -> None:
    room = Room(10, 30)
    order: list[int] = []
    events = [asyncio.Event() for _ in range(4)]
    tasks = [
        asyncio.create_task(holding(room, amount, event, order))
        for amount, event in zip((6, 7, 3, 99), events, strict=True)
    ]
    await asyncio.sleep(0)
    assert order == [6]  # 3 would fit, and waits behind 7
    events[0].set()
    await tasks[0]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == [6, 7, 3]
    for event in events:
        event.set()
    await asyncio.gather(*tasks)
    assert order == [6, 7, 3, 99]  # more than there is: it takes all
    async with room.take(10):
        pass


async def test_who_waits_too_long_is_refused_and_takes_nothing() -> None:
    room = Room(10, 0.001)
    async with room.take(8):
        for _ in range(3):
            with pytest.raises(Overloaded):
                async with room.take(5):
                    pytest.fail("there is no room")
    async with room.take(10):
        pass


async def test_who_gives_up_lets_the_next_one_pass() -> None:
    room = Room(10, 30)
    order: list[int] = []
    events = [asyncio.Event() for _ in range(3)]
    first, large, small = (
        asyncio.create_task(holding(room, amount, event, order))
        for amount, event in zip((6, 7, 3), events, strict=True)
    )
    await asyncio.sleep(0)
    large.cancel()
    await asyncio.wait([large])
    await asyncio.sleep(0)
    assert order == [6, 3]
    for event in events:
        event.set()
    await asyncio.gather(first, small)
    async with room.take(10):
        pass


async def test_room_that_comes_to_one_who_is_cancelled_in_that_moment_is_not_lost() -> None:
    room = Room(10, 30)
    order: list[int] = []
    events = [asyncio.Event() for _ in range(2)]
    first, second = (asyncio.create_task(holding(room, 10, event, order)) for event in events)
    await asyncio.sleep(0)
    events[0].set()
    await first  # the second has it now, and has not run since
    second.cancel()
    await asyncio.wait([second])
    async with asyncio.timeout(30), room.take(10):
        pass
