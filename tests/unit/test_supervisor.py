"""Duties side by side: what fails is repeated alone."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from goqueue.errors import StoreUnavailable, UnfitDatabase
from goqueue.retry import RetryPolicy
from goqueue_scheduler import supervisor as module
from goqueue_scheduler.supervisor import Supervisor


class Work:
    """A duty whose tick is given; notes how it was called."""

    def __init__(self, name: str, tick: Callable[[int], Awaitable[float]]) -> None:
        self.name = name
        self._tick = tick
        self.ticks = 0
        self.calls: list[str] = []
        self.reached = asyncio.Event()

    def begin(self) -> None:
        self.calls.append("begin")

    def end(self) -> None:
        self.calls.append("end")

    async def tick(self) -> float:
        self.ticks += 1
        if self.ticks >= 3:
            self.reached.set()
        return await self._tick(self.ticks)


async def quick(number: int) -> float:
    return 0.0


async def run_until(supervisor: Supervisor, *events: asyncio.Event) -> None:
    running = asyncio.create_task(supervisor.run())
    await asyncio.gather(*(event.wait() for event in events))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("error", [ValueError("a bug"), StoreUnavailable("a lock")])
async def test_an_error_in_one_duty_repeats_its_tick_and_touches_no_other(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF", RetryPolicy(base=0.01, maximum=0.01))
    monkeypatch.setattr(module, "OUTAGE", 0.01)

    async def fails_twice(number: int) -> float:
        if number <= 2:
            raise error
        return 0.0

    bad, good = Work("bad", fails_twice), Work("good", quick)
    await run_until(Supervisor([bad, good]), bad.reached, good.reached)
    assert bad.calls == good.calls == ["begin", "end"]  # never begun anew


async def test_a_duty_that_fails_is_named_until_a_tick_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTAGE", 0.0)
    seen = []

    async def fails_once(number: int) -> float:
        seen.append(dict(supervisor.failing))
        if number == 1:
            raise StoreUnavailable("away")
        return 0.0

    duty = Work("some", fails_once)
    supervisor = Supervisor([duty])
    await run_until(supervisor, duty.reached)
    assert seen[:3] == [{}, {"some": "away"}, {}]


async def test_an_unfit_database_ends_all_duties() -> None:
    async def unfit(number: int) -> float:
        raise UnfitDatabase("no")

    with pytest.raises(ExceptionGroup) as caught:
        await Supervisor([Work("some", unfit), Work("other", quick)]).run()
    assert caught.group_contains(UnfitDatabase)


async def test_a_tick_that_takes_too_long_is_told_to_the_liveness_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def hangs(number: int) -> float:
        begun.set()
        await asyncio.Event().wait()
        return 0.0

    supervisor = Supervisor([Work("deaf", hangs), other := Work("other", quick)])
    running = asyncio.create_task(supervisor.run())
    await begun.wait()
    await other.reached.wait()
    assert supervisor.stuck() == {}
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    assert "deaf" in supervisor.stuck()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert supervisor.stuck() == {}
