"""How inputs are made up, tried and counted: a bounded number in CI, for minutes with `make fuzz MINUTES=…`.

`GOQUEUE_FUZZ_SECONDS`: how long each test goes on; unset: EXAMPLES inputs, the same ones each time.
"""

import operator
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

EXAMPLES: Final = 300
SLOW: Final = 2.0
"""Seconds of this thread's computing that no input may take, a thousand times what is usual."""

TRIED: Counter[tuple[str, str]] = Counter()
"""(test, how it ended) → inputs."""
SLOWEST: dict[str, float] = {}
"""Test → seconds that its slowest input took."""


def fuzz(examples: int = EXAMPLES, **strategies: st.SearchStrategy[Any]) -> Callable[..., Callable[[], None]]:
    """Decorator: the function is called with inputs and returns in one word how each ended (`accepted`, …)."""
    seconds = float(os.environ.get("GOQUEUE_FUZZ_SECONDS", "0"))

    def decorate(check: Callable[..., str]) -> Callable[[], None]:
        name = check.__name__.removeprefix("test_")

        def counted(**inputs: Any) -> None:
            began = time.thread_time()
            outcome = check(**inputs)
            spent = time.thread_time() - began
            SLOWEST[name] = max(SLOWEST.get(name, 0.0), spent)
            TRIED[name, outcome] += 1
            assert spent < SLOW, f"took {spent:.1f} s"

        def run() -> None:
            end = time.monotonic() + seconds
            round = 0
            while True:
                common = settings(
                    max_examples=examples,
                    deadline=None,
                    database=None,
                    derandomize=not seconds,
                    phases=[Phase.explicit, Phase.generate, Phase.shrink],
                    suppress_health_check=list(HealthCheck),
                )
                test = common(given(**strategies)(counted))
                (seed(time.time_ns() + round)(test) if seconds else test)()
                round += 1
                if time.monotonic() >= end:
                    return

        run.__name__, run.__doc__, run.__module__ = check.__name__, check.__doc__, check.__module__
        return run

    return decorate


# --- what inputs are made of ------------------------------------------------------------------------------------------

ODD: Final = st.sampled_from(
    [
        "",
        " ",
        "\x00",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        "\u2028",
        "\N{GRINNING FACE}",
        "a" * 300,
    ]
)
TEXTS: Final = st.text(max_size=40) | ODD
NUMBERS: Final = (
    st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 2**64, 1e308, 5e-324])
)
SCALARS: Final = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES: Final[st.SearchStrategy[Any]] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


def nested(depth: int) -> Any:
    """A value in so many lists and objects."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def mutated(start: dict[str, Any], values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some fields taken away, changed or added, also in the objects in it."""

    def change(changes: dict[str, Any], removed: list[str]) -> dict[str, Any]:
        return {name: value for name, value in {**start, **changes}.items() if name not in removed}

    fields = {
        name: mutated(value, values) | values if isinstance(value, dict) else values for name, value in start.items()
    }
    changes = st.lists(
        st.sampled_from(list(start)).flatmap(lambda name: st.tuples(st.just(name), fields[name])), max_size=2
    ).map(dict)
    more: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.dictionaries(TEXTS, values, max_size=1)
    removed: st.SearchStrategy[list[str]] = st.just([]) | st.lists(st.sampled_from(list(start)), max_size=1)
    return st.deferred(lambda: st.builds(change, st.builds(operator.or_, changes, more), removed)) if start else more


def spliced(texts: st.SearchStrategy[bytes], pieces: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes with some of them cut out, and pieces put in."""

    def splice(body: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
        for at, length, piece in cuts:
            place = at % (len(body) + 1)
            body = body[:place] + piece + body[place + length :]
        return body

    return st.builds(splice, texts, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 8), pieces), max_size=4))
