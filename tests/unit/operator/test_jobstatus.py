"""The status of a GoQueueJob follows from its row, and from what it said before."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue.lifecycle import JobStatus
from goqueue_operator import jobstatus
from goqueue_operator.jobstatus import Refusal
from goqueue_operator.rows import Owner, Relation, Row, key_of, parse_key, parse_tick, relation, tick_key

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 5, 1, 12, 5, tzinfo=UTC)
KEY = key_of("u-1", "shop")


def row(status: JobStatus, **more: Any) -> Row:
    values: dict[str, Any] = {
        "id": 7,
        "source_key": KEY,
        "status": status,
        "attempts": 1,
        "max_retries": 5,
        "updated_at": NOW,
        "started_at": NOW,
        "finished_at": NOW if status.final else None,
        "error": None,
        "result": None,
        "large": False,
        "held": False,
        "cancelling": False,
    }
    return Row(**values | more)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}


@pytest.mark.parametrize(
    ("seen", "state", "expected"),
    [
        (row(JobStatus.PENDING, attempts=0, started_at=None), "pending", {"Running": ("False", "Waiting")}),
        (row(JobStatus.PENDING, held=True), "suspended", {"Running": ("False", "Suspended")}),
        (row(JobStatus.PENDING), "pending", {"Running": ("False", "Retrying")}),
        (row(JobStatus.PROCESSING), "processing", {"Running": ("True", "AttemptStarted")}),
        (row(JobStatus.PROCESSING, cancelling=True), "processing", {"Running": ("True", "Cancelling")}),
        (
            row(JobStatus.COMPLETED),
            "completed",
            {"Running": ("False", "Ended"), "Succeeded": ("True", "Completed")},
        ),
        (
            row(JobStatus.FAILED, attempts=6),
            "failed",
            {"Running": ("False", "Ended"), "Failed": ("True", "RetriesUsedUp")},
        ),
        (row(JobStatus.FAILED), "failed", {"Running": ("False", "Ended"), "Failed": ("True", "GivenUp")}),
        (row(JobStatus.CANCELLED), "cancelled", {"Running": ("False", "Ended"), "Cancelled": ("True", "Cancelled")}),
    ],
)
def test_each_state_of_a_row_has_its_conditions(seen: Row, state: str, expected: dict[str, tuple[str, str]]) -> None:
    status = jobstatus.follow({}, seen, Relation.OWN, 2, NOW)
    assert status["state"] == state
    said = conditions(status)
    end = next((name for name in ("Succeeded", "Failed", "Cancelled") if name in expected), None)
    assert said.pop("Finished", None) == (("True", end) if end else None)
    assert said == {"Accepted": ("True", "Accepted"), **expected}
    assert jobstatus.final(status) is seen.status.final
    assert status["observedGeneration"] == 2


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    before = jobstatus.follow({}, row(JobStatus.PENDING, attempts=0), Relation.OWN, 1, NOW)
    after = jobstatus.follow(before, row(JobStatus.PROCESSING), Relation.OWN, 1, LATER)
    times = {item["type"]: item["lastTransitionTime"] for item in after["conditions"]}
    assert times == {"Accepted": "2026-05-01T12:00:00Z", "Running": "2026-05-01T12:05:00Z"}


def test_a_job_that_follows_the_holder_of_its_unique_key_says_so() -> None:
    status = jobstatus.follow({}, row(JobStatus.PENDING), Relation.SHARED, 1, NOW)
    assert conditions(status)["Accepted"] == ("True", "SameUniqueKey")


@pytest.mark.parametrize("end", [JobStatus.COMPLETED, JobStatus.FAILED])
def test_only_rows_of_jobs_show_their_result_and_error(end: JobStatus) -> None:
    seen = row(end, result={"iban": "DE02"}, error="no such account")
    for own in (Relation.OWN, Relation.SHARED):
        status = jobstatus.follow({}, seen, own, 1, NOW)
        assert (status["result"], status["error"]) == ({"iban": "DE02"}, "no such account")
    hidden = str(jobstatus.follow({}, seen, Relation.SCHEDULED, 1, NOW))
    assert "DE02" not in hidden
    assert "no such account" not in hidden


def test_a_passing_refusal_is_not_final_and_a_lasting_one_is() -> None:
    passing = jobstatus.refused({}, Refusal("StoreUnavailable", "database is unavailable"), 1, NOW)
    lasting = jobstatus.refused({}, Refusal("InvalidQueue", "invalid queue", True), 1, NOW)
    assert not jobstatus.final(passing)
    assert conditions(passing) == {"Accepted": ("False", "StoreUnavailable")}
    assert jobstatus.final(lasting)
    assert lasting["finishedAt"] == "2026-05-01T12:00:00Z"


def test_a_row_that_is_gone_ends_the_job() -> None:
    status = jobstatus.lost({"jobID": 7, "attempts": 2}, 7, 1, NOW)
    assert jobstatus.final(status)
    assert status["attempts"] == 2


statuses = st.builds(
    lambda status, attempts, error, result: jobstatus.follow(
        {}, row(status, attempts=attempts, error=error, result=result), Relation.OWN, 1, NOW
    ),
    st.sampled_from(JobStatus),
    st.integers(0, 9),
    st.none() | st.text(),
    st.none() | st.dictionaries(st.text(), st.integers()),
)


@given(statuses, statuses)
def test_the_patch_leads_from_one_status_to_the_other(former: dict[str, Any], wanted: dict[str, Any]) -> None:
    patch = jobstatus.difference(former, wanted) or {}
    patched = {name: value for name, value in {**former, **patch}.items() if value is not None}
    assert patched == wanted
    assert jobstatus.difference(wanted, wanted) is None


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(st.uuids().map(str), NAMES, st.just("") | st.uuids().map(str))
def test_a_key_names_resource_namespace_and_installation(uid: str, namespace: str, installation: str) -> None:
    job, tick = key_of(uid, namespace, installation), tick_key(uid, namespace, NOW, installation)
    assert parse_key(job) == parse_tick(tick) == Owner(uid, namespace, installation)
    assert parse_key(tick) is parse_tick(job) is parse_key(f"schedule:{uid}") is parse_tick(f"schedule:{uid}") is None


OWNER = Owner("u-1", "shop", "i-1")


@pytest.mark.parametrize(
    ("source_key", "unique_key", "expected"),
    [
        (key_of("u-1", "shop", "i-1"), "k", Relation.OWN),
        (key_of("u-1", "shop", "i-2"), None, Relation.OWN),  # the operator was installed anew elsewhere
        (key_of("u-1", "shop"), None, Relation.OWN),
        (key_of("u-2", "shop", "i-1"), "k", Relation.SHARED),
        (key_of("u-2", "shop"), "k", Relation.SHARED),
        (key_of("u-2", "shop", "i-1"), "another", Relation.STRANGE),
        (key_of("u-2", "shop", "i-1"), None, Relation.STRANGE),
        (key_of("u-2", "shop", "i-2"), "k", Relation.STRANGE),  # a namespace of this name in another cluster
        (key_of("u-2", "bank", "i-1"), "k", Relation.STRANGE),
        (tick_key("u-2", "shop", NOW, "i-1"), "k", Relation.SCHEDULED),
        (tick_key("u-1", "bank", NOW, "i-1"), "k", Relation.STRANGE),
        ("schedule:1:2026-05-01", "k", Relation.STRANGE),
        (None, "k", Relation.STRANGE),
    ],
)
def test_what_a_row_is_to_a_job(source_key: str | None, unique_key: str | None, expected: Relation) -> None:
    assert relation(source_key, unique_key, OWNER, "k") is expected
