"""The state machine: what the table of transitions promises."""

import pytest

from goqueue.lifecycle import FINAL, OPEN, TRANSITIONS, JobStatus, allowed, sources


def test_every_status_is_either_open_or_final() -> None:
    assert set(JobStatus) == FINAL | OPEN
    assert not FINAL & OPEN


def test_nothing_leaves_completed() -> None:
    assert TRANSITIONS[JobStatus.COMPLETED] == frozenset()


@pytest.mark.parametrize("status", sorted(FINAL - {JobStatus.COMPLETED}))
def test_a_final_job_can_only_be_retried(status: JobStatus) -> None:
    assert TRANSITIONS[status] == {JobStatus.PENDING}


def test_no_status_leads_to_itself() -> None:
    assert not any(allowed(status, status) for status in JobStatus)


@pytest.mark.parametrize("target", list(JobStatus))
def test_sources_is_the_inverse_of_transitions(target: JobStatus) -> None:
    assert set(sources(target)) == {source for source in JobStatus if allowed(source, target)}


def test_every_status_can_be_reached_from_pending() -> None:
    reached, waiting = {JobStatus.PENDING}, [JobStatus.PENDING]
    while waiting:
        for following in TRANSITIONS[waiting.pop()] - reached:
            reached.add(following)
            waiting.append(following)
    assert reached == set(JobStatus)
