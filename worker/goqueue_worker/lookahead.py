"""How many jobs a worker claims beyond its free slots. Pure: it is told the time."""

from typing import Final

WEIGHT: Final = 0.3
"""Share of the newest measurement in the moving average of the rate."""

DECAY: Final = 0.1
"""The same for the time that a claim takes, where it fell."""

MARGIN: Final = 3
"""How many claims' worth of jobs there are: one under way, one that is being used up, one for the unexpected."""


class Lookahead:
    """Claims for slots that will be free by the time the claim is back.

    A claim takes a round trip and a commit. Without lookahead a worker of short jobs spends that time with empty slots:
    with 5 ms jobs a third of them. By Little's law the slots that fall free meanwhile are the rate at which attempts
    end times the time that a claim takes. Jobs that run for long give a rate near 0, so nothing is ever claimed for
    slots that are not about to be free.
    """

    def __init__(self, most: int, now: float) -> None:
        """`most` bounds the answer; `now` in seconds of a monotonic clock, as everywhere here."""
        self._most = most
        self._rate = 0.0
        self._seconds = 0.0
        self._ended = 0
        self._at = now

    def claimed(self, seconds: float, ended: int, now: float) -> None:
        """A claim took that long; `ended` attempts have ended since the worker started."""
        if now - self._at > 1e-6:
            self._rate += WEIGHT * ((ended - self._ended) / (now - self._at) - self._rate)
            self._ended, self._at = ended, now
        # Up at once, down slowly: commits are mostly quick and now and then slow, and the slow ones empty the slots.
        self._seconds = max(seconds, self._seconds + DECAY * (seconds - self._seconds))

    def missed(self) -> None:
        """Claimed jobs waited for slots that did not come free: start again from 0."""
        self._rate = 0.0

    @property
    def jobs(self) -> int:
        """Jobs to claim beyond the free slots."""
        return round(min(self._most, MARGIN * self._rate * self._seconds))

    @property
    def batch(self) -> int:
        """Jobs that are worth a claim: half of what is held; the other half lasts until it is back."""
        return max(1, self.jobs // 2)
