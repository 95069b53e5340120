"""What the autoscaler makes of the two stores' words on what waits."""

import pytest

from goqueue_operator.load import Counted, Facts, Waiting, of_pool

FULL = (9, 5.0)
"""Redis or PostgreSQL knows of more jobs, which are new."""

OLD = (2, 3600.0)
"""The other one knows of fewer, one of which has waited for an hour."""


def load(redis: Waiting | None, postgres: Waiting | None) -> tuple[int | None, float]:
    """Jobs that wait for a pool, and the longest wait, once PostgreSQL was asked."""
    facts = Facts(redis, {}, [], frozenset()).checked(None if postgres is None else Counted(postgres, {}))
    found = of_pool(facts, ["default", "other"], [], None)
    return found.waiting, found.oldest


@pytest.mark.parametrize(("redis", "postgres"), [(FULL, OLD), (OLD, FULL)])
def test_the_longest_wait_counts_whichever_store_knows_of_more_jobs(
    redis: tuple[int, float], postgres: tuple[int, float]
) -> None:
    assert load({"default": redis}, {"default": postgres}) == (9, 3600.0)


def test_a_queue_that_one_store_knows_counts_as_it_says() -> None:
    assert load({"default": OLD}, {"other": FULL}) == (11, 3600.0)


def test_where_redis_is_unavailable_postgresql_alone_counts() -> None:
    assert load(None, {"default": OLD}) == (2, 3600.0)


def test_without_postgresql_nothing_is_known() -> None:
    assert load({"default": FULL}, None)[0] is None
