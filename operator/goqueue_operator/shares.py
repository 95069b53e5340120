"""Which part of a queue's load each of the pools that serve it takes. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """A pool that serves a queue, by its slots."""

    free: int
    """Of workers that take jobs."""
    coming: int
    """Of pods that were ordered and do not take jobs yet."""
    room: int
    """Of pods that it may still order."""
    serving: int
    """Of all pods that it has ordered."""


@dataclass(frozen=True, slots=True)
class Share:
    """Of one queue: jobs that wait, and the part of the arrivals, 0 to 1."""

    waiting: int
    arrivals: float


def shares(waiting: int, members: Sequence[Member]) -> list[Share]:
    """Divide what waits and what arrives among the pools.

    Jobs go to the slots that are free, then to those under way, then to those that can be ordered, in proportion where
    they do not fill them. Arrivals go by the slots that were ordered, or that can be.
    """
    if len(members) == 1:
        return [Share(waiting, 1.0)]
    given = [0] * len(members)
    left = waiting
    for slots in (
        [member.free for member in members],
        [member.coming for member in members],
        [member.room for member in members],
    ):
        part = _divide(min(left, sum(slots)), slots)
        given = [a + b for a, b in zip(given, part, strict=True)]
        left -= sum(part)
    serving = [member.serving for member in members]
    able = serving if any(serving) else [member.room for member in members]
    if not any(able):
        able = [1] * len(members)
    # More than all pools can ever run at the same time: it waits for their slots.
    most = [member.serving + member.room for member in members]
    given = [a + b for a, b in zip(given, _divide(left, most if any(most) else able), strict=True)]
    return [Share(jobs, weight / sum(able)) for jobs, weight in zip(given, able, strict=True)]


def _divide(jobs: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to the weights, by the largest remainders; together `jobs`, or 0 without weights."""
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    exact = [jobs * weight / total for weight in weights]
    parts = [int(number) for number in exact]
    by_remainder = sorted(range(len(weights)), key=lambda place: parts[place] - exact[place])
    for place in by_remainder[: jobs - sum(parts)]:
        parts[place] += 1
    return parts
