"""Which pods go: laws that hold for every pool, checked with the order in which a ReplicaSet removes pods."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from goqueue_operator.draining import DEAF_SECONDS, DRAIN_SECONDS, Plan, Pod, Worker, plan

workers = st.builds(
    Worker,
    st.integers(0, 10**6),
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from([0.0, 1.0, 10.0, 30.0]),
    st.sampled_from([0.0, 10.0, 100.0]),
)
pods = st.lists(
    st.builds(
        Pod,
        st.text("abcdef", min_size=1, max_size=4),
        st.lists(workers, max_size=2).map(tuple),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.integers(-1, 5),
        st.sampled_from(["old", "new"]),
    ),
    max_size=8,
    unique_by=lambda pod: pod.name,
)


def removed(before: Sequence[Pod], made: Plan, ordered: int) -> list[list[Pod]]:
    """What each way to remove pods takes: all of one ReplicaSet, by the order of `ActivePodsWithRanks`."""
    going = max(0, len(before) - made.replicas) if made.replicas < ordered else 0
    ways = []
    for revision in {pod.revision for pod in before}:
        mine = [pod for pod in before if pod.revision == revision]
        # Of pods that are alike in all this the one is taken that suits least.
        mine.sort(key=lambda pod: (pod.assigned, not pod.pending, pod.ready, pod.cost, pod.drained))
        ways.append(mine[:going])
    return ways


@given(pods, st.integers(0, 10), st.integers(0, 10))
def test_no_pod_goes_whose_worker_runs_a_job_or_may_begin_one(before: list[Pod], ordered: int, serving: int) -> None:
    made = plan(before, ordered, serving)
    assert made.replicas >= serving
    for taken in removed(before, made, ordered):
        for pod in taken:
            assert pod.busy == 0
            assert all(worker.asked > 0 for worker in pod.workers)


@given(pods, st.integers(0, 10), st.integers(0, 10))
def test_no_fewer_pods_are_ordered_than_are_busy(before: list[Pod], ordered: int, serving: int) -> None:
    busy = sum(pod.busy > 0 for pod in before)
    assert plan(before, ordered, serving).replicas >= min(ordered, busy)


@given(pods, st.integers(0, 10), st.integers(0, 10))
def test_only_workers_of_pods_that_are_not_needed_are_asked(before: list[Pod], ordered: int, serving: int) -> None:
    made = plan(before, ordered, serving)
    known = [worker for pod in before for worker in pod.workers]
    assert made.ask <= made.drain <= {worker.id for worker in known}
    assert made.leaving <= max(0, ordered - serving)
    if ordered <= serving:
        assert not made.drain
        assert made.release == {worker.id for worker in known if worker.asked > 0}


def pod(name: str, busy: int = 0, *, asked: float = 0.0, draining: bool = False, cost: int = 0) -> Pod:
    return Pod(name, (Worker(int(name), busy, draining, asked),), cost=cost)


def test_the_least_busy_drain_and_the_busiest_stay() -> None:
    made = plan([pod("1", 3), pod("2", 1), pod("3", 5), pod("4", 2)], 4, 2)
    assert made.drain == {2, 4}
    assert made.replicas == 4
    assert made.costs == {"1": 3, "2": 1, "3": 5, "4": 2}


def test_a_drained_pod_goes() -> None:
    made = plan([pod("1", asked=25.0, draining=True, cost=-1), pod("2", 1, cost=1)], 2, 1)
    assert (made.replicas, made.costs, made.leaving) == (1, {}, 1)


def test_pods_beyond_the_order_are_taken_first_and_a_busy_one_is_not_among_them() -> None:
    idle = [Pod("1", (), assigned=False, ready=False), Pod("2", (), assigned=False, ready=False)]
    assert plan([*idle, pod("3", 1, cost=1)], 2, 0).replicas == 1


def test_an_idle_pod_that_kubernetes_would_not_take_first_waits_for_its_cost() -> None:
    """The busy one's cost is still that of an idle pod."""
    before = [pod("1", asked=25.0, draining=True), pod("2", 1)]
    made = plan(before, 2, 1)
    assert made.replicas == 2
    assert made.costs == {"1": -1, "2": 1}


def test_a_busy_pod_that_is_not_ready_keeps_the_number_as_it_is() -> None:
    """Kubernetes takes it before every ready one, whatever the costs say."""
    before = [pod("1", asked=25.0, draining=True, cost=-1), replace(pod("2", 1, cost=1), ready=False)]
    assert plan(before, 2, 1).replicas == 2


def test_pods_without_a_worker_go_first_and_at_once() -> None:
    starting = Pod("9", pending=True, ready=False)
    made = plan([pod("1"), starting], 2, 1)
    assert (made.replicas, made.drain) == (1, frozenset())


def test_replicas_that_have_no_pod_yet_are_not_ordered_any_more() -> None:
    made = plan([pod("1", 1)], 5, 1)
    assert (made.replicas, made.drain) == (1, frozenset())


def test_during_a_rollout_no_replica_set_loses_more_than_its_own_drained_pods() -> None:
    old = [replace(pod("1", asked=25.0, draining=True, cost=-1), revision="old"), replace(pod("2", 1), revision="old")]
    new = [replace(pod("3", 1), revision="new")]
    assert plan([*old, *new], 3, 2).replicas == 3
    assert plan(old, 2, 1).replicas == 1


def test_a_worker_whose_request_is_about_to_end_does_not_go_and_its_request_is_renewed() -> None:
    made = plan([pod("1", asked=3.0, draining=True, cost=-1), pod("2", 1, cost=1)], 2, 1)
    assert (made.replicas, made.ask) == (2, frozenset({1}))
    assert not plan([pod("1", asked=DRAIN_SECONDS, draining=True), pod("2", 1)], 2, 1).ask


def test_an_idle_worker_that_does_not_understand_the_request_goes_after_a_while() -> None:
    def one(for_seconds: float) -> Pod:
        return Pod("1", (Worker(1, 0, False, 25.0, for_seconds),), cost=-1)

    assert plan([one(DEAF_SECONDS - 1)], 1, 0).replicas == 1
    assert plan([one(DEAF_SECONDS + 1)], 1, 0).replicas == 0


def test_what_a_person_orders_goes_though_it_is_busy_once_its_time_is_over() -> None:
    before = [pod("1", 1, asked=25.0, cost=1), pod("2", 1, asked=25.0, cost=1)]
    assert plan(before, 2, 0).replicas == 2
    assert plan(before, 2, 0, forced=True).replicas == 0


def test_drained_pods_are_released_where_more_are_needed() -> None:
    before = [pod("1", 0, asked=25.0, draining=True), pod("2", 1, asked=25.0, draining=True), pod("3", 2)]
    made = plan(before, 3, 2)
    assert (made.drain, made.release) == (frozenset({1}), frozenset({2}))
    assert plan(before, 3, 3).release == {1, 2}
