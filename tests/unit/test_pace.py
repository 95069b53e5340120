"""How fast workers are, from what they say of themselves."""

from typing import Any

import pytest

from goqueue.pace import MOST, Pace, Told


def told(
    at: float,
    ended: dict[str, tuple[dict[str, int], float]],
    running: dict[str, tuple[dict[str, int], float]] | None = None,
    *,
    id: int = 1,
    started: float = 0.0,
    slots: int = 10,
    queue: str = "default",
) -> Told:
    types: dict[str, Any] = {kind: {"ended": sizes, "seconds": seconds} for kind, (sizes, seconds) in ended.items()}
    for kind, (ages, age) in (running or {}).items():
        types.setdefault(kind, {}).update({"running": ages, "age": age})
    return Told(id, started, at, slots, False, {queue: {"types": types}})


def after(*looks: Told, **more: Any) -> Pace:
    pace = Pace()
    pace.learn(0.0, [told(0.0, {}, id=99)])
    for look in looks:
        pace.learn(look.at, [look], **more)
    return pace


def test_jobs_of_half_a_second_on_ten_slots_are_twenty_a_second() -> None:
    assert after(told(0.0, {}), told(3.0, {"work": ({"0.5": 60}, 30.0)})).rate(10) == pytest.approx(20.0)


def test_nothing_is_known_before_a_job_has_ended() -> None:
    assert after(told(0.0, {}), told(3.0, {}, {"work": ({"5": 3}, 9.0)})).rate(10) is None


def test_what_a_worker_did_before_it_was_first_seen_is_no_step() -> None:
    """As a new leader sees it: hours of slow jobs, then fast ones."""
    pace = Pace()
    pace.learn(0.0, [told(5000.0, {"work": ({"10": 5000}, 45_000.0)}, started=0.0)])
    assert pace.rate(10) is None
    pace.learn(3.0, [told(5003.0, {"work": ({"10": 5000, "0.25": 100}, 45_020.0)}, started=0.0)])
    assert pace.rate(10) == pytest.approx(50.0, rel=0.05)


def test_the_first_jobs_of_a_worker_that_was_seen_to_come_count() -> None:
    pace = Pace()
    pace.learn(0.0, [])
    pace.learn(3.0, [told(103.0, {"work": ({"0.5": 30}, 15.0)}, started=100.0)])
    assert pace.rate(10) == pytest.approx(20.0)


def test_a_worker_that_registers_anew_is_not_counted_twice() -> None:
    """Its process goes on counting from before, under a new id."""
    pace = after(told(0.0, {}), told(3.0, {"work": ({"0.5": 60}, 30.0)}))
    pace.learn(4.0, [told(4.0, {"work": ({"0.5": 60, "10": 900}, 8000.0)}, id=2, started=3.5)])
    assert pace.rate(10) == pytest.approx(20.0)


def test_a_heartbeat_that_is_seen_twice_counts_once() -> None:
    look = told(3.0, {"work": ({"0.5": 60}, 30.0)})
    pace = after(told(0.0, {}), look)
    weight = pace.estimates["default", "work"].weight
    pace.learn(3.0, [look])
    assert pace.estimates["default", "work"].weight == weight


def test_jobs_count_from_when_they_started() -> None:
    """Three of 180 s that end beside ten of half a second started long before these."""
    pace = after(told(0.0, {}), told(3.0, {"work": ({"0.5": 10, "300": 3}, 545.0)}))
    assert pace.rate(1) is not None
    mean = 1 / (pace.rate(1) or 0)
    assert mean < 10  # by number of ends it would be 42


def test_a_stream_of_long_jobs_has_its_own_mean() -> None:
    assert after(told(0.0, {}), told(3.0, {"work": ({"300": 3}, 540.0)})).rate(1) == pytest.approx(1 / 180)


def test_a_job_that_runs_for_longer_than_the_mean_raises_it() -> None:
    before = after(told(0.0, {}), told(3.0, {"work": ({"0.5": 2}, 1.0)}))
    pace = after(
        told(0.0, {}),
        told(3.0, {"work": ({"0.5": 2}, 1.0)}),
        told(33.0, {"work": ({"0.5": 2}, 1.0)}, {"work": ({"60": 10}, 300.0)}),
    )
    assert (pace.rate(10) or 0) < (before.rate(10) or 0) / 20


