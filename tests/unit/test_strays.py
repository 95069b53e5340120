"""Which ids the sweep for strays looks at: all but those in runs that were noted as pushed."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from goqueue.broker.redis import runs_of
from goqueue_scheduler.strays import SPANS, Kept, batches, gaps, joined

some_ids = st.sets(st.integers(0, 40))


@given(some_ids)
def test_runs_hold_all_ids_no_other_and_as_few_runs_as_can_be(ids: set[int]) -> None:
    runs = runs_of(sorted(ids))
    assert [id for first, last in runs for id in range(first, last + 1)] == sorted(ids)
    assert all(after > last + 1 for (_, last), (after, _) in itertools.pairwise(runs))


@given(st.integers(0, 40), st.integers(0, 40), st.lists(some_ids, max_size=3))
def test_every_id_lies_in_a_gap_or_in_a_run(start: int, stop: int, pushed: list[set[int]]) -> None:
    runs = [run for ids in pushed for run in runs_of(sorted(ids))]
    looked_at = [id for first, end in gaps(start, stop, runs) for id in range(first, end)]
    assert looked_at == sorted(set(range(start, stop)) - set().union(*pushed))


spans_of_ids = some_ids.map(lambda ids: [(first, last + 1) for first, last in runs_of(sorted(ids))])


@given(spans_of_ids, st.integers(1, 7))
def test_batches_hold_the_same_ids_in_order_and_no_more_than_their_size(
    spans: list[tuple[int, int]], size: int
) -> None:
    groups = [[id for start, stop in group for id in range(start, stop)] for group in batches(spans, size)]
    assert [id for group in groups for id in group] == [id for start, stop in spans for id in range(start, stop)]
    assert all(len(group) <= size for group in groups)


@given(spans_of_ids, st.integers(1, 5))
def test_joined_spans_are_few_and_hold_all_ids(spans: list[tuple[int, int]], most: int) -> None:
    few = joined(spans, most)
    assert len(few) <= most
    ids = {id for start, stop in few for id in range(start, stop)}
    assert ids >= {id for start, stop in spans for id in range(start, stop)}


def test_ids_are_kept_as_long_as_one_of_their_writers_is_there() -> None:
    kept = Kept()
    kept.add([(1, 2), (5, 6)], frozenset({"a", "b"}))
    kept.add([(9, 10)], frozenset({"b"}))
    kept.add([(11, 12)], frozenset())
    assert kept.first == 1
    assert kept.changed(frozenset({"a", "b", "c"})) == []
    [entry] = kept.changed(frozenset({"b", "c"}))
    kept.settle(entry, [(5, 6)], frozenset({"b", "c"}))
    assert [(one.spans, one.writers) for one in kept.entries] == [([(5, 6), (9, 10)], frozenset({"b"}))]
    [entry] = kept.changed(frozenset())
    kept.settle(entry, [(5, 6)], frozenset())
    assert kept.first is None


def test_behind_a_transaction_that_never_ends_the_ids_that_are_kept_stay_few() -> None:
    kept = Kept()
    for start in range(0, 1_000_000, 10):
        kept.add([(start, start + 1)], frozenset({"idle"}))
        assert len(kept.entries) == 1
    assert len(kept.entries[0].spans) <= SPANS
