"""What the due sweep must read again, and what it puts off."""

from datetime import UTC, datetime, timedelta

from goqueue_scheduler.due import BEFORE_LOCK, PutOff, Writers

AT = datetime(2026, 11, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def test_a_writer_that_was_there_for_long_has_its_time_read_again_when_it_is_over() -> None:
    writers = Writers()
    assert writers.look(frozenset({"slow", "quick"}), at(0)) is None
    assert writers.look(frozenset({"slow"}), at(0.2)) is None  # the overlap reaches back to the quick one
    assert writers.look(frozenset({"slow", "other"}), at(60)) is None
    assert writers.look(frozenset({"other"}), at(60.2)) == at(0) - BEFORE_LOCK
    assert writers.look(frozenset({"other"}), at(60.4)) is None


def test_what_was_put_off_is_read_in_turn_and_a_longer_end_only_lengthens_it() -> None:
    off = PutOff()
    off.add((at(0), 0), (at(10), 9))
    off.advance((at(1), 5))
    off.add((at(9), 0), (at(20), 9))
    assert off.current == ((at(1), 5), (at(20), 9))
    off.add((at(-5), 0), (at(21), 9))  # before what is read now
    off.add((at(-3), 0), (at(22), 9))
    off.advance(None)
    assert off.current == ((at(-5), 0), (at(22), 9))
    off.advance((at(23), 0))
    assert off.current is None
