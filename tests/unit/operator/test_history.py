"""Which ended resources go where there are more than may be kept."""

import pytest

from goqueue_operator.history import surplus


def ended(**counts: int) -> list[tuple[str, str, str]]:
    """So many of each namespace, the lower the number the older."""
    return [
        (namespace, f"2026-01-01T00:{number:02}:00Z", f"{namespace}-{number}")
        for namespace, count in counts.items()
        for number in reversed(range(count))
    ]


@pytest.mark.parametrize(
    ("counts", "limit", "kept"),
    [
        ({}, 5, {}),
        ({"a": 3}, 3, {"a": 3}),
        ({"a": 5}, 3, {"a": 3}),
        ({"a": 40, "b": 2}, 10, {"a": 8, "b": 2}),
        ({"a": 40, "b": 30, "c": 1}, 10, {"a": 5, "b": 4, "c": 1}),
        ({"a": 4, "b": 4, "c": 4}, 2, {"a": 1, "b": 1, "c": 0}),
    ],
)
def test_the_fullest_namespaces_give_their_oldest_until_the_limit_is_kept(
    counts: dict[str, int], limit: int, kept: dict[str, int]
) -> None:
    gone = set(surplus(ended(**counts), limit))
    left = [uid for _, _, uid in ended(**counts) if uid not in gone]
    assert len(left) == min(limit, sum(counts.values()))
    for namespace, count in kept.items():
        newest = {f"{namespace}-{number}" for number in range(counts[namespace] - count, counts[namespace])}
        assert {uid for uid in left if uid.startswith(namespace)} == newest
