"""Fields that the API server silently drops are found; those that it leaves out because they are empty are not."""

from typing import Any

import pytest

from goqueue_operator.dropped import dropped


@pytest.mark.parametrize(
    ("wanted", "made", "paths"),
    [
        ({"a": 1, "b": {"c": [{"d": "x"}]}}, {"a": 1, "b": {"c": [{"d": "x", "defaulted": 1}]}}, []),
        ({"a": 0, "b": [], "c": {}, "d": "", "e": None, "f": False}, {}, []),
        ({"a": {"b": 1}}, {}, ["a"]),
        ({"volumes": [{"name": "x", "image": {"reference": "y"}}]}, {"volumes": [{"name": "x"}]}, ["volumes[0].image"]),
        ({"a": "1000m"}, {"a": "1"}, []),
        ({"a": {"b": 1}}, {"a": None}, ["a.b"]),
        ([1], [], []),
    ],
)
def test_what_is_missing_in_the_answer_is_told_by_its_path(wanted: Any, made: Any, paths: list[str]) -> None:
    assert list(dropped(wanted, made)) == paths
