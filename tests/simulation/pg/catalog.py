"""The tables of the engine as the simulation has them; a test compares them with those that the migrations make."""

from collections.abc import Callable
from typing import Any, Final

from tests.simulation.pg.storage import Storage, Table, Transaction, Unique
from tests.simulation.pg.syntax import Row
from tests.simulation.pg.values import Jsonb

_FINAL: Final = ("completed", "failed", "cancelled")


def _value(value: Any) -> Callable[[Storage, Transaction], Any]:
    return lambda storage, transaction: value


def _now(_storage: Storage, transaction: Transaction) -> Any:
    return transaction.now


def _drawn(sequence: str) -> Callable[[Storage, Transaction], Any]:
    return lambda storage, transaction: storage.draw(sequence)


def _finished_if_final(row: Row) -> bool:
    return (row["finished_at"] is not None) == (row["status"] in _FINAL)


_NULL: Final = _value(None)

JOBS: Final = {
    "id": _drawn("jobs_id_seq"),
    "queue": _NULL,
    "type": _NULL,
    "payload": _NULL,
    "status": _value("pending"),
    "attempts": _value(0),
    "max_retries": _value(5),
    "result": _NULL,
    "error": _NULL,
    "created_at": _now,
    "updated_at": _now,
    "deleted_at": _NULL,
    "priority": _value(0),
    "available_at": _now,
    "lease": _value(0),
    "worker_id": _NULL,
    "timeout": _NULL,
    "started_at": _NULL,
    "finished_at": _NULL,
    "failed_at": _NULL,
    "dispatch_at": _NULL,
    "cancel_requested_at": _NULL,
    "progress": _NULL,
    "unique_key": _NULL,
    "active_key": _NULL,
    "source": _value("api"),
    "source_key": _NULL,
    "trace_context": _NULL,
    "tenant": _NULL,
    "round": _NULL,
    "deaths": _NULL,
}

WORKERS: Final = {
    "id": _drawn("workers_id_seq"),
    "name": _NULL,
    "queues": _NULL,
    "concurrency": _NULL,
    "busy": _value(0),
    "beat": _value(0),
    "draining": _value(False),
    "stats": _value(Jsonb({})),
    "started_at": _now,
    "heartbeat_at": _now,
    "drain_until": _NULL,
}

ATTEMPTS: Final = {
    "job_id": _NULL,
    "lease": _NULL,
    "attempt": _NULL,
    "outcome": _NULL,
    "error": _NULL,
    "worker": _NULL,
    "started_at": _NULL,
    "finished_at": _now,
    "round": _NULL,
}


def tables() -> list[Table]:
    """The tables, empty but for the dispatch floor."""
    return [
        Table(
            "jobs",
            JOBS,
            [Unique(("id",)), Unique(("active_key",)), Unique(("source_key",))],
            _finished_if_final,
            {"payload": "jsonb", "result": "jsonb"},
        ),
        Table("workers", WORKERS, [Unique(("id",))], kinds={"stats": "jsonb"}),
        Table("job_attempts", ATTEMPTS, [Unique(("job_id", "lease"))]),
        Table("queues", {"name": _NULL, "paused_at": _NULL}, [Unique(("name",))]),
        Table("leaders", {"duty": _NULL, "holder": _NULL, "term": _value(1), "renewed_at": _now}, [Unique(("duty",))]),
        Table("dispatch_floor", {"only_row": _value(True), "id": _value(0)}, [Unique(("only_row",))]),
    ]
