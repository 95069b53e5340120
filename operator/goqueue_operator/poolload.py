"""What a pool has to do and what it has for it, beside the other pools of its queues."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from goqueue.scaling import Load
from goqueue_operator import load
from goqueue_operator.consolidation import pods_of
from goqueue_operator.load import Facts
from goqueue_operator.pool import Pool, policy
from goqueue_operator.shares import Member, Share, shares

Parts = dict[str, dict[str, Share]]
"""Uid of a pool → queue → what the pool takes of it."""


def amount(pool: Pool, facts: Facts, parts: Mapping[str, Share], known: Sequence[str]) -> Load:
    """The load of a pool, of which it takes these parts; its pace learns from what its workers say."""
    own = pool.own(facts.workers)
    wish = policy(pool.resource)
    if own is not None:
        load.learn(pool.pace, time.monotonic(), own, facts.waiting, facts.paused)
    rate = pool.pace.rate(wish.slots, load.work(facts, parts, wish.target), facts.types)
    queues = load.served(pool.resource, known)
    there = None if own is None else ready(pool, facts)
    return replace(load.of_pool(facts, queues, own, parts, there), rate=rate)


def serving(pool: Pool, facts: Facts) -> int:
    """How many of the pods that were ordered take jobs, or shall."""
    if pool.serving is not None:
        return pool.serving
    pods = pods_of(pool, facts, time.monotonic()) or ()
    return max(0, pool.current - sum(pod.asked for pod in pods))


def ready(pool: Pool, facts: Facts) -> int:
    """How many of its pods take jobs."""
    pods = pods_of(pool, facts, time.monotonic()) or ()
    return sum(not pod.asked and (bool(pod.workers) or pod.ready) for pod in pods)


def divide(pools: Iterable[Pool], facts: Facts, known: Sequence[str]) -> Parts:
    """What each pool takes of the queues that it serves."""
    pools = list(pools)
    serve: dict[str, list[Pool]] = {}
    for pool in pools:
        for queue in load.served(pool.resource, known):
            serve.setdefault(queue, []).append(pool)
    members = {pool.uid: _member(pool, facts) for pool in pools}
    parts: Parts = {pool.uid: {} for pool in pools}
    for queue, of_queue in serve.items():
        waiting = (facts.waiting or {}).get(queue, (0, 0.0))[0]
        able = [pool for pool in of_queue if not pool.refused or pool.found is not None] or of_queue
        for pool in of_queue:
            parts[pool.uid][queue] = Share(0, 0.0)
        for pool, share in zip(able, shares(waiting, [members[pool.uid] for pool in able]), strict=True):
            parts[pool.uid][queue] = share
    return parts


def _member(pool: Pool, facts: Facts) -> Member:
    wish = policy(pool.resource)
    pods = serving(pool, facts)
    working = [row for row in pool.own(facts.workers) or () if not row.draining and row.drain_seconds <= 0]
    free = sum(max(0, row.concurrency - row.busy) for row in working)
    coming = max(0, pods - ready(pool, facts)) * wish.slots
    room = 0 if wish.pinned is not None else max(0, wish.maximum - pods) * wish.slots
    return Member(free, coming, room, pods * wish.slots)
