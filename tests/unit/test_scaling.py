"""How many workers: examples, laws that hold for every load, and a small world in which the decisions act."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goqueue.scaling import Decision, History, Load, Policy, arrival_rate, decide, demand, service_rate

SETTLED = History(since=-1e6)
"""A history that was watched for long enough and wants nothing."""


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


def test_the_rate_of_a_replica() -> None:
    assert service_rate(100, 50.0, 10) == pytest.approx(20.0)
    assert service_rate(0, 0.0, 10) is None
    assert math.isfinite(service_rate(100, 0.0, 10) or math.nan)


class World:
    """Replicas that start after a while and finish jobs at a steady pace, and a scaler that sees them."""

    def __init__(self, policy: Policy, *, job_seconds: float, start_seconds: float = 3.0) -> None:
        self.policy, self.job_seconds, self.start_seconds = policy, job_seconds, start_seconds
        self.now = self.waiting = self.running = 0.0
        self.replicas: list[float] = []
        self.history = History()
        self.counts: list[int] = []
        self.worst_wait = 0.0

    def step(self, arriving: float, seconds: float = 0.5) -> None:
        """Let time pass."""
        self.now += seconds
        self.waiting += arriving * seconds
        slots = self.policy.slots * sum(ready <= self.now for ready in self.replicas)
        self.running -= min(self.running, self.running * seconds / self.job_seconds)
        started = min(self.waiting, max(0.0, slots - self.running))
        self.waiting -= started
        self.running += started
        pace = slots / self.job_seconds
        if slots:
            self.worst_wait = max(self.worst_wait, self.waiting / pace)
        rate = self.policy.slots / self.job_seconds if slots else None
        load = Load(math.ceil(self.waiting - 0.01), math.ceil(self.running - 0.01), 0.0, arriving, rate)
        decision = decide(self.now, len(self.replicas), load, self.policy, self.history)
        self.history = decision.history
        self.replicas = self.replicas[: decision.replicas]
        self.replicas += [self.now + self.start_seconds] * (decision.replicas - len(self.replicas))
        self.counts.append(len(self.replicas))


def test_a_day_of_a_pool() -> None:
    """Idle, a steady stream, a burst, idle again: the wait keeps its promise and nothing flaps."""
    world = World(Policy(maximum=20, slots=10, target=10.0, window=60.0), job_seconds=1.0)
    for arriving, seconds in ((0, 30), (50, 300), (150, 120), (50, 300), (0, 300)):
        for _ in range(seconds * 2):
            world.step(arriving)
    assert world.worst_wait <= 10.0
    assert max(world.counts) < 20
    assert world.counts[-1] == 0
    turns = [later - earlier for earlier, later in pairwise(world.counts) if later != earlier]
    assert sum(earlier * later < 0 for earlier, later in pairwise(turns)) <= 4
