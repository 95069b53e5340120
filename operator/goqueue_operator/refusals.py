"""From what went wrong while a job was made to what its resource says. Pure."""

from typing import Final

from goqueue.errors import Conflict, GoQueueError, StoreUnavailable
from goqueue_operator.jobstatus import Refusal
from goqueue_operator.kube import KubeError, KubeUnavailable
from goqueue_operator.payloads import NoPayload

FAILURES: Final = (GoQueueError, NoPayload, KubeError, KubeUnavailable)
"""What making a job of a resource may raise."""


def refusal_of(error: Exception) -> Refusal:
    """Why there is no job; `final` where another try cannot help unless the resource or the operator changes."""
    match error:
        case NoPayload():
            return error.refusal
        case KubeUnavailable() | KubeError():
            return Refusal("PayloadNotReadable", str(error))
        case StoreUnavailable():
            return Refusal("StoreUnavailable", f"{error.message}; it is tried again")
        case Conflict():
            return Refusal("UniqueKeyContended", f"{error.message}; it is tried again")
        case GoQueueError():
            details = "; ".join(f"{name}: {what}" for name, what in error.fields.items())
            named = error.message.partition(":")[0]  # what follows differs from one object to the next
            words = [word.capitalize() for word in named.split()[:3] if word.isalpha()]
            message = f"{error.message}: {details}" if details else error.message
            return Refusal("".join(words) or "Invalid", message, final=True)
    raise error
