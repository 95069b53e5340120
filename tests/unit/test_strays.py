"""Which ids the sweep for strays looks at: all but those in runs that were noted as pushed."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from goqueue.broker.redis import runs_of
from goqueue_scheduler.strays import gaps

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
