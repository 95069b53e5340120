"""One leader at a time, by a Lease that is kept in memory here."""

import asyncio
import copy
import time
from typing import Any

import pytest

from goqueue_operator import lease as leases
from goqueue_operator.kube import KubeError, KubeUnavailable
from goqueue_operator.lease import Lease

pytestmark = pytest.mark.asyncio


class Kubernetes:
    """One Lease, with the optimistic locking of the real thing."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.away = False

    @property
    def lasts(self) -> int:
        """The duration that the last renewal has noted, in seconds."""
        assert self.lease is not None
        return int(self.lease["spec"]["leaseDurationSeconds"])

    def _up(self) -> None:
        if self.away:
            raise KubeUnavailable("away")

    async def find(self, *_: Any) -> Any:
        self._up()
        return copy.deepcopy(self.lease)

    get = find

    async def create(self, _: Any, __: str, body: Any) -> Any:
        self._up()
        if self.lease is not None:
            raise KubeError(409, "AlreadyExists", "it is there")
        body["metadata"] |= {"uid": "u", "resourceVersion": "1"}
        self.lease = copy.deepcopy(body)
        return body

    async def replace(self, _: Any, __: str, ___: str, body: Any) -> Any:
        self._up()
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise KubeError(409, "Conflict", "changed meanwhile")
        body["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + 1)
        self.lease = copy.deepcopy(body)
        return body


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "DURATION", 1)
    monkeypatch.setattr(leases, "RENEW", 0.5)
    monkeypatch.setattr(leases, "RETRY", 0.1)


class Candidate:
    """One that stands for leadership, and notes when it works."""

    def __init__(self, kubernetes: Kubernetes, name: str) -> None:
        self.lease = Lease(kubernetes, "shop", "operator", name)  # type: ignore[arg-type]
        self.working = False
        self.began = 0.0
        self.task = asyncio.create_task(self.lease.run(self.duties))

    async def duties(self) -> None:
        self.working, self.began = True, time.monotonic()
        try:
            await asyncio.Event().wait()
        finally:
            self.working = False

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(condition: Any, seconds: float = 40.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - flags of the subject
            await asyncio.sleep(0.01)


async def test_one_works_and_the_other_takes_over_at_once_when_it_steps_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "DURATION", 5)
    monkeypatch.setattr(leases, "RENEW", 4)
    kubernetes = Kubernetes()
    one = Candidate(kubernetes, "one")
    await until(lambda: one.working)
    two = Candidate(kubernetes, "two")
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 6)  # longer than the lease: it is renewed
    assert (one.working, two.working) == (True, False)
    monkeypatch.setattr(leases, "DURATION", 600)
    await until(lambda: kubernetes.lasts == 600)
    await one.stop()
    await until(lambda: two.working)  # long before the lease would have run out
    assert not one.working
    await two.stop()


async def test_a_leader_that_cannot_renew_stops_before_another_may_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "DURATION", 600)
    kubernetes = Kubernetes()
    one = Candidate(kubernetes, "one")
    await until(lambda: one.working)
    kubernetes.away = True
    await until(lambda: not one.working)
    kubernetes.away = False
    await until(lambda: one.working)
    await one.stop()


async def test_a_dead_leader_is_replaced_when_its_lease_has_run_out() -> None:
    kubernetes = Kubernetes()
    one = Candidate(kubernetes, "one")
    await until(lambda: one.working)
    kubernetes.away = True
    await one.stop()  # cannot step down
    kubernetes.away = False
    assert kubernetes.lease is not None
    assert kubernetes.lease["spec"]["holderIdentity"] == "one"
    came = time.monotonic()
    two = Candidate(kubernetes, "two")
    await until(lambda: two.working)
    assert two.began - came >= 1  # it has seen the lease for its whole duration
    assert kubernetes.lease["spec"]["leaseTransitions"] == 1
    await two.stop()


async def test_duties_that_fail_are_taken_up_again() -> None:
    kubernetes = Kubernetes()
    began = []

    async def failing() -> None:
        began.append(1)
        raise RuntimeError("a bug")

    lease = Lease(kubernetes, "shop", "operator", "one")  # type: ignore[arg-type]
    task = asyncio.create_task(lease.run(failing))
    await until(lambda: len(began) >= 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
