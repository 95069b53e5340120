"""How much waits in each queue, and for how long its longest-waiting job has.

The members of one priority are contiguous in a ready set, ordered by time. So the oldest of all is the oldest of each
priority's first: one look at the set for each priority that is present, whatever its length.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from goqueue.broker.overflow import Overflow, beyond_of, oldest_of
from goqueue.job import MAX_PRIORITY, ready_priority, ready_score, ready_time_ms


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How much waits in a queue; since when its longest-waiting job could have run, in ms since the epoch (0: empty).

    Both with the jobs beyond the window, whose number is an estimate.
    """

    depth: int
    oldest_ms: int


@dataclass(slots=True)
class _Look:
    """One ready set on the way: the score of the next priority's first member, None after the last one."""

    key: str
    depth: int
    next: float | None
    oldest: float = math.inf

    def take(self, first: Sequence[tuple[bytes, float]]) -> None:
        score = first[0][1] if first else math.inf
        if math.isfinite(score):
            self.oldest = min(self.oldest, ready_time_ms(score))
            self.next = ready_score(ready_priority(score) - 1, 0)
        else:  # an infinite one is not GoQueue's
            self.next = None if score > 0 else ready_score(MAX_PRIORITY, 0)


async def measure(client: Any, overflow: Overflow, keys: dict[str, str]) -> dict[str, QueueDepth]:
    """Depth and oldest of each queue, by the key of its ready set. O(priorities present · log n) for each."""
    if not keys:
        return {}
    async with client.pipeline(transaction=False) as pipe:
        overflow.ask_beyond(pipe, list(keys))
        overflow.ask_oldest(pipe)
        for key in keys.values():
            pipe.zcard(key)
            pipe.zrange(key, 0, 0, withscores=True)
            pipe.zrange(key, -1, -1, withscores=True)
        beyond, marks, new, *replies = await pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    # A user with the rights of an earlier version reads no hash: then the depth is that of the set.
    beyond, marks, new = (() if isinstance(reply, Exception) else reply for reply in (beyond, marks, new))
    looks = []
    for key, depth, first, last in zip(keys.values(), replies[::3], replies[1::3], replies[2::3], strict=True):
        look = _Look(key, depth, None)
        look.take(first)
        if look.next is not None and last and last[0][1] < look.next:
            look.next = None  # as most queues are: one priority
        looks.append(look)
    await _jump(client, [look for look in looks if look.next is not None])
    left_out = oldest_of([*marks, *new])
    found = {}
    for queue, look, more in zip(keys, looks, beyond_of(beyond or [None] * len(keys)), strict=True):
        oldest = min(look.oldest, left_out.get(queue, look.oldest) if more else look.oldest)
        found[queue] = QueueDepth(look.depth + more, 0 if oldest == math.inf else int(oldest))
    return found


async def _jump(client: Any, looks: list[_Look]) -> None:
    """From priority to priority, in all sets at once."""
    while looks:
        async with client.pipeline(transaction=False) as pipe:
            for look in looks:
                pipe.zrange(look.key, look.next, "+inf", byscore=True, offset=0, num=1, withscores=True)
            for look, first in zip(looks, await pipe.execute(), strict=True):
                look.take(first)
        looks = [look for look in looks if look.next is not None]
