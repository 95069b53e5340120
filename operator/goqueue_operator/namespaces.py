"""What each namespace may use: which queues, and as which tenant. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from goqueue.errors import InvalidInput

ANY = "*"


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Grants. Without any, each namespace may use all queues; with some, one that none names may use none."""

    queues: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By namespace; `*` as a namespace: what all may use, as a queue: all queues."""
    tenants: Mapping[str, str] = field(default_factory=dict)
    """Tenant of the jobs of a namespace; those of others are of the default tenant."""

    def allowed(self, namespace: str) -> frozenset[str] | None:
        """The queues that a namespace may use; None: all."""
        if not self.queues:
            return None
        names = self.queues.get(namespace, frozenset()) | self.queues.get(ANY, frozenset())
        return None if ANY in names else names

    def refusal(self, namespace: str, queues: Iterable[str]) -> str | None:
        """Why a namespace may not use all of these queues; None where it may."""
        allowed = self.allowed(namespace)
        beyond = sorted(set(queues) - allowed) if allowed is not None else []
        if not beyond:
            return None
        rest = f"only {', '.join(sorted(allowed))}" if allowed else "none"
        return f"namespace {namespace} may not use {', '.join(beyond)}, {rest} (GOQUEUE_OPERATOR_NAMESPACE_QUEUES)"

    def check(self, namespace: str, queue: str) -> None:
        """See that a namespace may use a queue.

        Raises:
            InvalidInput: `queue not allowed`.
        """
        if (why := self.refusal(namespace, [queue])) is not None:
            raise InvalidInput("queue not allowed", {"queue": why})

    def tenant(self, namespace: str) -> str | None:
        """The tenant of a namespace's jobs; None: the default one."""
        return self.tenants.get(namespace, self.tenants.get(ANY))


def granted(queues: Iterable[str], tenants: Iterable[str]) -> Namespaces:
    """The grants of the settings: `NAMESPACE/QUEUE` and `NAMESPACE=TENANT`."""
    by_namespace: dict[str, set[str]] = {}
    for item in queues:
        namespace, _, queue = item.partition("/")
        by_namespace.setdefault(namespace, set()).add(queue)
    named = {namespace: frozenset(names) for namespace, names in by_namespace.items()}
    return Namespaces(named, dict(item.split("=", 1) for item in tenants))
