"""Cures taken out, one at a time: the simulation must find what each of them cures."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from goqueue.job import ClaimedJob
from goqueue.store import attempt_sql, attempts
from goqueue_worker.claiming import Claims
from goqueue_worker.ledger import Claim, ClaimLedger
from goqueue_worker.undone import Rewriter
from tests.simulation.loop import PROCESS


@dataclass(frozen=True)
class Mutation:
    """How a cure is taken out, the faults that show it, and what the simulation says then (a regular expression)."""

    take_out: Callable[[], None]
    faults: tuple[str, ...]
    says: str


def _recover_with_the_next_claim() -> None:
    """Jobs of a claim whose answer was lost are looked for when this worker claims again, and at no other time."""
    plain: Any = Claims._claim

    async def claim(self: Claims, *arguments: Any) -> list[ClaimedJob]:
        claimed: list[ClaimedJob] = await plain(self, *arguments)
        await self._look_for_lost()
        return claimed

    async def never(self: Claims) -> None:
        await asyncio.Event().wait()

    _replace(Claims, "_claim", claim)
    _replace(Claims, "recover", never)


def _count_leases() -> None:
    """A lease is a counter, which begins anew with each process."""
    counters: dict[str, Any] = defaultdict(lambda: itertools.count(1))
    _replace(attempts, "new_lease", lambda: next(counters[PROCESS.get()]))


def _find_again() -> None:
    """What a lost claim took is taken over by each look that sees it, whatever another look took over before."""

    def found(self: ClaimLedger, asked: Collection[Claim], jobs: Iterable[ClaimedJob], now: float) -> list[ClaimedJob]:
        found = list(jobs)
        if found:
            for claim in asked:
                claim.asked_at = now
        return found

    _replace(ClaimLedger, "found", found)


def _read_the_request_from_the_snapshot() -> None:
    """The end of an attempt reads the request to cancel from the statement's snapshot, and a claim does not ask."""
    asked = "(SELECT cancel_requested_at FROM jobs AS old WHERE old.id = ended.id) AS requested"
    text = attempt_sql.END_OTHERWISE.replace("jobs.cancel_requested_at", "requested")
    text = text.replace("CROSS JOIN LATERAL (SELECT ended.status", f"CROSS JOIN LATERAL (SELECT {asked}, ended.status")
    _replace(attempt_sql, "END_OTHERWISE", text)
    for name in ("CLAIM", "CLAIM_UNLOCKED"):
        _replace(attempt_sql, name, getattr(attempt_sql, name).replace("AND cancel_requested_at IS NULL", ""))


def _leave_undone() -> None:
    """An end that a failover has undone is not written again."""

    async def never(self: Rewriter) -> None:
        await asyncio.Event().wait()

    _replace(Rewriter, "run", never)


def _replace(owner: Any, name: str, value: Any) -> None:
    if getattr(owner, name) == value:
        raise AssertionError(f"{name} is no longer what this mutation changes")
    setattr(owner, name, value)


MUTATIONS: Final = {
    "recovery": Mutation(_recover_with_the_next_claim, ("lose_claim",), "is processing for ever"),
    "random-lease": Mutation(
        _count_leases,
        ("failover", "freeze_worker", "kill_worker"),
        "which .* holds|did not end well|second time by one",
    ),
    "found-once": Mutation(_find_again, ("lose_claim", "flaky_link"), "a second time by one claim"),
    "undone-ends": Mutation(_leave_undone, ("failover",), "is processing for ever"),
    "newest-request": Mutation(
        _read_the_request_from_the_snapshot, ("slow_statements",), "claimed by .* after its cancellation"
    ),
}
"""By the name of the cure."""


def apply(name: str) -> None:
    """Take a cure out of this process, for good."""
    MUTATIONS[name].take_out()
