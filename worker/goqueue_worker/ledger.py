"""Claims of which the worker has no answer, so that the jobs that they took are found. Pure: it is told the time.

Each claim has a lease of its own. A job that is held under it was taken by that claim and by no other, so what an
answer returns and what is found later never overlap, however many claims are under way.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from goqueue.job import ClaimedJob

PATIENCE: Final = 60.0
"""Seconds for which a lost claim is looked for: it may wait in a pooler or for a lock, and take its jobs after that."""


@dataclass(slots=True, eq=False)
class Claim:
    """One claim statement: `lost_at` is when its connection broke (None: it may still be answered), `asked_at` when it
    was last looked for with success, in seconds of a monotonic clock."""

    worker_id: int
    lease: int
    ids: Sequence[int]
    missing: set[int] = field(default_factory=set)
    """Of a lost claim: the ids that it asked for, without those that were found."""
    lost_at: float | None = None
    asked_at: float | None = None


class ClaimLedger:
    """The claims of one process that were sent and not answered."""

    def __init__(self) -> None:
        self._claims: dict[int, Claim] = {}

    def sent(self, worker_id: int, lease: int, ids: Sequence[int]) -> Claim:
        """Note a claim before it is sent."""
        claim = self._claims[lease] = Claim(worker_id, lease, ids)
        return claim

    def answered(self, claim: Claim) -> None:
        """Forget a claim whose effect is known."""
        del self._claims[claim.lease]

    def lost(self, claim: Claim, now: float) -> None:
        """Look for what the claim took from now on: nobody will answer it."""
        claim.lost_at, claim.missing = now, set(claim.ids)

    def unsure(self, worker_id: int) -> list[Claim]:
        """The lost claims of this registration. Those of a former one are forgotten: it is dead, its jobs are rescued,
        and it can claim no more."""
        lost = [claim for claim in self._claims.values() if claim.lost_at is not None]
        for claim in lost:
            if claim.worker_id != worker_id:
                del self._claims[claim.lease]
        return [claim for claim in lost if claim.worker_id == worker_id]

    def found(self, asked: Collection[Claim], jobs: Iterable[ClaimedJob], now: float) -> list[ClaimedJob]:
        """Those of the jobs held under the asked claims' leases that were not found before; `now` is when the question
        was put."""
        by_lease = {claim.lease: claim for claim in asked}
        fresh = []
        for job in jobs:
            claim = by_lease.get(job.lease)
            if claim is not None and job.id in claim.missing:
                claim.missing.discard(job.id)
                fresh.append(job)
        for claim in asked:
            claim.asked_at = now
            if not claim.missing or (claim.lost_at is not None and now - claim.lost_at > PATIENCE):
                self._claims.pop(claim.lease, None)
        return fresh

    @property
    def lost_any(self) -> bool:
        """Whether a claim is to be looked for."""
        return any(claim.lost_at is not None for claim in self._claims.values())

    @property
    def settled(self) -> bool:
        """Whether every claim was answered, or looked for since it was lost."""
        return all(claim.asked_at is not None for claim in self._claims.values())
