"""What must hold, whatever happens: checked at each commit, at each start of a handler, and at the end.

It looks at the rows and handlers themselves and keeps, beside them, what only an onlooker can know: which job a row
really is (ids repeat after a failover), who claimed it when, what its handler did.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from goqueue.lifecycle import FINAL
from tests.simulation.pg.storage import Change, Storage
from tests.simulation.pg.syntax import Row


class Violation(Exception):
    """An invariant does not hold."""


@dataclass(slots=True)
class Claim:
    """A committed claim of a job."""

    process: str
    lease: int
    commit: int
    worker_id: int | None
    started: bool = False
    lost: bool = False
    """A failover lost it."""


@dataclass(slots=True)
class Run:
    """A run of a handler."""

    number: int
    process: str
    lease: int
    claim: Claim
    attempt: Any
    """The worker's `RunningAttempt`."""
    outcome: str | None = None


class Invariants:
    """The onlooker. `number` is a job's own number, from its payload."""

    def __init__(
        self, storage: Callable[[], Storage], excused: Callable[[Run], bool], fail: Callable[[str], None], forgiven: int
    ) -> None:
        """`excused(run)`: whether its worker is one that others may take for dead; `fail` reports a violation;
        `forgiven`: deaths of workers that are not charged to a job."""
        self._storage = storage
        self._excused = excused
        self._fail = fail
        self._forgiven = forgiven
        self.claims: dict[int, list[Claim]] = defaultdict(list)
        self.runs: dict[int, list[Run]] = defaultdict(list)
        self.failures: Counter[int] = Counter()
        self.rescues: Counter[int] = Counter()
        self.cancelled: dict[int, str] = {}
        """Number → status that the acknowledged cancellation returned."""

    # --- handlers ----------------------------------------------------------------------------------------------------

    def started(self, number: int, process: str, attempt: Any) -> Run:
        """A handler begins."""
        lease = attempt.job.lease
        mine = [one for one in self.claims[number] if one.process == process and one.lease == lease]
        fresh = [one for one in mine if not one.started]
        if not fresh:
            what = "a second time by one claim" if mine else "without a claim"
            self._fail(f"job {number} is run {what} in {process}, lease {lease}")
            raise Violation
        claim = fresh[-1]
        claim.started = True
        run = Run(number, process, lease, claim, attempt)
        for other in self.runs[number]:
            if other.outcome is None and not self._excused(other):
                self._fail(
                    f"job {number} begins in {process} while it runs in {other.process}, "
                    "which is neither fenced nor dead"
                )
        self.runs[number].append(run)
        return run

    def ended(self, run: Run, outcome: str) -> None:
        """A handler ended: `ok`, `failed` or `interrupted`."""
        run.outcome = outcome
        if outcome == "failed":
            self.failures[run.number] += 1

    def acknowledged(self, number: int, status: str) -> None:
        """A cancellation was acknowledged to its caller."""
        row = self._row(number)
        if row is not None and (row["cancel_requested_at"] is not None or row["status"] == "cancelled"):
            self.cancelled[number] = status

    # --- commits -----------------------------------------------------------------------------------------------------

    def committed(self, changes: list[Change]) -> None:
        """Rows changed."""
        for change in changes:
            if change.table == "jobs" and change.after is not None:
                self._changed(change, change.after)
        if any(change.table == "dispatch_floor" for change in changes):
            for row in self._rows():
                self._reachable(row)

    def _changed(self, change: Change, row: Row) -> None:
        number = row["payload"].value["n"]
        was = change.before["status"] if change.before is not None else None
        if was is not None and change.before is not None:
            if was == "pending" and row["status"] == "processing":
                self._claimed(number, change, row)
            elif was == "processing" and row["status"] != "processing":
                self._let_go(number, change, change.before, row)
            elif was in FINAL and row["status"] == "pending":
                self.cancelled.pop(number, None)
        self._reachable(row)
        most = self.failures[number] + max(0, self.rescues[number] - self._forgiven) + (row["status"] != "pending")
        if row["attempts"] > most and row["status"] != "cancelled":
            self._fail(
                f"job {number} is charged {row['attempts']} attempts; it failed {self.failures[number]} times and was "
                f"rescued {self.rescues[number]} times ({' '.join(change.statements)})"
            )

    def _claimed(self, number: int, change: Change, row: Row) -> None:
        self.claims[number].append(Claim(change.client, row["lease"], change.commit, row["worker_id"]))
        if number in self.cancelled:
            self._fail(f"job {number} is claimed by {change.client} after its cancellation was acknowledged")

    def _let_go(self, number: int, change: Change, before: Row, row: Row) -> None:
        claims = self.claims[number]
        holder = claims[-1] if claims else None
        names = change.statements
        if "RESCUE" in names:
            self.rescues[number] += 1
        elif row["status"] == "completed" or any(name.startswith("END_OTHERWISE") for name in names):
            if holder is None or holder.process != change.client:
                who = "nobody" if holder is None else holder.process
                self._fail(f"{change.client} ends job {number} ({row['status']}), which {who} holds")
            elif row["status"] == "completed":
                ran = [run for run in self.runs[number] if run.claim is holder and run.outcome == "ok"]
                if not ran:
                    self._fail(f"job {number} is completed by {change.client}, where its handler did not end well")

    def _reachable(self, row: Row) -> None:
        if row["status"] in FINAL or row["dispatch_at"] is not None:
            return
        floor = self._floor()
        if row["id"] < floor:
            self._fail(f"job id {row['id']} is {row['status']}, below the floor {floor} and without dispatch_at")

    def failed_over(self, last: int) -> None:
        """Commits behind `last` are lost."""
        for claims in self.claims.values():
            for claim in claims:
                claim.lost = claim.lost or claim.commit > last
        for number in list(self.claims):
            self.claims[number].sort(key=lambda claim: not claim.lost)
        for number in list(self.cancelled):
            row = self._row(number)
            if row is None or (row["cancel_requested_at"] is None and row["status"] != "cancelled"):
                del self.cancelled[number]

    # --- the end -----------------------------------------------------------------------------------------------------

    def open_jobs(self) -> list[Row]:
        """Jobs that have not ended."""
        return [row for row in self._rows() if row["status"] not in FINAL]

    def at_the_end(self) -> None:
        """All faults are over, and time enough has passed."""
        for row in self._rows():
            number, status = row["payload"].value["n"], row["status"]
            if status not in FINAL:
                self._fail(
                    f"job {number} (id {row['id']}) is {status} for ever; worker {row['worker_id']}, "
                    f"dispatch_at {row['dispatch_at']}"
                )
            if self.cancelled.get(number) == "cancelled" and status != "cancelled":
                self._fail(f"job {number} was cancelled and is {status}")
            died = max(0, self.rescues[number] - self._forgiven)
            if status == "failed" and self.failures[number] + died <= row["max_retries"]:
                self._fail(
                    f"job {number} is failed after {self.failures[number]} failures and {self.rescues[number]} deaths; "
                    f"it may be retried {row['max_retries']} times"
                )

    # --- rows --------------------------------------------------------------------------------------------------------

    def _rows(self) -> list[Row]:
        cells = self._storage().tables["jobs"].cells
        return [cell.versions[-1][1] for cell in cells if cell.versions and cell.versions[-1][1] is not None]

    def _row(self, number: int) -> Row | None:
        return next((row for row in self._rows() if row["payload"].value["n"] == number), None)

    def _floor(self) -> int:
        [cell] = self._storage().tables["dispatch_floor"].cells
        row = cell.versions[-1][1]
        assert row is not None
        return int(row["id"])
