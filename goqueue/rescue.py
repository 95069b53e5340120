"""What the death of a worker does to the jobs that it held. Pure.

A death is no failure of the job: it may have been the node, the deployment or a neighbour. So the first deaths charge
no attempt; a job whose workers keep dying is probably the reason, and is charged.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from goqueue.retry import RetryPolicy

UNCHARGED: Final = 2
"""Deaths that charge no attempt. A job with as many is a suspect, and runs in a process of its own."""

SPREAD: Final = 1.0
"""Seconds over which the jobs of one dead worker come back after their first death: a worker that fetches them all in
one batch would die of the same one, with the same neighbours."""

BACKOFF: Final = RetryPolicy(base=2.0, factor=2.0, maximum=300.0, jitter=0.5)
"""Delays from the second death on."""


def delay(deaths: int, *, alone: bool, chance: float | None = None) -> float:
    """Seconds until a job comes back.

    Args:
        deaths: Workers that died while they held it, this one included.
        alone: Whether this worker held no other job.
        chance: In [0, 1), in place of the dice in tests.
    """
    if deaths > 1:
        return BACKOFF.delay(deaths - 1, chance)
    if alone:
        return 0.0
    return SPREAD * (random.random() if chance is None else chance)  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True, slots=True)
class Orphan:
    """A job held by a worker that is no more; `deaths` without this one."""

    id: int
    worker_id: int
    deaths: int


def delays(orphans: Iterable[Orphan], held: Counter[int]) -> dict[int, float]:
    """Job to the seconds until it comes back.

    `held` counts the jobs that each worker was seen to hold before, and counts these as well.
    """
    found = list(orphans)
    held.update(orphan.worker_id for orphan in found)
    return {orphan.id: delay(orphan.deaths + 1, alone=held[orphan.worker_id] == 1) for orphan in found}
