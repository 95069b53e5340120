"""GoQueueJobs as the operator remembers them: what it needs of each, and no more, for there may be thousands.

A spec is kept, as JSON, until the job's row is made; beyond SPEC_BYTES for all of them it is read again when it is
needed. Of an ended job remains what its deletion and a retry by hand need (docs/decisions/0021-memory.md).
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

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


SPEC_BYTES: Final = 16 * 2**20
"""Most bytes of JSON kept of the specs of all jobs that have no row yet."""

DECLARED: Final = ("argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/", "meta.helm.sh/")
"""Prefixes of the annotations and labels by which Argo CD, Flux and Helm mark what they keep in sync."""

KEPT_OF_ENDED: Final = ("state", "jobID", "finishedAt", "observedGeneration", "retry")
"""Fields of the status of an ended job that are needed later."""


@dataclass(slots=True)
class Entry:
    """One GoQueueJob."""

    uid: str
    namespace: str
    name: str
    generation: int
    created: datetime
    spec: bytes | None
    """As JSON; None where it is not needed any more, or not kept: the resource has it."""
    spec_size: int
    """Bytes of the spec as JSON, kept or not."""
    available_at: datetime | None
    suspend: bool
    ttl: int | None
    """Seconds after the end at which the resource is deleted."""
    trace_context: str | None
    """The trace to which whoever made the resource said it belongs, by the annotation."""
    status: Status
    """As it was written last, without the result."""
    version: int = 0
    """The newest version of the resource that was read or written."""
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
    declared: bool = False
    """A tool that keeps it in sync has marked it: deleted, it would be made again and its job run once more."""
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
        known = [self.created, self.available_at]
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
    needed = not final and status.get("jobID") is None and "spec" in resource  # one that is unreadable has none
    text = _as_json(spec) if needed else None
    return Entry(
        metadata["uid"],
        sys.intern(metadata["namespace"]),
        metadata["name"],
        metadata.get("generation", 1),
        datetime.fromisoformat(metadata["creationTimestamp"]),
        text or None,
        len(text or b""),
        moment(spec.get("availableAt")),
        bool(spec.get("suspend")),
        spec.get("ttlSecondsAfterFinished"),
        None if final else _came_with(metadata.get("annotations") or {}),
        status,
        int(metadata.get("resourceVersion", 0)),
        final,
        status.get("jobID"),
        unique_key=spec.get("uniqueKey"),
        installation=installation,
        priority=spec.get("priority") or 0,
        declared=_declared(metadata),
        retry=token_of(resource, RETRY),
        retried=status.get("retry"),
    )


def _declared(metadata: dict[str, Any]) -> bool:
    marks = (metadata.get("annotations") or {}).keys() | (metadata.get("labels") or {}).keys()
    return any(mark.startswith(DECLARED) for mark in marks)


def _as_json(spec: dict[str, Any]) -> bytes:
    """The spec as JSON; empty where it cannot be written (nested too deeply, say), so that it is read again."""
    try:
        return orjson.dumps(spec)
    except TypeError:
        return b""


def _came_with(annotations: dict[str, str]) -> str | None:
    found = tracecontext.from_headers(annotations.get(TRACEPARENT, ""))
    return found.stored() if found is not None else None


def _compact(entry: Entry) -> None:
    entry.status = {name: entry.status[name] for name in KEPT_OF_ENDED if name in entry.status}
    entry.row, entry.refusal, entry.trace_context, entry.available_at = None, None, None, None


@dataclass(slots=True)
class Entries:
    """All of them, by uid, and those that follow a row, by the row's id (two may follow one, by their uniqueKey)."""

    by_uid: dict[str, Entry] = field(default_factory=dict)
    followers: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    ended: int = 0
    """How many of them have ended."""
    spec_bytes: int = 0
    """Bytes of the specs that are kept."""

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self.by_uid.values()))

    def __len__(self) -> int:
        return len(self.by_uid)

    def get(self, uid: str) -> Entry | None:
        """The entry, or None."""
        return self.by_uid.get(uid)

    def add(self, entry: Entry) -> None:
        """Remember a resource; its spec only where there is room for it."""
        self.by_uid[entry.uid] = entry
        if entry.spec is not None and self.spec_bytes + len(entry.spec) > SPEC_BYTES:
            entry.spec = None
        self.spec_bytes += len(entry.spec or b"")
        if entry.final:
            self.ended += 1
            _compact(entry)

    def drop_spec(self, entry: Entry) -> None:
        """Nobody needs its spec for now."""
        self.spec_bytes -= len(entry.spec or b"")
        entry.spec = None

    def end(self, entry: Entry) -> None:
        """Its job has ended: keep little of it, and read its row no more."""
        if not entry.final:
            entry.final = True
            self.ended += 1
        self.drop_spec(entry)
        self.unfollow(entry)
        _compact(entry)

    def reopen(self, entry: Entry, row_id: int, status: Status) -> None:
        """Its job goes on; `status` is the whole one that the resource has."""
        if entry.final:
            entry.final = False
            self.ended -= 1
        entry.status = {name: value for name, value in status.items() if name != "result"}
        self.follow(entry, row_id)

    def follow(self, entry: Entry, row_id: int) -> None:
        """From now on the row's state is the entry's state."""
        self.drop_spec(entry)
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
            self.ended -= entry.final
            self.drop_spec(entry)
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
