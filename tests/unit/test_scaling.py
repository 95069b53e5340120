"""How many workers: examples, laws that hold for every load, and a small world in which the decisions act."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue.scaling import Decision, History, Load, Policy, arrival_rate, decide, demand
from tests.unit.poolworld import World

SETTLED = History(since=-1e6, looked=0.0, settled=-1e6)
"""A history that was watched for long enough and wants nothing; all replicas have been ready for as long."""


def _now(current: int, load: Load, policy: Policy, history: History = SETTLED) -> Decision:
    return decide(0.0, current, load, policy, history)


def test_the_first_job_wakes_a_pool_from_zero() -> None:
    assert _now(0, Load(waiting=1, running=0), Policy(), History()).replicas == 1


def test_a_burst_gets_all_it_needs_at_once() -> None:
    assert _now(0, Load(waiting=500, running=0), Policy(slots=50), History()).replicas == 10


def test_with_a_known_rate_the_backlog_is_gone_within_the_target() -> None:
    load = Load(waiting=1000, running=0, arrivals=20.0, rate=10.0)
    assert _now(1, load, Policy(maximum=100, slots=10, target=10.0)).replicas == 12


def test_no_more_replicas_than_have_something_to_do() -> None:
    """Long jobs: the formula alone would ask for 60."""
    load = Load(waiting=100, running=0, rate=10 / 60)
    assert _now(1, load, Policy(maximum=100, slots=10, target=10.0)).replicas == 10


def test_jobs_that_wait_too_long_correct_a_rate_that_was_too_good() -> None:
    load = Load(waiting=400, running=40, oldest=30.0, arrivals=1.0, rate=1000.0)
    decision = _now(4, load, Policy(slots=10, target=10.0))
    assert decision.replicas == 5
    assert "30 s" in decision.reason


def test_an_idle_pool_goes_to_zero_only_after_the_window() -> None:
    policy, history, current = Policy(window=60.0), History(), 3
    idle = Load(waiting=0, running=0)
    for second in range(59):
        decision = decide(float(second), current, idle, policy, history)
        history = decision.history
        assert decision.replicas == 3
    assert decide(61.0, current, idle, policy, history).replicas == 0


def test_what_is_not_known_takes_nobody_away_and_the_window_begins_anew() -> None:
    policy = Policy(window=60.0)
    unknown = _now(5, Load(waiting=None, running=0), policy)
    assert unknown.replicas == 5
    later = decide(30.0, 5, Load(waiting=0, running=0), policy, unknown.history)
    assert later.replicas == 5
    assert decide(61.0, 5, Load(waiting=0, running=0), policy, later.history).replicas == 0


def test_a_number_set_by_hand_holds_whatever_there_is_to_do() -> None:
    policy = Policy(minimum=1, maximum=4, pinned=7)
    assert _now(2, Load(waiting=0, running=0), policy).replicas == 7
    assert _now(2, Load(waiting=None, running=None), replace(policy, pinned=0)).replicas == 0


def test_limits_on_change_count_for_a_minute() -> None:
    policy = Policy(maximum=100, up=2, down=1, window=0.0)
    first = decide(0.0, 4, Load(waiting=5000, running=0), policy, SETTLED)
    assert first.replicas == 6
    assert decide(30.0, 6, Load(waiting=5000, running=0), policy, first.history).replicas == 6
    second = decide(61.0, 6, Load(waiting=5000, running=0), policy, first.history)
    assert second.replicas == 8
    assert decide(62.0, 8, Load(waiting=0, running=0), policy, second.history).replicas == 7


def test_new_bounds_count_at_once() -> None:
    assert _now(9, Load(waiting=5000, running=0), Policy(maximum=3)).replicas == 3
    assert _now(0, Load(waiting=0, running=0), Policy(minimum=2), History()).replicas == 2


numbers = st.integers(0, 100_000)
seconds = st.floats(0, 1e6, allow_nan=False)
rates = st.none() | st.floats(1e-6, 1e6)
loads = st.builds(Load, waiting=numbers, running=numbers, oldest=seconds, arrivals=seconds, rate=rates)
policies = st.builds(
    lambda low, more, slots, each, target, window, up, down: Policy(
        low, max(1, low + more), slots, each, target, window, up, down
    ),
    st.integers(0, 20),
    st.integers(0, 100),
    st.integers(1, 1000),
    st.none() | st.integers(1, 1000),
    st.floats(0.1, 1000),
    st.floats(0, 600),
    st.none() | st.integers(1, 50),
    st.none() | st.integers(1, 50),
)
histories = st.builds(
    History,
    since=st.none() | st.floats(-1000, 0),
    wanted=st.lists(st.tuples(st.floats(-600, -1), st.integers(0, 120)), max_size=5).map(lambda it: tuple(sorted(it))),
    changes=st.lists(st.tuples(st.floats(-60, -1), st.integers(-20, 20)), max_size=5).map(tuple),
)


@given(loads, policies, histories, st.integers(0, 120))
def test_always_within_the_bounds_or_on_the_way_to_them(
    load: Load, policy: Policy, history: History, current: int
) -> None:
    replicas = _now(current, load, policy, history).replicas
    assert replicas <= policy.maximum
    assert replicas >= policy.minimum


@given(loads, policies, histories, st.integers(0, 120), st.integers(0, 1000), st.integers(0, 1000), seconds)
def test_more_work_never_means_fewer_workers(
    load: Load, policy: Policy, history: History, current: int, waiting: int, running: int, arrivals: float
) -> None:
    assert load.waiting is not None
    assert load.running is not None
    more = replace(
        load,
        waiting=load.waiting + waiting,
        running=load.running + running,
        arrivals=load.arrivals + arrivals,
        oldest=load.oldest + arrivals,
    )
    assert _now(current, more, policy, history).replicas >= _now(current, load, policy, history).replicas


@given(loads, policies, histories, st.integers(0, 120), st.booleans())
def test_never_down_on_missing_data(load: Load, policy: Policy, history: History, current: int, redis: bool) -> None:
    blind = replace(load, waiting=None) if redis else replace(load, running=None)
    assert _now(current, blind, policy, history).replicas >= min(current, policy.maximum)


@given(loads, policies, histories, st.integers(0, 120))
def test_zero_only_where_nothing_waits_and_nothing_runs(
    load: Load, policy: Policy, history: History, current: int
) -> None:
    if _now(current, load, policy, history).replicas == 0:
        assert load.waiting == 0
        assert load.running == 0


@given(loads, policies, st.integers(0, 120))
def test_running_jobs_keep_their_slots(load: Load, policy: Policy, current: int) -> None:
    asked = demand(load, policy, current)
    assert asked is not None
    assert load.running is not None
    assert asked[0] * policy.slots >= load.running


def test_an_arrival_counter_that_began_anew_is_no_negative_rate() -> None:
    assert arrival_rate([(0, 100), (5, 150), (10, 10)]) == pytest.approx(6.0)
    assert arrival_rate([(0, 100)]) == 0.0
    assert arrival_rate([]) == 0.0


# --- replicas that start ---------------------------------------------------------------------------------------------


def test_a_correction_waits_for_replicas_that_start_and_is_made_once_in_each_target_wait() -> None:
    late = Load(waiting=400, running=40, oldest=30.0, arrivals=1.0, rate=1000.0)
    policy = Policy(slots=10, target=10.0, maximum=100)
    assert _now(4, replace(late, ready=3), policy).replicas == 4
    history, current, ordered = SETTLED, 4, []
    for tenth in range(250):
        decision = decide(tenth / 10, current, replace(late, ready=current), policy, history)
        history, current = decision.history, decision.replicas
        ordered.append(current)
    assert [ordered[0], ordered[99], ordered[100], ordered[199], ordered[200]] == [5, 5, 7, 7, 9]


def test_what_gathers_while_replicas_start_orders_no_more_of_them() -> None:
    """3 jobs a second of half a second each need 2 pods of one slot, and these take a minute to start."""
    world = World(Policy(maximum=30, slots=1, target=10.0, window=60.0), start=60.0)
    world.grow(1)
    world.run(20, [(1.0, "work", 0.5)])
    assert world.ordered == 1
    world.run(60, [(3.0, "work", 0.5)])
    assert max(world.counts) <= 3
    world.run(240, [(3.0, "work", 0.5)])
    assert max(world.counts) <= 5
    assert not world.waiting


def test_jobs_that_come_all_at_once_while_replicas_start_order_what_they_need() -> None:
    world = World(Policy(maximum=30, slots=1, target=10.0, window=60.0), start=60.0)
    world.grow(1)
    world.run(20, [(1.0, "work", 0.5)])
    world.run(20, [(3.0, "work", 0.5)])
    assert max(world.counts) <= 3
    world.step([("work", 0.5)] * 200)
    world.run(0.2)
    assert world.ordered >= 11


def test_replicas_that_never_come_do_not_keep_the_others_from_being_corrected_for_ever() -> None:
    late = Load(waiting=400, running=40, oldest=30.0, arrivals=1.0, rate=1000.0, ready=3)
    policy = Policy(slots=10, target=10.0, maximum=100)
    history, ordered = SETTLED, []
    for second in range(620):
        decision = decide(float(second), 4, late, policy, history)
        history = decision.history
        ordered.append(decision.replicas)
    assert set(ordered[:600]) == {4}
    assert 5 in ordered


# --- jobs of different lengths ---------------------------------------------------------------------------------------


def test_a_few_long_jobs_do_not_make_a_stream_of_short_ones_look_slow() -> None:
    """Of one queue and one type: three jobs of 180 s, then 3 a second of 0.5 s, for which 2 pods are enough."""
    world = World(Policy(maximum=30, slots=1, target=10.0, window=60.0))
    world.step([("work", 180.0)] * 3)
    world.run(185)
    assert len(world.pods) == 3
    before = len(world.counts)
    world.run(120, [(3.0, "work", 0.5)])
    assert max(world.counts[before:]) <= 6
    assert world.worst_wait < 20


def test_short_jobs_before_long_ones_do_not_hide_that_these_need_a_slot_each() -> None:
    world = World(Policy(maximum=60, slots=10, target=10.0, window=60.0))
    world.run(60, [(10.0, "short", 0.1)])
    world.run(200, [(1.0, "long", 120.0)])
    assert world.ordered * 10 >= 120
    assert world.worst_wait < 60


def test_handlers_that_compute_get_the_pods_that_they_need() -> None:
    """One job of 0.2 s at a time in each pod, whatever its 50 slots are: 20 a second need 4 pods."""
    world = World(Policy(maximum=40, slots=50, target=10.0, window=60.0), lanes=1)
    world.run(180, [(20.0, "compute", 0.2)])
    assert 4 <= world.ordered <= 12
    rate = world.pace.rate(50)
    assert rate is not None
    assert 3.5 <= rate <= 7.5  # 5 a second; by 50 slots it would be 250
    assert len(world.waiting) < 100


# --- down ------------------------------------------------------------------------------------------------------------


def test_going_down_interrupts_no_job_and_ends_with_the_pods_that_the_jobs_need() -> None:
    """Five pods with one long job each: the jobs would fit into one, but move they cannot."""
    world = World(Policy(maximum=5, slots=5, target=10.0, window=20.0))
    world.grow(5)
    world.step([("long", 180.0)] * 5)
    assert sorted(len(pod.jobs) for pod in world.pods) == [1] * 5
    world.run(100)
    assert world.ordered == 5
    assert sum(world.now >= pod.asked_until for pod in world.pods) == 1  # the others fetch no more
    world.run(160)
    assert world.interrupted == 0
    assert world.ordered == 0


def test_a_load_that_rises_is_taken_by_pods_that_drain_before_new_ones_are_ordered() -> None:
    world = World(Policy(maximum=20, slots=5, target=10.0, window=20.0), start=1000.0)
    world.grow(4)
    world.step([("long", 300.0)] * 4)
    world.run(60)
    assert sum(world.now < pod.asked_until for pod in world.pods) == 3
    world.step([("long", 300.0)] * 16)
    world.run(1)
    assert world.ordered == 4
    assert sorted(len(pod.jobs) for pod in world.pods) == [5] * 4
    assert world.interrupted == 0


def test_a_day_of_a_pool() -> None:
    """Idle, a steady stream, a burst, idle again: the wait keeps its promise, nothing flaps, nothing is interrupted."""
    world = World(Policy(maximum=20, slots=2, target=10.0, window=60.0))
    for arriving, seconds in ((0, 30), (10, 300), (30, 120), (10, 300), (0, 150)):
        world.run(seconds, [(arriving, "work", 1.0)])
    assert world.worst_wait <= 10.0
    assert world.interrupted == 0
    assert world.counts[-1] == 0
    turns = [later - earlier for earlier, later in pairwise(world.counts) if later != earlier]
    assert sum(earlier * later < 0 for earlier, later in pairwise(turns)) <= 6
