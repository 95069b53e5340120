"""A pool in a small world: jobs of any length, pods that need time to start, workers that tell what they do, and the
decisions of the autoscaler, which sees no more than it sees in a cluster."""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from goqueue.metrics import ATTEMPT_SECONDS
from goqueue.pace import Pace, Told, bucket_name
from goqueue.scaling import History, Load, Policy, arrival_rate, decide
from goqueue_operator.draining import DRAIN_SECONDS, Plan, Pod, Worker, plan

HEARTBEAT: Final = 3.0
LOOK: Final = 2.0
BREATH: Final = 0.2
STEP: Final = 0.1
NAMES: Final = [bucket_name(bound) for bound in (*ATTEMPT_SECONDS.buckets, math.inf)]

Job = tuple[str, float]
"""Type, and seconds that it runs."""


@dataclass
class SimulatedPod:
    """A pod and its worker."""

    number: int
    ready_at: float
    slots: int
    lanes: int
    """Jobs that advance at the same time: all slots, or one where handlers compute."""
    jobs: list[tuple[float, str, float]] = field(default_factory=list)
    """(begun at, type, seconds left)"""
    ended: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    asked_until: float = 0.0
    asked_at: float | None = None
    told: Told | None = None
    told_at: float = 0.0
    busy_told: int = 0
    cost: int = 0

    def ready(self, now: float) -> bool:
        return now >= self.ready_at

    def advance(self, now: float) -> None:
        """Let time pass by a step."""
        going = self.jobs[: self.lanes]
        self.jobs = self.jobs[self.lanes :]
        for begun, kind, left in going:
            if left > STEP:
                self.jobs.append((begun, kind, left - STEP))
                continue
            name = NAMES[bisect_left(ATTEMPT_SECONDS.buckets, now - begun)]
            of_type = self.ended.setdefault(kind, {})
            of_type[name] = of_type.get(name, 0) + 1
            self.seconds[kind] = self.seconds.get(kind, 0.0) + now - begun
        self.jobs.sort(key=lambda job: job[0])

    def tell(self, now: float) -> None:
        """Write a heartbeat."""
        types: dict[str, Any] = {
            kind: {"ended": dict(ended), "seconds": self.seconds[kind]} for kind, ended in self.ended.items()
        }
        for begun, kind, _ in self.jobs:
            running = types.setdefault(kind, {})
            ages = running.setdefault("running", {})
            name = NAMES[bisect_left(ATTEMPT_SECONDS.buckets, now - begun)]
            ages[name] = ages.get(name, 0) + 1
            running["age"] = running.get("age", 0.0) + now - begun
        draining = now < self.asked_until
        self.told = Told(self.number, self.ready_at, now, self.slots, draining, {"default": {"types": types}})
        self.told_at, self.busy_told = now, len(self.jobs)


