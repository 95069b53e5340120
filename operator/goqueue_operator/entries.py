"""GoQueueJobs as the operator remembers them: what it needs of each, and no more, for there may be thousands."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from goqueue import tracecontext
from goqueue_operator import jobstatus
from goqueue_operator.conditions import moment
from goqueue_operator.jobstatus import Refusal, Status
from goqueue_operator.rows import Owner, Relation, Row, key_of, relation
from goqueue_operator.tokens import token_of

TRACEPARENT: Final = "goqueue.io/traceparent"
"""Annotation of a GoQueueJob: W3C's header of that name, of what made it (a pipeline, say)."""

RETRY: Final = "goqueue.io/retry"
"""Annotation of a GoQueueJob: each new value gives a failed or cancelled job all of its attempts again."""


@dataclass(slots=True)
class Entry:
    """One GoQueueJob."""

    uid: str
    namespace: str
    name: str
    generation: int
    created: datetime
    spec: dict[str, Any] | None
    """None once nothing of it is needed any more."""
    suspend: bool
    ttl: int | None
    """Seconds after the end at which the resource is deleted."""
    trace_context: str | None
    """The trace to which whoever made the resource said it belongs, by the annotation."""
    status: Status
    """As it was written last, without the result."""
    version: int = 0
    """The resource's version when its status was read or written last."""
    final: bool = False
    row_id: int | None = None
    row: Row | None = None
    seen: datetime | None = None
    """`updated_at` of the row when it was read; None: read it again."""
    refusal: Refusal | None = None
    lost: bool = False
    """The row is gone."""
    tries: int = 0
    """How often it could not be accepted for a passing reason."""
    writing: bool = False
    """Its status is being written."""
    write_again: bool = False
    """It changed meanwhile."""
    unique_key: str | None = None
    installation: str = ""
    priority: int = 0
    retry: str | None = None
    """The token by which the annotation asks for another round of attempts."""
    retried: str | None = None
    """The token that was obeyed, or refused, last."""

    @property
    def key(self) -> str:
        """The `source_key` of its row."""
        return key_of(self.uid, self.namespace, self.installation)

    @property
    def keys(self) -> set[str]:
        """All `source_key`s that its row may have: this installation's, that of earlier versions, and that which was
        read last."""
        known = {self.key, key_of(self.uid, self.namespace)}
        if self.row is not None and self.row.source_key and self.relation(self.row) is Relation.OWN:
            known.add(self.row.source_key)
        return known

    def relation(self, row: Row) -> Relation:
        """What a row is to it."""
        return self.relation_to(row.source_key, row.unique_key)

    def relation_to(self, source_key: str | None, unique_key: str | None) -> Relation:
        """What the row with these keys is to it."""
        owner = Owner(self.uid, self.namespace, self.installation)
        return relation(source_key, unique_key, owner, self.unique_key)

    def open_at(self) -> datetime:
        """The latest moment at which its job is known not to have ended."""
        known = [self.created, moment((self.spec or {}).get("availableAt"))]
        known += [moment(item.get("lastTransitionTime")) for item in self.status.get("conditions") or ()]
        return max(at for at in known if at is not None)

    def wanted(self, now: datetime) -> Status | None:
        """The status it should have; None where nothing is known yet."""
        status = self._wanted(now)
        if status is not None and self.retried is not None:
            status["retry"] = self.retried
        return status

    def _wanted(self, now: datetime) -> Status | None:
        if self.row_id is not None and self.lost:
            return jobstatus.lost(self.status, self.row_id, self.generation, now)
        if self.row is not None:
            return jobstatus.follow(self.status, self.row, self.relation(self.row), self.generation, now)
        if self.refusal is not None:
            return jobstatus.refused(self.status, self.refusal, self.generation, now)
        return None


def parsed(resource: dict[str, Any], installation: str = "") -> Entry:
    """An entry for a resource seen for the first time, by the operator of an installation."""
    metadata, spec, status = resource["metadata"], resource.get("spec") or {}, dict(resource.get("status") or {})
    final = jobstatus.final(status)
    status.pop("result", None)
    return Entry(
        metadata["uid"],
        metadata["namespace"],
        metadata["name"],
        metadata.get("generation", 1),
        datetime.fromisoformat(metadata["creationTimestamp"]),
        None if final else spec,
        bool(spec.get("suspend")),
        spec.get("ttlSecondsAfterFinished"),
        _came_with(metadata.get("annotations") or {}),
        status,
        int(metadata.get("resourceVersion", 0)),
        final,
        status.get("jobID"),
        unique_key=spec.get("uniqueKey"),
        installation=installation,
        priority=spec.get("priority") or 0,
        retry=token_of(resource, RETRY),
        retried=status.get("retry"),
    )


def _came_with(annotations: dict[str, str]) -> str | None:
    found = tracecontext.from_headers(annotations.get(TRACEPARENT, ""))
    return found.stored() if found is not None else None


@dataclass(slots=True)
class Entries:
    """All of them, by uid, and those that follow a row, by the row's id (two may follow one, by their uniqueKey)."""

    by_uid: dict[str, Entry] = field(default_factory=dict)
    followers: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self.by_uid.values()))

    def __len__(self) -> int:
        return len(self.by_uid)

    def get(self, uid: str) -> Entry | None:
        """The entry, or None."""
        return self.by_uid.get(uid)

    def follow(self, entry: Entry, row_id: int) -> None:
        """From now on the row's state is the entry's state."""
        entry.row_id, entry.seen, entry.refusal, entry.lost = row_id, None, None, False
        self.followers[row_id].add(entry.uid)

    def unfollow(self, entry: Entry) -> None:
        """Read its row no more."""
        if entry.row_id is not None and entry.row_id in self.followers:
            self.followers[entry.row_id].discard(entry.uid)
            if not self.followers[entry.row_id]:
                del self.followers[entry.row_id]

    def remove(self, uid: str) -> Entry | None:
        """Forget the resource."""
        entry = self.by_uid.pop(uid, None)
        if entry is not None:
            self.unfollow(entry)
        return entry

    def of_row(self, row_id: int) -> list[Entry]:
        """Those that follow a row."""
        return [self.by_uid[uid] for uid in self.followers.get(row_id, ()) if uid in self.by_uid]

    def followed(self) -> list[tuple[int, datetime | None]]:
        """(row id, last seen) of every row that is followed."""
        known = []
        for row_id in list(self.followers):
            seen = [entry.seen for entry in self.of_row(row_id)]
            known.append((row_id, None if None in seen or not seen else min(s for s in seen if s is not None)))
        return known
