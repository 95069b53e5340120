"""The ready sets in Redis (or Valkey).

One sorted set a queue: member = job id (`member`), score = priority and time (`goqueue.job.ready_score`). Adding an
id twice is harmless, so pushing again is always safe; PostgreSQL decides who gets a job. Nothing here is the truth:
after a loss of all of it the dispatcher pushes every waiting job anew.
"""

import contextlib
import itertools
import math
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from goqueue.broker import installation as owner
from goqueue.broker.connect import BLOCK_SECONDS, close, connect, secrets_of
from goqueue.broker.depths import QueueDepth, measure
from goqueue.broker.fetcher import Fetcher
from goqueue.broker.outage import Outage, connection_lost, describe, full, refused
from goqueue.broker.overflow import IDS, Overflow, beyond_of, member
from goqueue.broker.reading import Reader, job_id, words
from goqueue.errors import BrokerUnavailable, ForeignBroker
from goqueue.job import MAX_ID, ReadyJob
from goqueue.settings import RedisSettings
from goqueue.window import LeftOut, Window, marks_of

FAILURES: Final = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What a Redis that is away makes the client raise; the one of a cluster is no `RedisError`."""


INTERNAL: Final = (TypeError, AttributeError, LookupError, RuntimeError)
"""What may be one, too, where a connection is closed under a command."""

NOTED: Final = 100
"""A run of ids longer than this is worth a note."""


class Broker:
    """One process's connection to the ready sets. Every method raises BrokerUnavailable where Redis cannot be used.

    ForeignBroker, which is one, where the ready sets are those of another installation.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._redis = connect(settings, self._greet)
        self._prefix = settings.prefix
        self._clustered = isinstance(self._redis, RedisCluster)
        self._pusher: Any = None
        self._fetcher = Fetcher(self._redis)
        self._noted = f"{settings.prefix}:pushed"
        self._outage = Outage()
        self._reader = Reader()
        self._secrets = secrets_of(settings)
        self.window = Window(settings.window)
        self.overflow = Overflow(self._redis, settings.prefix, self._speaking)
        self.left_out: LeftOut | None = None
        """Where the leader remembers which jobs are beyond the windows; None in any other process."""
        self.installation: str | None = None
        """The id of the installation whose ready sets these must be; None: nobody asks."""
        self.control_channel = f"{settings.prefix}:control"
        self.arrivals_channel = f"{settings.prefix}:arrivals"
        self.answered = False
        """Whether Redis answered the last command."""
        self.spoke_at = -math.inf
        """When that was (`time.monotonic()`)."""

    async def _greet(self, connection: Any) -> None:
        if self.installation is not None:
            await owner.greet(connection, self._prefix, self.installation)

    @contextlib.asynccontextmanager
    async def _speaking(self, work: str) -> AsyncIterator[None]:
        try:
            yield
        except owner.Foreign as error:
            self.answered, self.spoke_at = True, time.monotonic()
            raise ForeignBroker(self._prefix) from error
        except (*FAILURES, *INTERNAL) as error:
            # A cluster's connections are shared: one command may close what another is about to write to, or take the
            # slot away that it looks up. redis-py raises whatever that ends in.
            if not isinstance(error, FAILURES) and not connection_lost(error) and not self._clustered:
                raise
            reason = self.describe(error)
            self.answered, self.spoke_at = refused(error), time.monotonic()
            if self.answered:
                self._outage.refused(work, reason)
            else:
                self._outage.failed(work, reason)
            raise BrokerUnavailable(reason) from error
        self.answered, self.spoke_at = True, time.monotonic()
        if not self._outage.over:
            self._outage.succeeded(work)

    def describe(self, error: BaseException) -> str:
        """Class and text of an error in one line, without a password."""
        return describe(error, self._secrets)

    def silent(self, seconds: float) -> None:
        """Note that Redis said nothing for so long to a caller that waits no longer."""
        self.answered, self.spoke_at = False, time.monotonic()
        self._outage.failed("ping", f"no answer within {seconds:g} s")

    @property
    def client(self) -> Any:
        """For others who keep something in the same Redis, under keys that start with `prefix`."""
        return self._redis

    @property
    def prefix(self) -> str:
        """Starts every key."""
        return self._prefix

    def _ready(self, queue: str) -> str:
        return f"{self._prefix}:ready:{queue}"

    async def close(self) -> None:
        """Close all connections."""
        with contextlib.suppress(*FAILURES):
            if self._pusher is not None:
                await self._pusher.aclose()
            await self._fetcher.close()
            await close(self._redis)

    async def ping(self) -> None:
        """Ask for a sign of life."""
        async with self._speaking("ping"):
            if self._clustered:
                # Any node would answer a ping. The queues are unavailable where their own node is.
                await self._redis.get(f"{self._prefix}:{owner.KEY}")
            else:
                await self._redis.ping()

    async def check_owner(self) -> None:
        """Ask for a sign of life, and whether the ready sets are still this installation's; mark them where nobody has.

        Raises:
            ForeignBroker: they are another's.
        """
        if self.installation is None:
            await self.ping()
        else:
            async with self._speaking("ping"):
                await owner.check(self._redis, self._prefix, self.installation)

    async def adopt(self, installation: str) -> str | None:
        """Make the ready sets those of this installation; the id of the one that had them."""
        self.installation = None  # no connection is to be refused meanwhile
        async with self._speaking("adopt"):
            found = await owner.adopt(self._redis, self._prefix, installation)
        self.installation = installation
        return found

    async def push(self, jobs: Iterable[ReadyJob], *, arrived: bool = True) -> int:
        """Add jobs to their ready sets and tell listeners which queues got some; how many were not there before.

        `arrived` counts them as new for the arrival rate; a repetition does not. The ids go first and alone, on a
        connection of their own: a worker waits for them, while the news may come a moment later.

        Jobs that a full ready set has no room for are marked instead (`goqueue.window`). Each queue's jobs are
        pushed for themselves: what Redis refuses of one holds up no other.

        Raises:
            BrokerUnavailable: not all were pushed. For the leader those that Redis refused are `left_out` instead.
        """
        by_queue: dict[str, list[ReadyJob]] = defaultdict(list)
        for job in jobs:
            by_queue[job.queue].append(job)
        if not by_queue:
            return 0
        if self._pusher is None:
            async with self._speaking("push"):
                self._pusher = self._own_connection()
        added = 0
        refusal: BrokerUnavailable | None = None
        left_out: dict[str, list[ReadyJob]] = {}
        for queue, waiting in by_queue.items():
            fitting = waiting
            if (limit := self.window.limit(queue)) is not None:
                fitting, left_out[queue] = self._split(waiting, limit)
            try:
                added += await self._add(queue, fitting)
            except BrokerUnavailable as error:
                if isinstance(error, ForeignBroker) or not self.answered:
                    raise
                refusal = error
                if self.left_out is not None:
                    self.left_out.add(fitting)
                    self.left_out.full |= full(error)
        if left_out:
            await self._leave_out([job for jobs in left_out.values() for job in jobs])
        await self._if_accepted(self._tell_of_push(by_queue, left_out, arrived=arrived))
        if arrived and refusal is None:
            await self._if_accepted(self._note(sorted(job.id for waiting in by_queue.values() for job in waiting)))
        if refusal is not None and self.left_out is None:
            raise refusal
        return added

    async def _if_accepted(self, asking: Awaitable[None]) -> None:
        """Ask what a push does not need: the ids are there. That Redis refuses it is logged."""
        try:
            await asking
        except BrokerUnavailable as error:
            if isinstance(error, ForeignBroker) or not self.answered:
                raise

    def _split(self, jobs: list[ReadyJob], limit: tuple[float, int]) -> tuple[list[ReadyJob], list[ReadyJob]]:
        """Those to push and those to leave out. Only the leader can find again what has a `dispatch_at`."""
        pushed: list[ReadyJob] = []
        out: list[ReadyJob] = []
        for job in jobs:
            leaves = (job.score, job.id) > limit and (self.left_out is not None or not job.listed)
            (out if leaves else pushed).append(job)
        return pushed, out

    async def _add(self, queue: str, jobs: Sequence[ReadyJob]) -> int:
        if not jobs:
            return 0
        async with self._speaking("push"):
            return int(await self._pusher.zadd(self._ready(queue), {member(job.id): job.score for job in jobs}))

    async def _leave_out(self, jobs: Sequence[ReadyJob]) -> None:
        if self.left_out is not None:
            self.left_out.add(jobs)
        else:
            await self.overflow.lower(marks_of(jobs))

    async def _tell_of_push(
        self, pushed: dict[str, list[ReadyJob]], left_out: dict[str, list[ReadyJob]], *, arrived: bool
    ) -> None:
        """Tell listeners, count what arrived, and ask how full the ready sets are."""
        looked = [queue for queue, jobs in pushed.items() if self.window.must_look(queue, len(jobs))]
        async with self._speaking("count"), self._redis.pipeline(transaction=False) as pipe:
            for queue in looked:
                pipe.zcard(self._ready(queue))
                pipe.zrange(self._ready(queue), -1, -1, withscores=True)
            if looked:
                self.overflow.ask_beyond(pipe, looked)
            asked = len(pipe)
            for queue, jobs in pushed.items():
                if arrived:
                    pipe.hincrby(f"{self._prefix}:arrived", queue, len(jobs))
                    if left_out.get(queue):
                        self.overflow.count(pipe, queue, len(left_out[queue]))
                if not self._clustered:
                    pipe.publish(self.arrivals_channel, queue)
            replies = await pipe.execute(raise_on_error=False)
            for number, reply in enumerate(replies):
                if isinstance(reply, Exception) and (number >= asked or not refused(reply)):
                    # A cluster's client returns the errors of its connections as replies, too, of whatever class.
                    raise reply if isinstance(reply, FAILURES) else RedisError(self.describe(reply)) from reply
            if asked:
                self._see(looked, *replies[:asked])
            if self._clustered:  # whose pipelines take no messages
                for queue in pushed:
                    await self._redis.publish(self.arrivals_channel, queue)

    def _see(self, queues: Sequence[str], *replies: Any) -> None:
        """Take in how full ready sets are."""
        if any(isinstance(reply, Exception) for reply in replies):
            return  # a user with the rights of an earlier version: every job is pushed
        *sets, beyond = replies
        for queue, depth, last, more in zip(queues, sets[::2], sets[1::2], beyond_of(beyond), strict=True):
            place = (last[0][1], job_id(last[0][0]) or MAX_ID) if last else None
            self.window.saw(queue, depth, place, more)

    async def _note(self, ids: Sequence[int]) -> None:
        """Note long runs of ids that stand here now, so that the dispatcher need not look after them one by one.

        After the push and not with it: a push without its note is harmless, a note without its push is not.
        """
        runs = {f"{first}-{last}": last for first, last in runs_of(ids) if last - first >= NOTED}
        if runs:
            async with self._speaking("note"):
                await self._redis.zadd(self._noted, runs)

    async def noted(self, start: int) -> list[tuple[int, int]]:
        """Runs of ids (first, last) that their enqueuers pushed; those that end before `start` are forgotten."""
        async with self._speaking("noted"), self._redis.pipeline(transaction=False) as pipe:
            pipe.zremrangebyscore(self._noted, "-inf", f"({start}")
            pipe.zrange(self._noted, 0, -1)
            _, runs = await pipe.execute()
        return self._reader.runs(self._noted, runs)

    async def fetch(self, queues: Sequence[str], count: int, block: float = BLOCK_SECONDS) -> list[ReadyJob]:
        """Wait up to `block` seconds for ready jobs of the first of `queues` that has some; at most `count`.

        What is returned is gone from Redis: claim it, or push it back. A member that is no id of a job is dropped.
        """
        keys = [self._ready(queue) for queue in queues]
        async with self._speaking("fetch"):
            reply = await self._fetcher.pop(keys, count, block)
        if not reply:
            return []
        key, members = reply
        queue = queues[keys.index(key.decode())]
        jobs = []
        for text, score in members:
            # Most members are what `member` writes, and a regular expression costs as much as the rest of the line.
            if (found := int(text) if len(text) == IDS and text.isdigit() else job_id(text)) is None:
                self._reader.dropped(self._ready(queue), text)
            else:
                jobs.append(ReadyJob(found, queue, float(score)))
        return jobs

    def _own_connection(self) -> Any:
        """A client with a connection to itself; a cluster has none."""
        return self._redis if self._clustered else self._redis.client()

    async def wake_fetch(self) -> None:
        """Let a blocked `fetch` return at once with nothing; without this it returns when its time is up."""
        if self._fetcher.can_be_woken:
            async with self._speaking("wake"):
                await self._fetcher.wake()

    async def remove(self, queue: str, job_id: int) -> None:
        """Take a job that shall not run out of its ready set."""
        async with self._speaking("remove"):
            await self._redis.zrem(self._ready(queue), member(job_id))

    async def depths(self, queues: Sequence[str]) -> dict[str, QueueDepth]:
        """How much waits in each queue, beyond its window included, and since when."""
        async with self._speaking("depths"):
            return await measure(self._redis, self.overflow, {queue: self._ready(queue) for queue in queues})

    async def sample(self, queues: Sequence[str], number: int) -> dict[str, list[int]]:
        """Ids of jobs that wait: of each queue the first and the last ones, as many of each as the number says."""
        async with self._speaking("sample"), self._redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                pipe.zrange(self._ready(queue), 0, number - 1)
                pipe.zrange(self._ready(queue), -number, -1)
            replies = await pipe.execute()
        pairs = zip(queues, replies[::2], replies[1::2], strict=True)
        found = {queue: {job_id(member) for member in (*first, *last)} for queue, first, last in pairs}
        return {queue: sorted(id for id in ids if id is not None) for queue, ids in found.items()}

    async def arrived(self) -> dict[str, int]:
        """Jobs pushed since Redis began, by queue; a counter that may fall back to 0."""
        async with self._speaking("arrived"):
            counts = await self._redis.hgetall(f"{self._prefix}:arrived")
        return self._reader.counts(f"{self._prefix}:arrived", counts)

    async def tell(self, message: str) -> None:
        """Send a control message (`cancel <id>`, `pause`, `resume`, `drain`) to all workers; absent ones miss it."""
        async with self._speaking("tell"):
            await self._redis.publish(self.control_channel, message)

    async def listen(self, channel: str) -> AsyncIterator[str]:
        """The messages of a channel; the first is always empty and says that listening has begun."""
        if self._clustered:
            async with self._speaking("listen"):
                await self._redis.initialize()  # a subscription does not do so by itself
        async with self._speaking("listen"), self._redis.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            while True:
                message = await pubsub.get_message(timeout=BLOCK_SECONDS)
                if message is None:
                    await pubsub.ping()
                elif message["type"] == "subscribe":
                    yield ""
                elif message["type"] == "message":
                    yield words(message["data"])

    async def epoch(self) -> str | None:
        """The mark that the dispatcher left here; None means that Redis lost its contents, or has not all back yet."""
        async with self._speaking("epoch"):
            mark = await self._redis.get(f"{self._prefix}:epoch")
        return words(mark) if mark else None

    async def begin_epoch(self) -> None:
        """Leave an empty mark, before all waiting jobs are pushed."""
        await self.check_owner()  # with the contents went the mark of whose they are
        async with self._speaking("begin_epoch"):
            await self._redis.set(f"{self._prefix}:epoch", "")
        self.window.forget()

    async def complete_epoch(self, mark: str) -> bool:
        """Fill in the mark, after they were pushed. False where it is gone: Redis has lost its contents once more."""
        async with self._speaking("complete_epoch"):
            return bool(await self._redis.set(f"{self._prefix}:epoch", mark, xx=True))


def runs_of(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending ids as runs (first, last) without a gap."""
    if not ids:
        return []
    breaks = [at for at in range(1, len(ids)) if ids[at] != ids[at - 1] + 1]
    return [(ids[start], ids[stop - 1]) for start, stop in itertools.pairwise([0, *breaks, len(ids)])]


def weighted_order(weights: dict[str, int]) -> list[str]:
    """The queues in a random order that puts each first as often as its weight says (Efraimidis-Spirakis keys)."""
    if len(weights) == 1:
        return list(weights)
    return sorted(weights, key=lambda queue: random.random() ** (1 / weights[queue]), reverse=True)  # noqa: S311 - no secret: spreads the queues
