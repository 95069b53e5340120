"""What Kubernetes has no room for, or keeps otherwise than it was given: refused or shown in short, and said."""

import asyncio
from typing import Any

import pytest
import structlog

from goqueue_operator.access import from_kubeconfig
from goqueue_operator.kube import JOBS, Kube, KubeError
from goqueue_operator.payloads import MAX_PAYLOAD
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World
from tests.integration.operator.test_jobs import rows

pytestmark = pytest.mark.asyncio

HOLDERS = [f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{number}/hold" for number in range(2500)]
"""Finalizers, the one part of an object's metadata that may be as large as that."""
PAD = 850_000
ROOM = 3500
"""Bytes that a first status takes, and a last one without its result, but not with it."""


async def create(kube: Kube, world: World, name: str, payload: Any, **spec: Any) -> None:
    body = {
        "apiVersion": "goqueue.io/v1alpha1",
        "kind": "GoQueueJob",
        "metadata": {"name": name},
        "spec": {"queue": "default", "type": "echo", "payload": payload, **spec},
    }
    await kube.create(JOBS, world.namespace, body)


async def fill(kube: Kube, world: World, name: str) -> None:
    """Leave no more than `ROOM` bytes to the largest object that etcd stores."""
    small, large = 0, 250_000
    while large - small > 256:
        size = (small + large) // 2
        try:
            await kube.patch(JOBS, world.namespace, name, {"metadata": {"annotations": {"pad": "x" * size}}})
            small = size
        except KubeError as error:
            if error.code != 413:
                raise
            large = size
    assert large < 250_000
    pad = {"metadata": {"annotations": {"pad": "x" * (small - ROOM)}}}
    await kube.patch(JOBS, world.namespace, name, pad)


async def test_a_last_status_too_large_to_be_stored_is_shown_without_its_result_and_the_job_goes_in_time(
    world: World,
) -> None:
    async def answer(*_: Any) -> Any:
        return "y" * 4000

    world.engine.handle("answer", answer)
    kube = Kube(from_kubeconfig(world.kubernetes.kubeconfig))
    await create(kube, world, "one", {"pad": "z" * PAD}, type="answer")
    await kube.patch(JOBS, world.namespace, "one", {"metadata": {"finalizers": HOLDERS}})
    await fill(kube, world, "one")
    with structlog.testing.capture_logs() as said:
        async with world.operator() as operator:
            await world.state("one", "pending")
            async with world.engine.worker():
                status = await world.state("one", "completed")
            jobs = operator.jobs
            assert jobs is not None
            assert "result" not in status
            assert "no room here for the result" in str(status["conditions"])
            written = jobs.written
            await asyncio.sleep(1.0)  # it would be repeated at once
            assert jobs.written == written
            await kube.patch(JOBS, world.namespace, "one", {"spec": {"ttlSecondsAfterFinished": 0}})

            async def deleted() -> bool:
                found = await kube.get(JOBS, world.namespace, "one")
                return "deletionTimestamp" in found["metadata"]

            await eventually(deleted)
    await kube.patch(JOBS, world.namespace, "one", {"metadata": {"finalizers": []}})
    assert [line["event"] for line in said].count("status too large to be stored") == 1
    await kube.close()


async def test_a_payload_larger_than_rest_takes_is_refused_in_words(world: World) -> None:
    await world.job("one", payload={"pad": "z" * MAX_PAYLOAD})
    async with world.operator():
        status = await world.state("one", "failed")
    assert "payload too large" in status["error"]
    assert await rows(world) == []


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 12345678901234567890, 2**64, 10**22])
async def test_a_whole_number_that_kubernetes_rounds_is_refused_in_words(world: World, number: int) -> None:
    async with world.operator():
        await world.job("one", payload={"a": [{"id": number}], "fine": 2**63 - 1})
        status = await world.state("one", "failed")
    assert "payload.a[0].id: a whole number from 2^63 on" in status["error"]
    assert status["conditions"][0]["reason"] == "PayloadWasRounded"
    assert await rows(world) == []


async def test_the_largest_whole_numbers_that_kubernetes_keeps_arrive_as_given(world: World) -> None:
    payload = {"most": 2**63 - 1, "least": 1 - 2**63, "fraction": 0.1}
    async with world.operator(), world.engine.worker():
        await world.job("one", payload=payload)
        assert (await world.state("one", "completed"))["result"] == payload


async def test_a_result_that_kubernetes_would_round_is_not_shown(world: World) -> None:
    async def answer(*_: Any) -> Any:
        return {"id": 2**63}

    world.engine.handle("answer", answer)
    async with world.operator(), world.engine.worker():
        await world.job("one", type="answer")
        status = await world.state("one", "completed")
    assert "result" not in status
    assert "Kubernetes would round" in str(status["conditions"])
