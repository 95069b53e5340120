"""What an environment names in ConfigMaps and Secrets, and that no name of an object becomes another URL."""

import asyncio
from typing import Any, cast

import pytest

from goqueue_operator.deployment import REVISION, Defaults, build, grace, unknown_queues
from goqueue_operator.kube import Kube
from goqueue_operator.revisions import Reference, Revisions, Settings, references


def test_all_that_an_environment_names_is_found_in_its_order() -> None:
    container = {
        "envFrom": [{"prefix": "A_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}, {}],
        "env": [
            {"name": "X", "value": "1"},
            {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "Z", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
    }
    assert list(references([container])) == [
        Reference("ConfigMap", "c", prefix="A_"),
        Reference("Secret", "s"),
        Reference("Secret", "s", "k", "Y"),
    ]


class Asked:
    """Takes the place of the client: what is asked for at all must not be asked for here."""

    async def request(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("asked")


@pytest.mark.parametrize("name", ["../secrets/other", "a/../../b", "..", ".", "A", "a?watch=true", "a%2Fb"])
def test_a_name_that_no_object_can_have_is_not_asked_for(name: str) -> None:
    revisions = Revisions(cast(Kube, Asked()), 1.0)
    container = {"envFrom": [{"secretRef": {"name": name}}]}
    assert asyncio.run(revisions.settings("n", container, [])).revision


@pytest.mark.parametrize(
    ("env", "values", "seconds"),
    [
        ([], {}, 25),
        ([], {"GOQUEUE_WORKER_GRACE_SECONDS": "90"}, 90),
        ([{"name": "GOQUEUE_WORKER_GRACE_SECONDS", "value": "7s"}], {"GOQUEUE_WORKER_GRACE_SECONDS": "90"}, 7),
        ([{"name": "GOQUEUE_WORKER_GRACE_SECONDS", "valueFrom": {}}], {"GOQUEUE_WORKER_GRACE_SECONDS": "90"}, 90),
        ([{"name": "GOQUEUE_WORKER_GRACE_SECONDS", "valueFrom": {}}], {}, 25),
        ([], {"GOQUEUE_WORKER_GRACE_SECONDS": "nan"}, 25),
        ([], {"GOQUEUE_WORKER_GRACE_SECONDS": "-1"}, 25),
        ([], {"GOQUEUE_WORKER_GRACE_SECONDS": "1e9"}, 7 * 86400),
    ],
)
def test_the_grace_period_is_the_one_that_the_worker_will_read(
    env: list[dict[str, Any]], values: dict[str, str], seconds: float
) -> None:
    assert grace(env, 25, values) == seconds


@pytest.mark.parametrize(
    ("spec", "values", "unknown"),
    [
        ({"queues": ["default", "x:3", "y"]}, {}, ["x", "y"]),
        ({}, {}, []),
        ({"queues": ["x"]}, {"GOQUEUE_QUEUES": "x,z"}, []),
        ({"queues": ["x"], "image": "own:1"}, {}, []),
        ({"queues": ["x"], "image": "goqueue:1"}, {}, ["x"]),
        ({"queues": ["x"], "env": [{"name": "GOQUEUE_JOBS", "value": "shop"}]}, {}, []),
        ({"queues": ["x"], "podTemplate": {"spec": {"containers": [{"env": [{"name": "GOQUEUE_QUEUES"}]}]}}}, {}, []),
    ],
)
def test_queues_are_unknown_where_the_workers_could_not_know_them(
    spec: dict[str, Any], values: dict[str, str], unknown: list[str]
) -> None:
    pool = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}
    assert unknown_queues(pool, ["default"], Defaults("goqueue:1"), Settings("", values)) == unknown


def test_the_revision_is_an_annotation_of_the_pods_and_absent_where_nothing_is_named() -> None:
    pool = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {}}
    for settings, revision in ((Settings("abc"), "abc"), (Settings(""), None), (Settings(), None)):
        made = build(pool, 1, Defaults("goqueue:1"), settings)
        assert (made["spec"]["template"]["metadata"].get("annotations") or {}).get(REVISION) == revision
