"""The bare client: the same creates and two status patches each, as fast as the API server takes them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from goqueue_operator.crds.schema import API_VERSION
from goqueue_operator.kube import JOBS, Kube, Object

TYPE = "bench"


def resource(number: int) -> Object:
    """The GoQueueJob with this number."""
    return {
        "apiVersion": API_VERSION,
        "kind": "GoQueueJob",
        "metadata": {"name": f"job-{number}"},
        "spec": {"queue": "default", "type": TYPE, "payload": {"text": "x" * 150}},
    }


async def _each(count: int, at_once: int, work: Callable[[int], Awaitable[Any]]) -> float:
    """Do the work for each number, so many at once; the seconds it took."""
    began, numbers = time.perf_counter(), iter(range(count))

    async def hand() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(hand() for _ in range(at_once)))
    return time.perf_counter() - began


async def create(kube: Kube, namespace: str, count: int, at_once: int) -> float:
    """Make all resources; the seconds it took."""
    return await _each(count, at_once, lambda number: kube.create(JOBS, namespace, resource(number)))


async def patch(kube: Kube, namespace: str, count: int, at_once: int, state: str) -> float:
    """Patch the status of all of them; the seconds it took."""
    condition = {
        "type": "Succeeded",
        "status": "True" if state == "completed" else "False",
        "reason": "Bare",
        "message": "written by the bare client",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    body = {"status": {"state": state, "jobID": 1, "attempts": 1, "conditions": [condition]}}
    return await _each(count, at_once, lambda number: kube.patch(JOBS, namespace, f"job-{number}", body, "status"))
