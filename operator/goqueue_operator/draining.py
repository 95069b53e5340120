"""Which pods of a pool are to go, so that no running job is interrupted. Pure.

Pods that are not needed are asked to drain: their workers fetch no more jobs and finish what they run. A pod is removed
once its worker has said that it drains and runs nothing; then nothing can begin in it any more. If the load rises
before, drained workers are released first.

Which pods a ReplicaSet removes is its own decision (`ActivePodsWithRanks` in kubernetes/pkg/controller): those that are
on no node, pending, not ready, then those of the lowest deletion cost. So the number is only lowered by as many as
lead this order and may go.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

DRAIN_SECONDS: Final = 30.0
"""For how long a request to drain holds. It is renewed; without an operator the workers fetch again after it."""

RENEW_SECONDS: Final = 20.0
"""A request that holds for less than this is renewed."""

SURE_SECONDS: Final = 5.0
"""A worker whose request holds for less than this may be about to fetch again."""

DEAF_SECONDS: Final = 30.0
"""Seconds after which an idle worker that does not say that it drains is removed: one of an earlier version."""

FORCED_SECONDS: Final = 300.0
"""How long pods may drain that go because of `spec.replicas` or `maxReplicas`; then they go with what they run."""

REMOVABLE_COST: Final = -1
"""Deletion cost of pods that may go. That of others is the number of their busy slots."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker in a pod. `asked`: seconds for which the request to drain still holds; `for_seconds`: how long ago the
    first one was made."""

    id: int
    busy: int
    draining: bool = False
    asked: float = 0.0
    for_seconds: float = 0.0

    @property
    def drained(self) -> bool:
        """Whether it runs nothing and begins nothing any more."""
        if self.busy or self.asked < SURE_SECONDS:
            return False
        return self.draining or self.for_seconds > DEAF_SECONDS


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, as the ReplicaSet controller and the stores see it."""

    name: str
    workers: tuple[Worker, ...] = ()
    assigned: bool = True
    pending: bool = False
    ready: bool = True
    cost: int = 0
    """Its deletion cost now."""
    revision: str = ""
    """Of the template; pods of one revision belong to one ReplicaSet."""

    @property
    def busy(self) -> int:
        """Jobs that it runs."""
        return sum(worker.busy for worker in self.workers)

    @property
    def asked(self) -> bool:
        """Whether it is asked to drain."""
        return any(worker.asked > 0 for worker in self.workers)

    @property
    def drained(self) -> bool:
        """Whether nothing runs or begins in it: it has no worker yet, or one that is drained."""
        return all(worker.drained for worker in self.workers)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: `replicas` is the number to order now."""

    replicas: int
    drain: frozenset[int] = frozenset()
    """Workers that are to drain."""
    ask: frozenset[int] = frozenset()
    """Those of them whose request is to be made or renewed now."""
    release: frozenset[int] = frozenset()
    """Workers that are to fetch again."""
    costs: dict[str, int] = field(default_factory=dict)
    """Deletion costs that are to be changed, by pod."""
    leaving: int = 0
    """Pods that drain."""


def plan(pods: Sequence[Pod], ordered: int, serving: int, *, forced: bool = False) -> Plan:
    """How to come from `ordered` pods to `serving`.

    Args:
        pods: Those that are not being deleted.
        ordered: Replicas of the Deployment.
        serving: Replicas that shall take jobs.
        forced: Pods that are not needed go although they are busy.
    """
    excess = max(0, ordered - serving)
    missing = max(0, ordered - len(pods))
    leaving = sorted(pods, key=_first_to_leave)[: max(0, excess - missing)]
    names = {pod.name for pod in leaving}
    may_go = {pod.name for pod in leaving if forced or pod.drained}
    drain = {worker.id: worker for pod in leaving for worker in pod.workers}
    costs = {pod.name: REMOVABLE_COST if pod.name in may_go else pod.busy for pod in pods}
    # Pods beyond the order are taken first: a former order that is not carried out yet, or a rollout.
    surplus = max(0, len(pods) - ordered)
    going = min(excess, missing + max(0, _leading(pods, may_go) - surplus))
    return Plan(
        max(serving, ordered - going),
        frozenset(drain),
        frozenset(id for id, worker in drain.items() if worker.asked < RENEW_SECONDS),
        frozenset(worker.id for pod in pods if pod.name not in names for worker in pod.workers if worker.asked > 0),
        {pod.name: costs[pod.name] for pod in pods if excess and costs[pod.name] != pod.cost},
        sum(bool(pod.workers) for pod in leaving),
    )


def _first_to_leave(pod: Pod) -> tuple[bool | int | str, ...]:
    """What has not begun to work, then what drains already, then what runs the fewest jobs."""
    idle_first = pod.ready or pod.busy > 0
    return bool(pod.workers), pod.assigned, not pod.pending, idle_first, not pod.asked, pod.busy, pod.name


def _leading(pods: Sequence[Pod], may_go: Collection[str]) -> int:
    """How many pods would surely be taken from `may_go`, whichever ReplicaSet has to give them."""
    counts = []
    for revision in {pod.revision for pod in pods}:
        mine = [pod for pod in pods if pod.revision == revision]
        # By the costs that Kubernetes knows; where two are alike it goes by what is not known here.
        mine.sort(key=lambda pod: (pod.assigned, not pod.pending, pod.ready, pod.cost, pod.name in may_go))
        first = next((place for place, pod in enumerate(mine) if pod.name not in may_go), None)
        if first is not None:
            counts.append(first)
    return min(counts, default=len(pods))
