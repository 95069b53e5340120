"""The engine's protocol under a seed: nothing lost, stuck, doubled or charged, and the simulation would see it."""

import os
import re
import subprocess
import sys
import time
from types import ModuleType

import pytest

from goqueue.store import attempt_sql, dispatch, leaders, overflow, rescue
from tests.simulation.explore import LINES, explore, run_seed
from tests.simulation.mutations import MUTATIONS
from tests.simulation.nemesis import FAULTS
from tests.simulation.pg.parser import parse

SECONDS = float(os.environ.get("GOQUEUE_SIMULATION_SECONDS", "60"))
"""How long new seeds are explored."""

FIRST = range(1, 13)
"""Seeds that every run repeats."""

MOST = 120
"""Seeds within which a cure that was taken out is missed."""


def _explored(first: int | range, seconds: float) -> str:
    bad = explore(first, seconds=seconds, at_once=os.cpu_count() or 1)
    lines = []
    for outcome in bad:
        lines += outcome.trace[:1] + outcome.trace[-LINES:]
        lines += [f"seed {outcome.seed}: {violation}" for violation in outcome.violations[:5]]
        lines.append(f"repeat it: python -m tests.simulation --seed {outcome.seed}")
    return "\n".join(lines)


@pytest.mark.timeout(600)
def test_the_first_seeds_violate_nothing() -> None:
    if broken := _explored(FIRST, 300):
        pytest.fail(broken, pytrace=False)


@pytest.mark.timeout(SECONDS + 300)
def test_new_seeds_violate_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    first = int(os.environ.get("GOQUEUE_SIMULATION_SEED", time.time_ns() // 1_000_000 % 1_000_000_000))
    with capsys.disabled():  # which seeds they were stands in the log, whatever comes of them
        print(f"\nseeds from {first} on, for {SECONDS:g} s", flush=True)
        broken = _explored(first, SECONDS)
    if broken:
        pytest.fail(broken, pytrace=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cure", sorted(MUTATIONS))
def test_a_cure_that_is_taken_out_is_missed(cure: str) -> None:
    mutation = MUTATIONS[cure]
    expected = re.compile(mutation.says)
    bad = explore(
        range(1, MOST + 1),
        seconds=400,
        without=cure,
        focus=mutation.faults,
        at_once=os.cpu_count() or 1,
        enough=lambda outcome: any(expected.search(violation) for violation in outcome.violations),
    )
    said = [violation for outcome in bad for violation in outcome.violations]
    assert any(expected.search(violation) for violation in said), said


def test_a_seed_repeats_itself_in_every_process() -> None:
    def digest(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation", "--seed", "3"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return told.stdout.splitlines()[-1]

    assert digest("1") == digest("2") == f"seed 3: no violation; trace {run_seed(3).digest}"


@pytest.mark.parametrize("module", [attempt_sql, dispatch, leaders, overflow, rescue])
def test_the_interpreter_knows_each_statement_that_moves_jobs(module: ModuleType) -> None:
    texts = [text for name, text in vars(module).items() if isinstance(text, str) and name.isupper() and "\n" in text]
    statements = [text for text in texts if text.lstrip().startswith(("SELECT", "WITH", "UPDATE", "INSERT", "DELETE"))]
    assert statements
    for text in statements:
        parse(text)


def test_every_fault_happens() -> None:
    outcome = run_seed(5, focus=sorted(FAULTS))
    assert not outcome.violations
    assert outcome.jobs > 0
