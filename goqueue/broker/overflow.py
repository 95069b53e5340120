"""What Redis keeps of the jobs that are beyond the window: where they begin, and how many there are.

Keys, after the prefix:
- `overflow:new`  sorted set, written by whoever leaves jobs out: `queue priority` = smallest id,
                  `queue priority since` = earliest time (ms). `ZADD LT` makes each the minimum.
- `overflow`      the same, owned by the leader; it takes the new ones over before it reads PostgreSQL, so that a job
                  marked after the leader's snapshot is a new mark and is not passed over.
                  `queue priority listed` = earliest time of those found by `dispatch_at`, for `oldest` only.
- `beyond`        hash: queue = about how many jobs; the leader corrects it by PostgreSQL's count.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from goqueue.broker.reading import job_id, number, words
from goqueue.job import ReadyJob
from goqueue.window import Level, Mark

_TAKE: Final = """
redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[1], KEYS[2], 'AGGREGATE', 'MIN')
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '+inf')
return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
"""

_MARK: Final = re.compile(r"(?P<queue>\S+) (?P<priority>-?[0-9]{1,3})(?: (?P<what>since|listed))?")


def _members(level: Level, mark: Mark) -> dict[str, int]:
    name = f"{level.queue} {level.priority}"
    return {name: mark.id, f"{name} since": mark.since_ms}


IDS: Final = 12
"""Digits of a member of a ready set."""


def member(job_id: int) -> str:
    """A job's id as it stands in a ready set: Redis orders those of equal score as text, and 9 shall run before 10."""
    return f"{job_id:0{IDS}d}"


@dataclass(frozen=True, slots=True)
class Size:
    """Jobs of one queue in its ready set, and about how many beyond it."""

    depth: int
    beyond: int


