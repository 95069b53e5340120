"""GoQueue: background jobs for teams on Kubernetes. This package is the engine: no HTTP, no Kubernetes."""

from goqueue.errors import GoQueueError, NeverRetry, RetryIn, Snooze
from goqueue.registry import REGISTRY, JobContext, JobType, job_type
from goqueue.retry import RetryPolicy

__all__ = [
    "REGISTRY",
    "GoQueueError",
    "JobContext",
    "JobType",
    "NeverRetry",
    "RetryIn",
    "RetryPolicy",
    "Snooze",
    "job_type",
]
