"""When a failed attempt runs again: exponential backoff with jitter. Pure mathematics."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Backoff bounds, all in seconds; `jitter` is the share of the delay that chance may take away (0 to 1).

    The delay before attempt n+1 is `base * factor**(n-1)`, capped at `maximum`, then shortened by up to
    `jitter` of itself ("equal jitter" at 0.5, "full jitter" at 1, after Brooker, "Exponential Backoff And
    Jitter", 2015), so that jobs that failed together do not come back together.

    Raises:
        ValueError: a bound is out of order.
    """

    base: float = 2.0
    factor: float = 2.0
    maximum: float = 3600.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.base <= self.maximum:
            raise ValueError("retry base must lie between 0 and the maximum")
        if self.factor < 1:
            raise ValueError("retry factor must be at least 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError("retry jitter must lie between 0 and 1")

    def ceiling(self, attempt: int) -> float:
        """The longest delay in seconds after failed attempt number `attempt` (1 is the first)."""
        if self.base == 0:
            return 0.0
        try:
            return min(self.maximum, self.base * self.factor ** (max(attempt, 1) - 1))
        except OverflowError:
            return self.maximum

    def delay(self, attempt: int, chance: float | None = None) -> float:
        """Seconds to wait after failed attempt `attempt`; `chance` in [0, 1) stands in for the dice in tests."""
        roll = random.random() if chance is None else chance  # noqa: S311 - jitter, not a secret
        return self.ceiling(attempt) * (1 - self.jitter * roll)


DEFAULT_RETRY = RetryPolicy()