class Overflow:
    """The marks in one Redis, and what the leader does with the ready sets. Raises what `speaking` raises."""

    def __init__(self, client: Any, prefix: str, speaking: Callable[[str], AbstractAsyncContextManager[None]]) -> None:
        self._redis = client
        self._prefix = prefix
        self._speaking = speaking
        self._own = f"{prefix}:overflow"
        self._new = f"{prefix}:overflow:new"
        self._beyond = f"{prefix}:beyond"
        self._take = client.register_script(_TAKE)

    # --- as part of a pipeline ---------------------------------------------------------------------------------------

    def mark(self, pipe: Any, marks: Mapping[Level, Mark]) -> None:
        """Lower the marks."""
        members = {name: at for level, mark in marks.items() for name, at in _members(level, mark).items()}
        pipe.zadd(self._new, members, lt=True)

    def count(self, pipe: Any, queue: str, jobs: int) -> None:
        """Count jobs that went beyond the window."""
        pipe.hincrby(self._beyond, queue, jobs)

    def ask_beyond(self, pipe: Any, queues: Sequence[str]) -> None:
        """Read how many jobs are beyond the windows; the answer is for `beyond_of`."""
        pipe.hmget(self._beyond, queues)

    def ask_oldest(self, pipe: Any) -> None:
        """Read all marks; the two answers together are for `oldest_of`."""
        pipe.zrange(self._own, 0, -1, withscores=True)
        pipe.zrange(self._new, 0, -1, withscores=True)

    # --- for the leader ----------------------------------------------------------------------------------------------

    def _ready(self, queue: str) -> str:
        return f"{self._prefix}:ready:{queue}"

    async def take(self, marks: Mapping[Level, Mark]) -> dict[Level, Mark]:
        """Add these marks, take over all new ones, and return what there is."""
        await self.lower(marks)
        async with self._speaking("refill"):
            flat = await self._take(keys=[self._own, self._new])
        found = _understood(zip(flat[::2], map(float, flat[1::2]), strict=True))
        return {level: Mark(at, found.get((level, "since"), 0)) for (level, what), at in found.items() if what == ""}

    async def lower(self, marks: Mapping[Level, Mark]) -> None:
        """Lower the marks."""
        if marks:
            async with self._speaking("mark"), self._redis.pipeline(transaction=False) as pipe:
                self.mark(pipe, marks)
                await pipe.execute()

    async def move(self, level: Level, mark: Mark | None) -> None:
        """Set the leader's mark of a level; None: nothing of it is left out."""
        async with self._speaking("mark"):
            if mark is None:
                await self._redis.zrem(self._own, *_members(level, Mark(0, 0)))
            else:
                await self._redis.zadd(self._own, _members(level, mark))

    async def show_listed(self, level: Level, since_ms: int | None) -> None:
        """Set since when jobs wait that the leader finds by their `dispatch_at`; None: there are none."""
        name = f"{level.queue} {level.priority} listed"
        async with self._speaking("mark"):
            if since_ms is None:
                await self._redis.zrem(self._own, name)
            else:
                await self._redis.zadd(self._own, {name: since_ms})

    async def sizes(self, queues: Sequence[str]) -> dict[str, Size]:
        """How many jobs of each queue are in Redis, and beyond."""
        async with self._speaking("refill"), self._redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.zcard(self._ready(queue))
            self.ask_beyond(pipe, queues)
            *depths, beyond = await pipe.execute()
        return {queue: Size(*pair) for queue, *pair in zip(queues, depths, beyond_of(beyond), strict=True)}

    async def ahead(self, queue: str, score: float) -> int:
        """Members of a ready set up to this score, itself included."""
        async with self._speaking("refill"):
            return int(await self._redis.zcount(self._ready(queue), "-inf", score))

    async def refill(self, queue: str, jobs: Sequence[ReadyJob]) -> int:
        """Add jobs that were beyond the window; how many were not there yet."""
        async with self._speaking("refill"):
            added = int(await self._redis.zadd(self._ready(queue), {member(job.id): job.score for job in jobs}))
        await self.recount(queue, -added)
        return added

    async def tail(self, queue: str, count: int) -> list[ReadyJob]:
        """The last members of a ready set."""
        async with self._speaking("trim"):
            members = await self._redis.zrange(self._ready(queue), -count, -1, withscores=True)
        jobs = {name: job_id(name) for name, _ in members}
        if odd := [name for name, found in jobs.items() if found is None]:
            await self._redis.zrem(self._ready(queue), *odd)
        return [ReadyJob(found, queue, score) for name, score in members if (found := jobs[name]) is not None]

    async def trim(self, queue: str, jobs: Sequence[ReadyJob], beyond: int) -> None:
        """Take jobs out of a ready set, of which so many wait on beyond it. The caller has marked them."""
        async with self._speaking("trim"):
            await self._redis.zrem(self._ready(queue), *(member(job.id) for job in jobs))
        await self.recount(queue, beyond)

    async def recount(self, queue: str, difference: int) -> None:
        """Correct how many jobs are beyond the window."""
        if difference:
            async with self._speaking("count"):
                await self._redis.hincrby(self._beyond, queue, difference)

    async def forget(self, queue: str) -> None:
        """Nothing of the queue is beyond its window."""
        async with self._speaking("count"):
            await self._redis.hdel(self._beyond, queue)


def beyond_of(reply: Sequence[bytes | None]) -> list[int]:
    """Jobs beyond the windows, in the order of the queues that were asked for."""
    return [number(count or b"") or 0 for count in reply]


def oldest_of(reply: Sequence[tuple[bytes, float]]) -> dict[str, int]:
    """Queue to the earliest time (ms) at which a job that is left out could have run."""
    oldest: dict[str, int] = {}
    for (level, what), at in _understood(reply).items():
        if what:
            oldest[level.queue] = min(at, oldest.get(level.queue, at))
    return oldest


def _understood(members: Iterable[tuple[bytes, float]]) -> dict[tuple[Level, str], int]:
    """The marks by their level and what each is of (empty: the smallest id). What another program wrote there is
    passed over."""
    found: dict[tuple[Level, str], int] = {}
    for name, at in members:
        parts = _MARK.fullmatch(words(name))
        if parts is not None and math.isfinite(at):
            level = Level(parts["queue"], int(parts["priority"]))
            key = (level, parts["what"] or "")
            found[key] = min(int(at), found.get(key, int(at)))
    return found
