"""The walk through all open jobs, and when one begins: a state machine without stores."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from goqueue.store.dispatch import Boundary
from goqueue_scheduler.walk import Above, Agenda, Listed, Walk

AT = datetime(2026, 11, 1, tzinfo=UTC)
EDGE = Boundary(1000, frozenset(), AT)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 20))
def test_a_walk_reads_every_row_once_whatever_the_chunk(above: int, listed: int, limit: int) -> None:
    ids = list(range(1, above + 1))
    places = [(AT - timedelta(seconds=number % 3), number) for number in range(listed)]
    places.sort()
    walk, seen = Walk(EDGE), list[Any]()
    for _ in range(200):
        match walk.position:
            case Above(after=after):
                chunk: list[Any] = [id for id in ids if id > after][:limit]
            case Listed(after=place):
                chunk = [at for at in places if at > place][:limit]
            case None:
                break
        seen += chunk
        assert walk.advance(len(chunk), limit, chunk[-1] if chunk else None) == (walk.position is None)
    assert walk.position is None
    assert seen == [*ids, *places]


def test_a_new_leader_walks_first_and_then_once_in_each_interval() -> None:
    agenda = Agenda(60.0)
    assert agenda.wants(5.0)
    agenda.begin(EDGE)
    assert not agenda.wants(100.0)
    agenda.finish(100.0)
    assert not agenda.wants(160.0)
    assert agenda.wants(161.0)


def test_a_walk_asked_for_during_another_one_follows_it() -> None:
    agenda = Agenda(60.0)
    agenda.begin(EDGE)
    agenda.asked = True
    assert not agenda.wants(1.0)
    agenda.finish(2.0)
    assert agenda.wants(2.0)


def test_a_redis_that_lost_its_contents_during_a_walk_is_filled_from_the_beginning() -> None:
    agenda = Agenda(60.0)
    first = agenda.begin(EDGE)
    agenda.lost()
    assert agenda.wants(1.0)
    assert agenda.begin(EDGE) is not first
    agenda.filled(complete=False)
    agenda.finish(2.0)
    assert agenda.wants(2.0)
    agenda.lost()
    agenda.begin(EDGE)
    agenda.filled(complete=True)
    agenda.finish(3.0)
    assert not agenda.refilling
    assert not agenda.wants(4.0)
