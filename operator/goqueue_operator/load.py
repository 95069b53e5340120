"""What there is to do, as the autoscaler sees it: Redis says what waits, the workers' rows what runs and how fast."""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from goqueue.errors import BrokerUnavailable, StoreUnavailable
from goqueue.pace import Pace, Told
from goqueue.scaling import Load, arrival_rate
from goqueue.service import JobService
from goqueue.store import dispatch, queues
from goqueue.store.dispatch import WorkerRow
from goqueue_operator import rows
from goqueue_operator.shares import Share

ARRIVAL_SECONDS: Final = 20.0
"""Seconds over which arrivals are averaged."""

SAMPLE: Final = 50
"""Jobs at each end of a queue whose types are looked up."""

SAMPLE_SECONDS: Final = 2.0
"""Shortest time between two samples."""

log = structlog.get_logger(__name__)


Waiting = dict[str, tuple[int, float]]
"""Queue → (jobs that could run, age of the longest-waiting one in seconds)."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What PostgreSQL says of all open jobs. `running`: id of a worker → jobs that it holds."""

    waiting: Waiting
    running: dict[int, int]


@dataclass(frozen=True, slots=True)
class Facts:
    """One look at the stores. None: not known."""

    waiting: Waiting | None
    arrivals: dict[str, float]
    """Jobs a second, by queue."""
    workers: list[WorkerRow] | None
    paused: frozenset[str]
    types: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Queue → type → jobs of it, in a sample of what waits."""

    def checked(self, counted: Counted | None) -> "Facts":
        """The same, with more work where PostgreSQL knows of more.

        Redis may have lost what it held. And a worker says only with its heartbeat how much it holds: what it fetched
        since then is missing on both sides.
        """
        if counted is None:
            return replace(self, waiting=None)
        busy = counted.running
        workers = self.workers and [replace(one, busy=max(one.busy, busy.get(one.id, 0))) for one in self.workers]
        return replace(self, waiting=_larger(self.waiting or {}, counted.waiting), workers=workers)


def _larger(one: Waiting, other: Waiting) -> Waiting:
    """For each queue the larger number and the longer wait of the two: each may know of jobs that the other misses."""
    none = (0, 0.0)
    pairs = {queue: (one.get(queue, none), other.get(queue, none)) for queue in {*one, *other}}
    return {queue: (max(a[0], b[0]), max(a[1], b[1])) for queue, (a, b) in pairs.items()}


def learn(pace: Pace, now: float, own: Sequence[WorkerRow], waiting: Waiting | None, paused: Collection[str]) -> None:
    """Let the pace of a pool take in what its workers say."""
    told = [
        Told(row.id, row.started_at.timestamp(), row.heartbeat_at.timestamp(), row.concurrency, row.draining, row.stats)
        for row in own
    ]
    oldest = {queue: age for queue, (count, age) in (waiting or {}).items() if count and queue not in paused}
    pace.learn(now, told, oldest)


class Looker:
    """Reads the facts."""

    def __init__(self, service: JobService, known: Sequence[str]) -> None:
        self._service = service
        self._known = list(known)
        self._arrived: deque[tuple[float, dict[str, int]]] = deque()
        self.redis_away = False
        self._sampled: dict[str, dict[str, float]] = {}
        self._sampled_at = -SAMPLE_SECONDS

    async def look(self, named: Iterable[str] = ()) -> Facts:
        """One look at the known queues and at those that pools name; what cannot be read is None."""
        workers, paused = await self._rows()
        names = list(dict.fromkeys((*self._known, *named)))
        waiting = await self._depths(names)
        self.redis_away = waiting is None
        types = await self._types(waiting or {})
        facts = Facts(waiting, self._arrivals(names), workers, frozenset(paused), types)
        return facts.checked(await self.counted()) if waiting is None else facts

    async def _rows(self) -> tuple[list[WorkerRow] | None, set[str]]:
        try:
            async with self._service.database.connection() as connection:
                return await dispatch.workers(connection), await queues.paused(connection)
        except StoreUnavailable:
            return None, set()

    async def _depths(self, queues: Sequence[str]) -> Waiting | None:
        try:
            depths = await self._service.broker.depths(queues)
            self._arrived.append((time.monotonic(), await self._service.broker.arrived()))
        except BrokerUnavailable:
            return None
        while len(self._arrived) > 2 and self._arrived[1][0] < time.monotonic() - ARRIVAL_SECONDS:
            self._arrived.popleft()
        now_ms = time.time() * 1000
        return {
            queue: (depth.depth, max(0.0, (now_ms - depth.oldest_ms) / 1000) if depth.oldest_ms else 0.0)
            for queue, depth in depths.items()
        }

    async def _types(self, waiting: Waiting) -> dict[str, dict[str, float]]:
        """Of what types the waiting jobs are, in a sample: Redis holds ids only."""
        if time.monotonic() - self._sampled_at < SAMPLE_SECONDS:
            return self._sampled
        self._sampled_at = time.monotonic()
        self._sampled = {}
        if some := [queue for queue, (count, _) in waiting.items() if count > 1]:
            with contextlib.suppress(BrokerUnavailable, StoreUnavailable):  # then types count as they started lately
                ids = await self._service.broker.sample(some, SAMPLE)
                async with self._service.database.connection() as connection:
                    self._sampled = await queues.types(connection, itertools.chain.from_iterable(ids.values()))
        return self._sampled

    async def counted(self) -> Counted | None:
        """What PostgreSQL counts."""
        try:
            async with self._service.database.connection() as connection:
                counts, running = await queues.open_counts(connection), await rows.running(connection)
        except StoreUnavailable:
            return None
        return Counted({count.queue: (count.ready, count.oldest_seconds or 0.0) for count in counts}, running)

    def _arrivals(self, queues: Iterable[str]) -> dict[str, float]:
        return {queue: arrival_rate((at, counts.get(queue, 0)) for at, counts in self._arrived) for queue in queues}


def of_pool(
    facts: Facts,
    served: Collection[str],
    own: Sequence[WorkerRow] | None,
    parts: Mapping[str, Share] | None,
    ready: int | None = None,
) -> Load:
    """The load of a pool that serves these queues with these workers and takes these parts of them; None: the whole."""
    if parts is None:
        parts = {queue: Share((facts.waiting or {}).get(queue, (0, 0.0))[0], 1.0) for queue in served}
    queues = [queue for queue in served if queue not in facts.paused]
    waiting = facts.waiting
    mine: list[tuple[int, float]] = []
    if waiting is not None:
        mine = [(parts[queue].waiting, waiting[queue][1]) for queue in queues if queue in waiting]
    return Load(
        None if waiting is None else sum(count for count, _ in mine),
        None if own is None else sum(worker.busy for worker in own),
        max((age for count, age in mine if count), default=0.0),
        sum(facts.arrivals.get(queue, 0.0) * parts[queue].arrivals for queue in queues),
        None,
        ready,
    )


def work(facts: Facts, parts: Mapping[str, Share], seconds: float) -> dict[str, float]:
    """Queue → jobs that a pool has to do in the next seconds."""
    arriving = {queue: facts.arrivals.get(queue, 0.0) * part.arrivals * seconds for queue, part in parts.items()}
    return {queue: part.waiting + arriving[queue] for queue, part in parts.items()}


def served(pool: dict[str, Any], known: Sequence[str]) -> list[str]:
    """The queues that a pool serves."""
    named = pool["spec"].get("queues") or []
    return [name.partition(":")[0] for name in named] or list(known)
