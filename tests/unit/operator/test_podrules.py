"""No trick with a pool's pod template gets a pod more rights than a worker has, and no template stops the operator."""

import copy
from typing import Any

import pytest

from goqueue_operator.deployment import Defaults, Refused, build
from tests.unit.operator import golden
from tests.unit.operator.tricks import HARMLESS, METADATA_TRICKS, TRICKS

DEFAULTS = Defaults(
    image="goqueue:1",
    labels={"app.kubernetes.io/name": "goqueue", "app.kubernetes.io/instance": "jobs"},
    accounts=["workers"],
    forbidden_account="goqueue-operator",
)


def pool(**template: Any) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(golden.given("pool-plain.yaml"))
    made["spec"]["podTemplate"] = template
    return made


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_refused_in_words(trick: str) -> None:
    pod, words = TRICKS[trick]
    with pytest.raises(Refused, match=words):
        build(pool(spec=pod), 1, DEFAULTS)


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_refused_where_any_account_may_be_named_too(trick: str) -> None:
    if trick == "another account" or trick == "all accounts":
        return
    anyone = Defaults(image="goqueue:1", accounts=["*"], forbidden_account="goqueue-operator")
    with pytest.raises(Refused):
        build(pool(spec=TRICKS[trick][0]), 1, anyone)


@pytest.mark.parametrize("trick", METADATA_TRICKS)
def test_a_trick_with_labels_or_annotations_is_refused_in_words(trick: str) -> None:
    metadata, words = METADATA_TRICKS[trick]
    with pytest.raises(Refused, match=words):
        build(pool(metadata=metadata), 1, DEFAULTS)


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_harmless_is_allowed_and_stays_restricted(what: str) -> None:
    template = build(pool(spec=HARMLESS[what]), 1, DEFAULTS)["spec"]["template"]
    spec = template["spec"]
    assert spec["automountServiceAccountToken"] is False
    for context in (spec["securityContext"], *(one["securityContext"] for one in spec["containers"])):
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    worker = spec["containers"][0]["securityContext"]
    assert (worker["allowPrivilegeEscalation"], worker["readOnlyRootFilesystem"]) == (False, True)
    assert worker["capabilities"]["drop"] == ["ALL"]


def test_an_environment_of_another_shape_is_refused_in_words() -> None:
    odd = pool()
    odd["spec"]["env"] = [{"name": {"a": "b"}}]
    with pytest.raises(Refused, match=r"spec\.env\[0\]\.name must be a text"):
        build(odd, 1, DEFAULTS)
