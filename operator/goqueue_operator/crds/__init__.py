"""The custom resource definitions, each from one source: schemas here, bounds and payloads from the engine."""

from collections.abc import Iterable

from goqueue.registry import JobType
from goqueue_operator.crds import policy
from goqueue_operator.crds.job import JOB
from goqueue_operator.crds.pool import POOL
from goqueue_operator.crds.schedule import SCHEDULE
from goqueue_operator.crds.schema import Schema


def files(types: Iterable[JobType]) -> dict[str, Schema]:
    """Name → content of the files that make the kinds known to Kubernetes; `types`: whose payloads are checked."""
    return {
        "goqueuejobs.yaml": JOB,
        "goqueueschedules.yaml": SCHEDULE,
        "goqueueworkerpools.yaml": POOL,
        "payloads-policy.yaml": policy.policy(types),
        "payloads-policybinding.yaml": policy.binding(),
    }
