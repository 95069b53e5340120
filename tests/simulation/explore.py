"""Many seeds, each in a process of its own: what one leaves behind cannot disturb the next."""

import contextlib
import gc
import itertools
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.simulation import mutations
from tests.simulation.pg.parser import Unsupported, parse
from tests.simulation.simulate import Outcome, simulate
from tests.simulation.world import statement_names

LINES: Final = 150
"""Of a trace, shown where many are explored."""

LIMIT: Final = 120.0
"""Real seconds for one seed."""


@dataclass
class _Child:
    seed: int
    process: int
    until: float
    received: bytes = b""


def run_seed(seed: int, without: str | None = None, focus: Sequence[str] = ()) -> Outcome:
    """Simulate one seed in a process of its own."""
    [outcome] = _run(iter([seed]), without, focus, 1, float("inf"))
    return outcome


def explore(
    seeds: int | Iterable[int],
    *,
    seconds: float,
    without: str | None = None,
    focus: Sequence[str] = (),
    at_once: int = 1,
    enough: Callable[[Outcome], bool] = lambda outcome: True,
) -> list[Outcome]:
    """Simulate seeds (a number: from it on) for so long, or until one that violates an invariant is `enough`; those
    that did."""
    began = time.monotonic()
    _warm_up()
    numbers = iter(itertools.count(seeds)) if isinstance(seeds, int) else iter(seeds)
    bad: list[Outcome] = []
    ran = steps = 0
    simulated = 0.0
    for outcome in _run(numbers, without, focus, at_once, began + seconds):
        ran += 1
        steps += outcome.steps
        simulated += outcome.simulated
        if outcome.violations:
            bad.append(outcome)
            print(f"seed {outcome.seed}: {outcome.violations[0][:200]}", flush=True)
            if enough(outcome):
                break
    took = time.monotonic() - began
    hours = simulated / 3600
    print(f"{ran} seeds, {steps} steps, {hours:.1f} simulated hours in {took:.1f} s; {len(bad)} with violations")
    return bad


def _run(
    seeds: Iterable[int], without: str | None, focus: Sequence[str], at_once: int, until: float
) -> Iterator[Outcome]:
    children: dict[int, _Child] = {}
    seeds = iter(seeds)
    exhausted = False
    try:
        while children or not exhausted:
            while not exhausted and len(children) < at_once:
                seed = next(seeds, None) if time.monotonic() < until else None
                if seed is None:
                    exhausted = True
                else:
                    reader, child = _start(seed, without, focus)
                    children[reader] = child
            if children:
                yield from _collect(children)
    finally:
        for reader, child in children.items():
            os.kill(child.process, signal.SIGKILL)
            os.waitpid(child.process, 0)
            os.close(reader)


def _warm_up() -> None:
    """Do once what every child would do."""
    for text in statement_names():
        with contextlib.suppress(Unsupported):
            parse(text)
    gc.freeze()


def _start(seed: int, without: str | None, focus: Sequence[str]) -> tuple[int, _Child]:
    sys.stdout.flush()
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(_simulate(seed, without, focus), pipe)
        finally:
            os._exit(0)
    os.close(writer)
    return reader, _Child(seed, process, time.monotonic() + LIMIT)


def _simulate(seed: int, without: str | None, focus: Sequence[str]) -> Outcome:
    try:
        if without is not None:
            mutations.apply(without)
        return simulate(seed, focus)
    except BaseException:
        return Outcome(seed, [traceback.format_exc()], [], "", 0.0, 0.0, 0, 0)


def _collect(children: dict[int, _Child]) -> Iterator[Outcome]:
    ready, _, _ = select.select(list(children), [], [], 1.0)
    for reader in ready:
        child = children[reader]
        if part := os.read(reader, 1 << 20):
            child.received += part
            continue
        del children[reader]
        os.close(reader)
        os.waitpid(child.process, 0)
        yield pickle.loads(child.received) if child.received else _failed(child.seed, "it ended without an outcome")  # noqa: S301 - our own child wrote it
    for reader, child in list(children.items()):
        if time.monotonic() > child.until:
            del children[reader]
            os.kill(child.process, signal.SIGKILL)
            os.waitpid(child.process, 0)
            os.close(reader)
            yield _failed(child.seed, f"it took more than {LIMIT:g} s")


def _failed(seed: int, why: str) -> Outcome:
    return Outcome(seed, [why], [], "", 0.0, 0.0, 0, 0)
