"""Rules for GoQueue's resources that need no API server: grants, numbers, events, sizes."""

from typing import Any

import pytest

from goqueue.errors import InvalidInput
from goqueue.settings import ApiSettings
from goqueue_operator.events import Budget
from goqueue_operator.exactness import rounded
from goqueue_operator.jobevents import event_of
from goqueue_operator.jobstatus import short
from goqueue_operator.namespaces import granted
from goqueue_operator.payloads import MAX_PAYLOAD
from goqueue_operator.tokens import MAX_TOKEN, token_of


def test_the_largest_payload_is_that_of_rest() -> None:
    assert ApiSettings.model_fields["max_body_bytes"].default == MAX_PAYLOAD


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {"b": 2**63}]}, "payload.a[1].b"),
        ({"a": -(2**63)}, "payload.a"),
        ([1e30], "payload[0]"),
        ({"a": 2**63 - 1, "b": 1 - 2**63, "c": 0.5, "d": True, "e": None, "f": "9223372036854775808"}, None),
    ],
)
def test_numbers_that_kubernetes_rounds_are_found_where_they_are(value: Any, place: str | None) -> None:
    assert rounded(value, "payload") == place


def test_without_grants_all_is_allowed_and_with_some_only_what_is_granted() -> None:
    granted([], []).check("any", "email")
    grants = granted(["a/email", "b/*", "*/default"], ["a=acme", "*=others"])
    grants.check("a", "email")
    grants.check("b", "payment")
    grants.check("c", "default")
    with pytest.raises(InvalidInput) as raised:
        grants.check("c", "email")
    assert "namespace c may not use email, only default" in str(raised.value)
    assert [grants.tenant(name) for name in ("a", "c")] == ["acme", "others"]
    assert granted([], []).tenant("a") is None


def test_events_are_bounded() -> None:
    budget = Budget(burst=3, per_second=0.0)
    assert [budget.take() for _ in range(5)] == [True, True, True, False, False]


def status(*conditions: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    return more | {
        "conditions": [
            {"type": name, "status": value, "reason": reason, "message": f"{reason} said"}
            for name, value, reason in conditions
        ]
    }


ACCEPTED = ("Accepted", "True", "Accepted")
FAILED = ("Failed", "True", "RetriesUsedUp")
WAITS = ("Accepted", "False", "PayloadNotFound")


@pytest.mark.parametrize(
    ("former", "now", "reason"),
    [
        (status(), status(ACCEPTED), None),
        (status(ACCEPTED), status(ACCEPTED, FAILED, jobID=7, error="secret words"), "RetriesUsedUp"),
        (status(ACCEPTED, FAILED), status(ACCEPTED, FAILED), None),
        (status(), status(WAITS), "PayloadNotFound"),
        (status(WAITS), status(WAITS), None),
        (status(), status(("Accepted", "False", "Suspended")), None),
        (status(), status(("Accepted", "False", "StoreUnavailable")), None),
    ],
)
def test_what_goes_wrong_is_told_once_and_never_in_the_words_of_a_handler(
    former: dict[str, Any], now: dict[str, Any], reason: str | None
) -> None:
    event = event_of(former, now)
    assert (event and event[0]) == reason
    assert "secret" not in str(event)


def test_a_short_status_has_no_result_and_says_so() -> None:
    whole = status(("Succeeded", "True", "Completed"), state="completed", result={"a": 1}, error="e" * 2000)
    shorter = short(whole)
    assert "result" not in shorter
    assert len(shorter["error"]) == 200
    assert "the API has it" in shorter["conditions"][0]["message"]


def test_a_long_token_is_known_by_its_hash() -> None:
    def resource(token: str) -> dict[str, Any]:
        return {"metadata": {"annotations": {"x": token}}}

    longest = "a" * MAX_TOKEN
    assert token_of(resource(longest), "x") == longest
    one, other = token_of(resource(longest + "b"), "x"), token_of(resource(longest + "c"), "x")
    assert one != other
    assert len(one or "") <= MAX_TOKEN
    assert token_of(resource(""), "x") is None
    assert token_of({"metadata": {}}, "x") is None
