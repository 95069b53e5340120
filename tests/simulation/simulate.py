"""One seed, one simulation."""

import gc
import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.loop import START, Stuck, deterministic
from tests.simulation.nemesis import FAULTS, nemesis
from tests.simulation.world import Setup, World


@dataclass
class Outcome:
    """How a simulation went."""

    seed: int
    violations: list[str]
    trace: list[str]
    digest: str
    """Of the whole trace: two runs of a seed are the same if it is."""
    seconds: float
    """Real ones."""
    simulated: float
    jobs: int
    steps: int


def setup_of(chance: random.Random, focus: Sequence[str] = ()) -> Setup:
    """A setup drawn at random. Few kinds of faults at a time: they find more than all at once.

    `focus`: these faults and no others.
    """
    lease = chance.choice((3.0, 6.0, 15.0))
    seconds = chance.choice((10.0, 20.0, 45.0))
    faults = chance.sample(sorted(FAULTS), chance.choice((1, 2, 3, 4, 6)))
    if focus:
        faults = list(focus)
    return Setup(
        lease=lease,
        heartbeat=lease / 5,
        workers=chance.choice((1, 2, 2, 3)),
        schedulers=chance.choice((1, 1, 2)),
        concurrency=chance.choice((1, 2, 5, 10)),
        reconcile=chance.choice((5.0, 20.0, 60.0)),
        jobs=chance.choice((15, 40, 80, 160)),
        seconds=seconds,
        pace=chance.choice((0.5, 1.5, 4.0)),
        rush=chance.choice((0.05, 0.3, 1.0)),
        impatience=chance.choice((0.0, 0.2, 0.7)),
        short=chance.choice((0.3, 0.3, 0.9)),
        faults=faults,
    )


def simulate(seed: int, focus: Sequence[str] = ()) -> Outcome:
    """Run the simulation of a seed to its end."""
    began = time.perf_counter()
    gc.collect()
    gc.disable()  # what a killed process leaves behind would clean up after itself in the middle of a step
    chance = random.Random(f"world {seed}")
    setup = setup_of(chance, focus)
    with deterministic(seed) as loop:

        async def main() -> World:
            world = World(loop, chance, setup)
            with world.installed():
                try:
                    await world.run(nemesis)
                finally:
                    _keep.append(world)
            return world

        try:
            world = loop.run_until_complete(main())
        except Stuck as error:
            world = _keep[-1]
            world.fail(f"{error}")
        simulated = loop.time() - START
    lines = [f"{at:10.4f} {who:<14} {what}" for at, who, what in world.trace]
    lines.insert(0, f"{setup}")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    jobs = len(world.server.storage.tables["jobs"].cells)
    return Outcome(seed, world.violations, lines, digest, time.perf_counter() - began, simulated, jobs, loop.steps)


_keep: list[World] = []
"""Worlds of the past: their tasks must not be torn down while others run."""