def test_the_pace_of_each_queue_counts_by_what_it_has_to_do() -> None:
    slow = told(3.0, {"slow": ({"10": 10}, 100.0)}, queue="a", id=1)
    quick = told(3.0, {"quick": ({"0.1": 100}, 10.0)}, queue="b", id=2)
    pace = Pace()
    pace.learn(0.0, [told(0.0, {}, queue="a", id=1), told(0.0, {}, queue="b", id=2)])
    pace.learn(3.0, [slow, quick])
    assert pace.rate(10, {"a": 50.0, "b": 0.0}) == pytest.approx(1.0)
    assert pace.rate(10, {"a": 0.0, "b": 50.0}) == pytest.approx(100.0)
    assert pace.rate(10, {"a": 50.0, "b": 50.0}) == pytest.approx(1 / (0.5 * 1.0 + 0.5 * 0.01))


def test_types_count_by_what_waits_where_that_is_known() -> None:
    pace = after(told(0.0, {}), told(3.0, {"slow": ({"10": 1}, 10.0), "quick": ({"0.1": 100}, 10.0)}))
    assert pace.rate(10, None, {"default": {"slow": 5.0}}) == pytest.approx(1.0)
    assert pace.rate(10, None, {"default": {"quick": 5.0}}) == pytest.approx(100.0)


def saturated(computing: float, awaiting: float) -> Pace:
    """One worker with fifty slots and jobs waiting all the time, whose slots are busy for so many seconds a second."""
    pace, compute, wait = Pace(), 0, 0
    for look in range(5):
        at = 3.0 * look
        compute, wait = round(computing * at / 0.1), round(awaiting * at / 0.5)
        ended = {"compute": ({"0.1": compute}, compute * 0.1), "wait": ({"0.5": wait}, wait * 0.5)}
        pace.learn(at, [told(at, {kind: one for kind, one in ended.items() if one[1]}, slots=50)], {"default": 60.0})
    return pace


def test_handlers_that_compute_use_one_slot_and_those_that_wait_use_all() -> None:
    assert saturated(1.0, 0.0).rate(50) == pytest.approx(10.0, rel=0.05)
    assert saturated(0.0, 50.0).rate(50) == pytest.approx(100.0, rel=0.05)


def test_a_worker_that_had_nothing_to_do_says_nothing_of_its_slots() -> None:
    pace = after(told(0.0, {}, slots=50), told(3.0, {"work": ({"0.5": 2}, 1.0)}, slots=50))
    assert pace.rate(50) == pytest.approx(100.0)


def test_more_slots_in_use_than_were_thought_usable_are_usable() -> None:
    pace = saturated(1.0, 0.0)
    assert pace.estimates["default", "compute"].usable == pytest.approx(1.0, rel=0.05)
    pace.learn(15.0, [told(15.0, {"compute": ({"0.1": 120 + 600}, 72.0)}, slots=50)], {})
    assert pace.estimates["default", "compute"].usable == pytest.approx(20.0, rel=0.05)


def test_the_pace_is_kept_while_nothing_happens() -> None:
    pace = after(told(0.0, {}), told(3.0, {"work": ({"0.5": 60}, 30.0)}))
    pace.learn(1e6, [])
    assert pace.rate(10) == pytest.approx(20.0)


def test_another_process_goes_on_with_the_pace_that_was_saved() -> None:
    before = saturated(1.0, 0.0)
    after = Pace()
    after.restore(before.saved())
    assert after.rate(50) == pytest.approx(before.rate(50), rel=0.1)


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"queue": "a", "type": "b", "seconds": "much"},
        {"queue": "a", "type": "b", "seconds": -1},
        {"queue": "a", "type": "b", "seconds": 1, "usableSlots": 0},
        {"queue": "a", "type": "b", "seconds": float("inf")},
    ],
)
def test_what_is_saved_and_not_understood_is_left_out(saved: dict[str, Any]) -> None:
    pace = Pace()
    pace.restore([saved])
    assert pace.rate(10) is None


def test_workers_of_an_earlier_version_tell_their_pace_by_queue() -> None:
    def old(at: float, finished: int, seconds: float) -> Told:
        return Told(1, 0.0, at, 10, False, {"default": {"busy": 0, "finished": finished, "seconds": seconds}})

    pace = Pace()
    pace.learn(0.0, [old(0.0, 0, 0.0)])
    pace.learn(3.0, [old(3.0, 60, 30.0)])
    assert pace.rate(10) == pytest.approx(20.0)


def test_counters_that_cannot_be_read_change_nothing() -> None:
    pace = Pace()
    pace.learn(0.0, [Told(1, 0.0, 0.0, 10, False, {"default": {"types": "none"}, "other": 5})])
    pace.learn(3.0, [Told(1, 0.0, 3.0, 10, False, {"default": {"types": {"work": {"ended": {"x": "y"}}}}})])
    assert pace.rate(10) is None


def test_the_number_of_types_that_are_remembered_is_bounded() -> None:
    many = {f"type-{number}": ({"0.5": 1}, 0.5) for number in range(3 * MOST)}
    pace = after(told(0.0, {}), told(3.0, many))
    assert len(pace.estimates) == MOST
