"""How many jobs a worker fetches at once, so that idle workers share a burst. Pure."""

from typing import Final

FIRST: Final = 1
"""Jobs that a worker fetches first after a time without any."""

GROWTH: Final = 2
"""How many times as many as the last fetch brought the next one may bring."""

IDLE_AFTER: Final = 0.05
"""Seconds for which a fetch of more than `FIRST` jobs waits; a worker that got none until then had a time without."""


class FetchShare:
    """A bound for fetches that grows while there are jobs, as TCP's window does in its slow start (RFC 5681).

    Redis gives all that a blocked fetch asks for to the worker that waits longest. If each asked for all of its free
    slots, a burst that fits into one worker would go to one, and the others would stay idle. From one job on, doubled
    with each fetch, 50 slots are filled in six fetches, and a burst is spread over all workers that wait.
    """

    def __init__(self) -> None:
        self.alone = False
        """Whether no other worker serves any of the queues: there is nobody to share with."""
        self._bound = FIRST

    def of(self, room: int) -> int:
        """How many jobs to fetch where there is room for so many."""
        return room if self.alone else min(room, self._bound)

    @property
    def fresh(self) -> bool:
        """Whether the next fetch is the first one after a time without jobs."""
        return self.alone or self._bound == FIRST

    def fetched(self, asked: int, jobs: int) -> None:
        """A fetch that asked for so many brought so many."""
        if jobs < asked:
            self._bound = FIRST  # there are no more
        self._bound = max(FIRST, GROWTH * jobs, self._bound)
