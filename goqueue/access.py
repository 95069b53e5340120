"""Who may do what: scopes, the jobs that somebody may reach, and who is written down for an act. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

TENANT: Final = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")
"""A tenant's name: fits a Kubernetes label, and holds no character that separates it from a key or a name."""


class Scope(StrEnum):
    """What a caller may do."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    QUEUES_MANAGE = "queues:manage"
    SCHEDULES_MANAGE = "schedules:manage"
    KEYS_MANAGE = "keys:manage"


ALL_SCOPES: Final = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Reach:
    """The jobs of one tenant (None: the default tenant), in these queues and of these types (None: in all).

    A job never changes its tenant, queue or type: what is within reach once is so for good.
    """

    tenant: str | None = None
    queues: frozenset[str] | None = None
    types: frozenset[str] | None = None

    def covers(self, tenant: str | None, queue: str, type: str) -> bool:
        """Whether such a job is within reach."""
        return (
            tenant == self.tenant
            and (self.queues is None or queue in self.queues)
            and (self.types is None or type in self.types)
        )

    def includes(self, other: "Reach") -> bool:
        """Whether all that the other one reaches is within this one's reach, too."""
        return (
            other.tenant == self.tenant
            and (self.queues is None or (other.queues is not None and other.queues <= self.queues))
            and (self.types is None or (other.types is not None and other.types <= self.types))
        )


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, for the audit log. `reach` None: everything, as on the console of the database's owner."""

    id: str
    reach: Reach | None = None
    address: str | None = None
    request_id: str | None = None
