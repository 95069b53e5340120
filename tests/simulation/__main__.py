"""Explore seeds, or repeat one: `python -m tests.simulation --seconds 60`, `python -m tests.simulation --seed 7`."""

import argparse
import sys

from tests.simulation.explore import LINES, explore, run_seed
from tests.simulation.mutations import MUTATIONS


def main() -> int:
    """Parse the command line and run; 1 where an invariant was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat this one, with its whole trace")
    parser.add_argument("--first", type=int, default=0, help="first seed to explore")
    parser.add_argument("--count", type=int, help="how many seeds")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to explore")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--without", choices=sorted(MUTATIONS), help="take this cure out")
    parser.add_argument("--faults", type=lambda text: text.split(","), default=[], help="these only: a,b,c")
    parser.add_argument("--keep-going", action="store_true", help="do not end with the first violation")
    parser.add_argument("--quiet", action="store_true", help="no traces")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        outcome = run_seed(chosen.seed, chosen.without, chosen.faults)
        print("\n".join(outcome.trace))
        print(f"seed {outcome.seed}: {outcome.violations or 'no violation'}; trace {outcome.digest}")
        return 1 if outcome.violations else 0
    bad = explore(
        range(chosen.first, chosen.first + chosen.count) if chosen.count else chosen.first,
        seconds=chosen.seconds,
        without=chosen.without,
        focus=chosen.faults,
        at_once=chosen.jobs,
        enough=lambda _: not chosen.keep_going,
    )
    for outcome in bad:
        again = f"python -m tests.simulation --seed {outcome.seed}"
        again += f" --without {chosen.without}" if chosen.without else ""
        again += f" --faults {','.join(chosen.faults)}" if chosen.faults else ""
        print(f"seed {outcome.seed} ({again}):")
        if not chosen.quiet:
            print("\n".join(outcome.trace[:1] + outcome.trace[-LINES:]))
        for violation in outcome.violations[:5]:
            print(f"  {violation}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
