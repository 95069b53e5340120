"""One GoQueueWorkerPool, and what the operator knows of its Deployment and pods."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from goqueue.pace import Pace
from goqueue.scaling import History, Policy
from goqueue.store.dispatch import WorkerRow
from goqueue_operator import deployment
from goqueue_operator.kube import Object
from goqueue_operator.revisions import Settings


@dataclass(slots=True)
class Pool:
    """One GoQueueWorkerPool and what is known of its Deployment and pods."""

    resource: Object
    status: Object
    found: Object | None = None
    """Its Deployment, as it was seen or written last."""
    pods: list[Object] = field(default_factory=list)
    generation: int | None = None
    """Of the Deployment, after our own last write; any other one is drift."""
    built: Object | None = None
    """What we wrote."""
    settings: Settings = field(default_factory=Settings)
    """What the ConfigMaps and Secrets of its environment hold."""
    settings_at: float = -math.inf
    """When they were read (`time.monotonic()`)."""
    replicas: int | None = None
    """Pods that we ordered last."""
    serving: int | None = None
    """Those of them that shall take jobs, as we decided last; the others drain."""
    leaving: int = 0
    """Pods that drain."""
    asked: dict[int, float] = field(default_factory=dict)
    """Workers that were asked to drain, by id, and since when (`time.monotonic()`)."""
    forced_since: float | None = None
    """Since when there are more pods than `replicas` or `maxReplicas` of the spec."""
    priced: bool = False
    """Whether deletion costs have just changed."""
    history: History = field(default_factory=History)
    pace: Pace = field(default_factory=Pace)
    refused: str = ""
    """Why its Deployment is not as declared."""
    refusal: str = ""
    """The same in one word."""
    told: str = ""
    """The refusal that an event was left for."""
    warned: str = ""
    """What the API server warned of when its Deployment was written last."""
    failures: int = 0
    """Tries in a row that were refused."""
    retry_at: float = 0.0
    """When a refused Deployment is tried again (`time.monotonic()`)."""
    written_at: float = 0.0
    told_replicas: int | None = None
    """The number of pods that the last event told, or at first the one that was found."""
    told_replicas_at: float = -math.inf
    scaled_at: str | None = None

    @property
    def uid(self) -> str:
        """The resource's uid."""
        return str(self.resource["metadata"]["uid"])

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name, of the pool and of its Deployment."""
        metadata = self.resource["metadata"]
        return metadata["namespace"], metadata["name"]

    def wake(self) -> None:
        """Try again at once what was refused."""
        self.failures, self.retry_at = 0, 0.0

    @property
    def current(self) -> int:
        """How many pods its Deployment should have."""
        if self.replicas is not None:
            return self.replicas
        return int((self.found or {}).get("spec", {}).get("replicas") or 0)

    def own(self, workers: Sequence[WorkerRow] | None) -> list[WorkerRow] | None:
        """Those of the workers that run in its pods; a worker is called `<pod>-<process id>`."""
        if workers is None:
            return None
        names = {hostname(pod) for pod in self.pods}
        return [worker for worker in workers if worker.name.rpartition("-")[0] in names]


def hostname(pod: Object) -> str:
    """What a pod's processes call their host: the kubelet cuts long names."""
    return str(pod["metadata"]["name"])[:63].rstrip("-.")


def policy(pool: Object) -> Policy:
    """What the pool wants, as the mathematics takes it."""
    spec = pool["spec"]
    scaling = spec.get("scaling") or {}
    return Policy(
        minimum=spec.get("minReplicas", 0),
        maximum=spec.get("maxReplicas", 10),
        slots=deployment.slots(pool),
        jobs_per_replica=scaling.get("jobsPerReplica"),
        target=float(scaling.get("targetWaitSeconds", 10)),
        window=float(scaling.get("scaleDownWindowSeconds", 60)),
        up=scaling.get("scaleUpPods"),
        down=scaling.get("scaleDownPods"),
        pinned=spec.get("replicas"),
    )
