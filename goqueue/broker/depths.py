"""How much waits in each queue, and for how long its longest-waiting job has.

The members of one priority are contiguous in a ready set, ordered by time. So the oldest of all is the oldest of each
priority's first: one look at the set for each priority that is present, whatever its length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from goqueue.broker.overflow import Overflow, beyond_of, oldest_of
from goqueue.job import ready_priority, ready_score, ready_time_ms


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
    oldest: float = float("inf")

    def take(self, first: Sequence[tuple[bytes, float]]) -> None:
        if first:
            score = first[0][1]
            self.oldest = min(self.oldest, ready_time_ms(score))
            self.next = ready_score(ready_priority(score) - 1, 0)
        else:
            self.next = None


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
        beyond, marks, new, *replies = await pipe.execute()
    looks = []
    for key, depth, first, last in zip(keys.values(), replies[::3], replies[1::3], replies[2::3], strict=True):
        look = _Look(key, depth, None)
        look.take(first)
        if not last or ready_priority(last[0][1]) == ready_priority(first[0][1] if first else last[0][1]):
            look.next = None  # as most queues are: one priority
        looks.append(look)
    await _jump(client, [look for look in looks if look.next is not None])
    left_out = oldest_of([*marks, *new])
    found = {}
    for queue, look, more in zip(keys, looks, beyond_of(beyond), strict=True):
        oldest = min(look.oldest, left_out.get(queue, look.oldest) if more else look.oldest)
        found[queue] = QueueDepth(look.depth + more, 0 if oldest == float("inf") else int(oldest))
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
