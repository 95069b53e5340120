"""The stray sweep: finds jobs that nobody pushed because their enqueuer died between commit and push.

Each id is looked at once, two seconds after it was drawn, so the cost is one row read a job, at any depth; none for
long runs of ids that their enqueuer noted in Redis after its push (a bulk). An id for which no row is visible then may
belong to a transaction that is not over: such ids are kept, with the transactions that were writing at the time, and
looked at again when one of these ends. Nothing else waits for it.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.store import dispatch
from goqueue.store.connect import Connection
from goqueue.store.dispatch import Boundary, Span

STRAY_AGE: Final = 2.0
"""Seconds that an enqueuer has for its own push."""

BATCH: Final = 5000
"""Ids that are looked at together."""

BATCHES: Final = 10
"""Batches that a tick looks at, at most; the next tick goes on from there."""

SPANS: Final = 10_000
"""Spans of unsettled ids that are kept apart; more are joined with what lies between them, to be read once more."""


def gaps(start: int, stop: int, runs: Iterable[tuple[int, int]]) -> Iterator[Span]:
    """The parts of start..stop (without stop) that lie in none of the runs (first, last)."""
    for first, last in sorted(runs):
        if start < min(first, stop):
            yield start, min(first, stop)
        start = max(start, last + 1)
    if start < stop:
        yield start, stop


def batches(spans: Iterable[Span], size: int = BATCH) -> Iterator[list[Span]]:
    """The spans in groups of at most `size` ids, cut where need be."""
    group: list[Span] = []
    room = size
    for start, stop in spans:
        while start < stop:
            end = min(stop, start + room)
            group.append((start, end))
            room -= end - start
            start = end
            if not room:
                yield group
                group, room = [], size
    if group:
        yield group


def joined(spans: Sequence[Span], most: int) -> list[Span]:
    """At most `most` spans that hold all of these ascending ones; those nearest to each other become one."""
    if len(spans) <= most:
        return list(spans)
    between = sorted(range(1, len(spans)), key=lambda at: spans[at][0] - spans[at - 1][1], reverse=True)
    cuts = sorted(between[: most - 1])
    return [(spans[a][0], spans[b - 1][1]) for a, b in zip([0, *cuts], [*cuts, len(spans)], strict=True)]


@dataclass(slots=True)
class Unsettled:
    """Ids without a row, of which these writers may still show some."""

    spans: list[Span]
    writers: frozenset[str]


@dataclass(slots=True)
class Kept:
    """All unsettled ids, in ascending order. Pure."""

    entries: list[Unsettled] = field(default_factory=list)

    def add(self, spans: Sequence[Span], writers: frozenset[str]) -> None:
        """Keep these, later than all others, as long as one of the writers is there."""
        if not spans or not writers:
            return
        last = self.entries[-1] if self.entries else None
        if last is not None and last.writers == writers:
            last.spans.extend(spans)
            if len(last.spans) > SPANS:  # to half of them, so that not each look has to join
                last.spans = joined(last.spans, SPANS // 2)
        else:
            self.entries.append(Unsettled(joined(spans, SPANS), writers))

    def changed(self, writers: frozenset[str]) -> list[Unsettled]:
        """Entries one of whose writers is over, so that some of their ids may have rows now."""
        return [entry for entry in self.entries if not entry.writers <= writers]

    def settle(self, entry: Unsettled, spans: Sequence[Span], writers: frozenset[str]) -> None:
        """The entry was looked at: these ids still have no row, and these writers are still there."""
        at = self.entries.index(entry)
        left = entry.writers & writers
        self.entries[at : at + 1] = [Unsettled(list(spans), left)] if left and spans else []
        self._merge()

    def _merge(self) -> None:
        """Make one of neighbours that wait for the same writers, as behind one that stays for long."""
        entries, self.entries = self.entries, []
        for entry in entries:
            self.add(entry.spans, entry.writers)

    @property
    def first(self) -> int | None:
        """The lowest unsettled id."""
        return self.entries[0].spans[0][0] if self.entries else None


class StraySweep:
    """The dispatcher's second step. `ask_walk` is set where ids must be looked at that this sweep does not know."""

    def __init__(self, broker: Broker, ask_walk: asyncio.Event) -> None:
        self._broker = broker
        self._ask_walk = ask_walk
        self.repaired = 0
        """Jobs pushed although their enqueuer should have."""
        self.begin()

    def begin(self) -> None:
        """Start anew from the present."""
        self.swept: int | None = None
        self._first: Boundary | None = None
        self._edge: Boundary | None = None
        self._edge_since = 0.0
        self._kept = Kept()

    @property
    def settled(self) -> int:
        """Every job with a lower id is visible; 0: not known yet."""
        if self.swept is None or self._first is not None:
            return 0
        first = self._kept.first
        return self.swept if first is None else min(first, self.swept)

    async def step(self, connection: Connection, edge: Boundary) -> bool:
        """Push strays that are old enough; whether there is more to do at once."""
        if self.swept is None or edge.next_id < self.swept:
            # A new leader; or a standby that had lost the newest jobs was promoted, and draws their ids again.
            self.begin()
            self.swept, self._first = edge.next_id, edge
        if self._first is not None and not (self._first.writers & edge.writers):
            if self._first.writers:
                self._ask_walk.set()  # their jobs lie below what this sweep looks at
            self._first = None
        for entry in self._kept.changed(edge.writers):
            still: list[Span] = []
            for batch in batches(entry.spans):
                still += await self._push(connection, batch)
            self._kept.settle(entry, still, edge.writers)
        return await self._sweep(connection, edge)

    async def _sweep(self, connection: Connection, edge: Boundary) -> bool:
        assert self.swept is not None  # noqa: S101 - set by the caller
        if self._edge is None:
            self._edge, self._edge_since = edge, time.monotonic()
            return False
        if time.monotonic() - self._edge_since < STRAY_AGE:
            return False
        stop, writers = self._edge.next_id, self._edge.writers & edge.writers
        spans = list(gaps(self.swept, stop, await self._broker.noted(self.swept)))
        for done, batch in enumerate(batches(spans)):
            if done == BATCHES:
                return True
            self._kept.add(await self._push(connection, batch), writers)
            self.swept = batch[-1][1]
        self.swept, self._edge = stop, None
        return False

    async def _push(self, connection: Connection, spans: Sequence[Span]) -> list[Span]:
        """Push what waits in these spans; the parts of them without a row, read before: what comes into sight between
        the two reads is looked at twice, not never."""
        missing = await dispatch.unseen(connection, spans)
        found = await dispatch.recent(connection, spans)
        added = await self._broker.push(found, arrived=False)
        self.repaired += added
        metrics.DISPATCHED.inc(added, "stray")
        return missing