class World:
    """One pool. `start`: seconds that a pod takes to start."""

    def __init__(self, policy: Policy, *, start: float = 3.0, lanes: int | None = None) -> None:
        self.policy, self.start, self.lanes = policy, start, lanes or policy.slots
        self.now = 0.0
        self.waiting: deque[tuple[float, Job]] = deque()
        self.pods: list[SimulatedPod] = []
        self.ordered = self.serving = 0
        self.history, self.pace = History(), Pace()
        self.arrived: deque[tuple[float, int]] = deque([(0.0, 0)])
        self.counts: list[int] = []
        """Pods ordered, after each step."""
        self.interrupted = 0
        self.worst_wait = 0.0
        self._number = 0
        self._next_look = 0.0
        self._fresh = 0
        self._due: dict[str, float] = {}

    def run(self, seconds: float, streams: Iterable[tuple[float, str, float]] = ()) -> None:
        """Let time pass while jobs arrive: (jobs a second, type, seconds each), evenly spaced."""
        streams = list(streams)
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            jobs = []
            for rate, kind, length in streams:
                self._due[kind] = self._due.get(kind, 0.0) + rate * STEP
                jobs += [(kind, length)] * int(self._due[kind] + 1e-9)
                self._due[kind] -= int(self._due[kind] + 1e-9)
            self.step(jobs)

    def step(self, jobs: Iterable[Job] = ()) -> None:
        """One step, in which these jobs arrive."""
        jobs = list(jobs)
        self.waiting.extend((self.now, job) for job in jobs)
        for pod in self.pods:
            pod.advance(self.now)
        self._fetch()
        for pod in self.pods:
            if pod.ready(self.now) and (pod.told is None or self.now - pod.told_at >= HEARTBEAT):
                pod.tell(self.now)
        self._fresh += len(jobs)
        if self.now >= self._next_look or (self._fresh and self.now >= self._next_look - LOOK + BREATH):
            self._look(self._fresh)
            self._fresh = 0
        self.counts.append(self.ordered)

    def _fetch(self) -> None:
        able = [pod for pod in self.pods if pod.ready(self.now) and self.now >= pod.asked_until]
        while self.waiting and (free := [pod for pod in able if len(pod.jobs) < pod.slots]):
            arrived, (kind, length) = self.waiting.popleft()
            self.worst_wait = max(self.worst_wait, self.now - arrived)
            min(free, key=lambda pod: len(pod.jobs)).jobs.append((self.now, kind, length))

    def _look(self, arrived: int) -> None:
        """What the operator does: at once when jobs arrive, else every two seconds."""
        self.arrived.append((self.now, self.arrived[-1][1] + arrived))
        while len(self.arrived) > 2 and self.arrived[1][0] < self.now - 20.0:
            self.arrived.popleft()
        self._next_look = self.now + LOOK
        told = [pod.told for pod in self.pods if pod.told is not None]
        oldest = self.now - self.waiting[0][0] if self.waiting else 0.0
        self.pace.learn(self.now, told, {"default": oldest} if self.waiting else {})
        load = Load(
            len(self.waiting),
            sum(len(pod.jobs) for pod in self.pods),
            oldest,
            arrival_rate(self.arrived),
            self.pace.rate(self.policy.slots, {"default": float(len(self.waiting))}),
            sum(pod.ready(self.now) and self.now >= pod.asked_until for pod in self.pods),
        )
        decision = decide(self.now, self.serving, load, self.policy, self.history)
        self.history, self.serving = decision.history, decision.replicas
        self._order(plan([self._seen(pod) for pod in self.pods], self.ordered, self.serving))

    def _seen(self, pod: SimulatedPod) -> Pod:
        workers: tuple[Worker, ...] = ()
        if pod.told is not None:
            asked_for = self.now - pod.asked_at if pod.asked_at is not None else 0.0
            asked = max(0.0, pod.asked_until - self.now)
            workers = (Worker(pod.number, pod.busy_told, pod.told.draining, asked, asked_for),)
        return Pod(str(pod.number), workers, pending=not pod.ready(self.now), ready=pod.ready(self.now), cost=pod.cost)

    def _order(self, made: Plan) -> None:
        """Do what was planned, as the workers and the ReplicaSet controller do."""
        for pod in self.pods:
            if pod.number in made.ask:
                pod.asked_until, pod.asked_at = self.now + DRAIN_SECONDS, pod.asked_at or self.now
            if pod.number in made.release:
                pod.asked_until, pod.asked_at = 0.0, None
            pod.cost = made.costs.get(str(pod.number), pod.cost)
        self.ordered = made.replicas
        while len(self.pods) > self.ordered:
            gone = min(self.pods, key=lambda pod: (pod.ready(self.now), pod.cost, -pod.number))
            self.interrupted += len(gone.jobs)
            self.pods.remove(gone)
        while len(self.pods) < self.ordered:
            self._number += 1
            self.pods.append(SimulatedPod(self._number, self.now + self.start, self.policy.slots, self.lanes))

    def grow(self, pods: int) -> None:
        """Begin with this many pods, ready and idle, and nothing to do."""
        self.serving = pods
        self._order(replace(plan([], 0, pods), replicas=pods))
        for pod in self.pods:
            pod.ready_at = self.now
