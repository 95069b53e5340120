"""A burst is shared by the workers that wait, and costs a lone worker nothing."""

from goqueue_worker.share import FetchShare

SLOTS = 50


def spread(jobs: int, workers: int) -> list[int]:
    """How many jobs each of the idle workers gets, where they fetch in turn."""
    shares = [FetchShare() for _ in range(workers)]
    taken = [0] * workers
    left = jobs
    while left:
        for number, share in enumerate(shares):
            asked = share.of(SLOTS - taken[number])
            got = min(asked, left)
            share.fetched(asked, got)
            taken[number] += got
            left -= got
    return taken


def test_a_burst_that_fits_one_worker_is_spread_over_all() -> None:
    assert spread(50, 1) == [50]
    assert spread(5, 5) == [1] * 5
    taken = spread(50, 5)
    assert min(taken) >= 5
    assert max(taken) <= 20, "without the bound one gets 50"


def test_the_bound_grows_to_all_slots_within_a_few_fetches() -> None:
    share = FetchShare()
    asked = []
    for _ in range(7):
        asked.append(share.of(SLOTS))
        share.fetched(asked[-1], asked[-1])
    assert asked == [1, 2, 4, 8, 16, 32, 50]
    assert not share.fresh


def test_a_worker_with_few_free_slots_keeps_the_bound_that_it_had() -> None:
    share = FetchShare()
    for jobs in (1, 2, 4, 8, 16, 32):
        share.fetched(jobs, jobs)
    share.fetched(2, 2)
    assert share.of(SLOTS) == SLOTS


def test_it_follows_what_there_is_and_begins_anew_where_there_was_nothing() -> None:
    share = FetchShare()
    for jobs in (1, 2, 4, 8):
        share.fetched(jobs, jobs)
    share.fetched(16, 3)
    assert share.of(SLOTS) == 6
    share.fetched(6, 0)
    assert (share.of(SLOTS), share.fresh) == (1, True)


def test_a_lone_worker_takes_all_that_it_has_room_for() -> None:
    share = FetchShare()
    share.alone = True
    assert (share.of(SLOTS), share.fresh) == (SLOTS, True)
