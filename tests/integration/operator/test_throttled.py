"""The API server asks for patience, or is slow, with some requests: the others go on, the lead first of all."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from tests.integration.engine import eventually
from tests.integration.operator.conftest import World
from tests.integration.operator.proxy import proxy, status_write, throttled
from tests.integration.operator.test_pools import deployment, pool

pytestmark = pytest.mark.asyncio

RETRY_AFTER = 16
"""Seconds: more than the lead lasts without a renewal."""


async def lease(world: World) -> tuple[str, int]:
    """Who holds the lead, and how often it went from hand to hand."""
    spec = (await world.get("lease", "goqueue-operator"))["spec"]
    return spec["holderIdentity"], spec["leaseTransitions"]


async def test_a_status_write_that_is_to_wait_costs_neither_the_lead_nor_a_scaling_decision(
    world: World, tmp_path: Path
) -> None:
    refused, again = asyncio.Event(), asyncio.Event()

    async def once(request: web.Request) -> web.Response | None:
        if not status_write(request):
            return None
        if not refused.is_set():
            refused.set()
            return throttled(RETRY_AFTER)
        again.set()
        return None

    async with (
        proxy(world.kubernetes, tmp_path, once) as through,
        world.operator(kubeconfig=through.kubeconfig) as operator,
    ):
        await world.job("one")
        await asyncio.wait_for(refused.wait(), 30)
        held = await lease(world)
        began = operator.jobs
        await pool(world)
        await deployment(world)
        await world.job("two")
        await eventually(lambda: world.engine.rows("SELECT 1 FROM jobs HAVING count(*) >= 2"))
        assert not again.is_set()  # all of this while status writes wait
        await asyncio.wait_for(again.wait(), RETRY_AFTER + 30)
        for name in ("one", "two"):
            await world.state(name, "pending")
        assert await lease(world) == held
        assert operator.jobs is began  # it has led without a break


async def test_status_writes_that_hang_hold_back_neither_the_lease_nor_the_pools(world: World, tmp_path: Path) -> None:
    hanging, released = asyncio.Semaphore(0), asyncio.Event()

    async def hang(request: web.Request) -> web.Response | None:
        if status_write(request) and not released.is_set():
            hanging.release()
            await released.wait()
        return None

    async with (
        proxy(world.kubernetes, tmp_path, hang) as through,
        world.operator(kubeconfig=through.kubeconfig, requests=2) as operator,
    ):
        for number in range(3):
            await world.job(f"job-{number}")
        for _ in range(2):  # as many as may be on their way
            await asyncio.wait_for(hanging.acquire(), 30)
        asked = operator.lease.asked_at

        async def renewed() -> bool:
            return operator.lease.asked_at > asked

        await eventually(renewed)
        await pool(world)
        await deployment(world)
        assert hanging.locked()  # the third one still waits for a place
        released.set()
        for number in range(3):
            await world.state(f"job-{number}", "pending")


async def test_the_lease_is_asked_for_again_in_its_own_time(world: World, tmp_path: Path) -> None:
    refused = asyncio.Event()

    async def once(request: web.Request) -> web.Response | None:
        if request.path.endswith("/leases/goqueue-operator") and request.method == "PUT" and not refused.is_set():
            refused.set()
            return throttled(RETRY_AFTER)
        return None

    async with (
        proxy(world.kubernetes, tmp_path, once) as through,
        world.operator(kubeconfig=through.kubeconfig) as operator,
    ):
        await asyncio.wait_for(refused.wait(), 30)
        began, asked = operator.jobs, operator.lease.asked_at

        async def renewed() -> bool:
            return operator.lease.asked_at > asked

        await eventually(renewed, RETRY_AFTER / 2)
        assert operator.jobs is began
