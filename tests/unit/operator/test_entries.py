"""What is kept of a GoQueueJob: its spec until its row is made, and little once it has ended."""

import uuid
from typing import Any

import orjson

from goqueue_operator import entries as module
from goqueue_operator.entries import Entries, parsed

CONDITION = {"status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def resource(payload: Any = None, **status: Any) -> dict[str, Any]:
    """A GoQueueJob."""
    return {
        "metadata": {
            "uid": str(uuid.uuid4()),
            "namespace": "shop",
            "name": "one",
            "generation": 1,
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"queue": "default", "payload": payload or {}, "availableAt": "2099-01-01T00:00:00Z", "suspend": True},
        "status": status,
    }


def added(entries: Entries, found: dict[str, Any]) -> module.Entry:
    entry = parsed(found)
    entries.add(entry)
    return entry


def test_the_spec_goes_with_the_row_and_what_is_needed_of_it_stays() -> None:
    entries = Entries()
    entry = added(entries, resource({"text": "x" * 100_000}))
    assert entry.spec is not None
    assert orjson.loads(entry.spec)["payload"]["text"]
    assert entries.spec_bytes == len(entry.spec) > 100_000
    entries.follow(entry, 5)
    assert entries.spec_bytes == 0
    assert getattr(entry, "spec") is None  # noqa: B009 - mypy takes it for what it was before
    assert entry.suspend
    assert entry.available_at is not None
    assert entry.available_at.year == 2099


def test_a_resource_that_has_its_row_already_keeps_no_spec() -> None:
    entries = Entries()
    assert added(entries, resource({"text": "x"}, jobID=5)).spec is None
    assert entries.spec_bytes == 0


def test_no_more_specs_are_kept_than_there_is_room_for_however_many_come() -> None:
    entries = Entries()
    kept = [added(entries, resource({"text": "x" * 2**20})).spec is not None for _ in range(40)]
    assert entries.spec_bytes <= module.SPEC_BYTES
    assert kept == [True] * sum(kept) + [False] * (40 - sum(kept))
    assert 10 < sum(kept) < 20
    for entry in entries:
        entries.remove(entry.uid)
    assert entries.spec_bytes == 0


def test_of_an_ended_job_remains_what_its_deletion_and_a_retry_need() -> None:
    entries = Entries()
    status = {
        "state": "completed",
        "jobID": 5,
        "finishedAt": "2026-01-01T00:00:00Z",
        "result": {"a": 1},
        "conditions": [CONDITION | {"type": "Succeeded"}],
        "traceID": "1" * 32,
    }
    entry = added(entries, resource({"text": "x"}, **status))
    assert entry.status == {"state": "completed", "jobID": 5, "finishedAt": "2026-01-01T00:00:00Z"}
    assert (entry.final, entry.spec, entries.ended) == (True, None, 1)
    entries.reopen(entry, 5, status)
    assert entries.ended == 0
    assert entry.status["conditions"]  # the times of their transitions go on
    assert "result" not in entry.status
    assert entries.of_row(5) == [entry]
    entries.end(entry)
    assert (entries.ended, entries.of_row(5)) == (1, [])
    entries.remove(entry.uid)
    assert entries.ended == 0
