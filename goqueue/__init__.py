"""GoQueue: background jobs for teams on Kubernetes. This package is the engine: no HTTP, no Kubernetes."""

import importlib
from typing import TYPE_CHECKING, Any

from goqueue.errors import (
    Conflict,
    GoQueueError,
    InvalidInput,
    NeverRetry,
    NotFound,
    RetryIn,
    Snooze,
    StoreUnavailable,
)
from goqueue.registry import REGISTRY, JobContext, JobType, job_type
from goqueue.retry import RetryPolicy

if TYPE_CHECKING:
    from goqueue.blocking import Client
    from goqueue.client import AsyncClient
    from goqueue.transaction import enqueue_in, enqueue_in_async

__all__ = [
    "REGISTRY",
    "AsyncClient",
    "Client",
    "Conflict",
    "GoQueueError",
    "InvalidInput",
    "JobContext",
    "JobType",
    "NeverRetry",
    "NotFound",
    "RetryIn",
    "RetryPolicy",
    "Snooze",
    "StoreUnavailable",
    "enqueue_in",
    "enqueue_in_async",
    "job_type",
]

_LATE = {
    "AsyncClient": "goqueue.client",
    "Client": "goqueue.blocking",
    "enqueue_in": "goqueue.transaction",
    "enqueue_in_async": "goqueue.transaction",
}


def __getattr__(name: str) -> Any:
    """The clients, once they are asked for: a module that defines job types needs no database driver."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)
