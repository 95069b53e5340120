"""What a lost claim took is found once, and looked for as long as it may still take something."""

from goqueue.job import ClaimedJob
from goqueue_worker.ledger import PATIENCE, ClaimLedger


def job(id: int, lease: int) -> ClaimedJob:
    return ClaimedJob(id, lease, 1, "default", "t", "{}", 5, None, 0.0, None)


def state(ledger: ClaimLedger) -> tuple[bool, bool]:
    return ledger.lost_any, ledger.settled


def test_a_claim_that_is_answered_is_never_looked_for() -> None:
    ledger = ClaimLedger()
    claim = ledger.sent(1, 7, [1, 2])
    assert ledger.unsure(1) == []
    assert state(ledger) == (False, False)  # it may take jobs that nobody knows of
    ledger.answered(claim)
    assert state(ledger) == (False, True)


def test_what_is_found_once_is_not_found_again() -> None:
    ledger = ClaimLedger()
    claim = ledger.sent(1, 7, [1, 2, 3])
    ledger.lost(claim, 10.0)
    assert state(ledger) == (True, False)
    assert ledger.found(ledger.unsure(1), [job(2, 7)], 11.0) == [job(2, 7)]
    assert state(ledger) == (True, True)
    assert ledger.found(ledger.unsure(1), [job(1, 7), job(2, 7)], 12.0) == [job(1, 7)]
    assert ledger.found(ledger.unsure(1), [job(3, 7)], 13.0) == [job(3, 7)]
    assert state(ledger) == (False, True)


def test_a_job_that_another_claim_took_is_not_found_under_this_one() -> None:
    ledger = ClaimLedger()
    ledger.lost(ledger.sent(1, 7, [1]), 10.0)
    ledger.sent(1, 8, [1])
    asked = ledger.unsure(1)
    assert [claim.lease for claim in asked] == [7]
    assert ledger.found(asked, [job(1, 8), job(5, 7)], 11.0) == []


def test_a_lost_claim_is_looked_for_until_it_can_take_nothing_any_more() -> None:
    ledger = ClaimLedger()
    ledger.lost(ledger.sent(1, 7, [1]), 10.0)
    ledger.found(ledger.unsure(1), [], 10.0 + PATIENCE)
    assert state(ledger) == (True, True)
    ledger.found(ledger.unsure(1), [], 10.1 + PATIENCE)
    assert state(ledger) == (False, True)


def test_claims_of_a_registration_that_is_dead_are_forgotten() -> None:
    ledger = ClaimLedger()
    ledger.lost(ledger.sent(1, 7, [1]), 10.0)
    ledger.lost(ledger.sent(2, 8, [1]), 10.0)
    assert [claim.lease for claim in ledger.unsure(2)] == [8]
    assert [claim.lease for claim in ledger.unsure(2)] == [8]
    assert ledger.unsure(1) == []
