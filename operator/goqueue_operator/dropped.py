"""Which fields of an object the API server did not take over: those that its version or its feature gates do not know.

It drops them without an error, and without a warning where a feature is off (`dropDisabledFields` in
kubernetes/pkg/api). Pure.
"""

from collections.abc import Iterator
from typing import Any


def dropped(wanted: Any, made: Any, where: str = "") -> Iterator[str]:
    """Paths of fields of `wanted` that `made` does not have. Empty values do not count: they may be left out."""
    if isinstance(wanted, dict):
        for name, value in wanted.items():
            path = f"{where}.{name}" if where else str(name)
            if not isinstance(made, dict) or name not in made:
                if value not in (None, "", 0, False, [], {}):
                    yield path
            else:
                yield from dropped(value, made[name], path)
    elif isinstance(wanted, list) and isinstance(made, list) and len(wanted) == len(made):
        for index, (one, other) in enumerate(zip(wanted, made, strict=True)):
            yield from dropped(one, other, f"{where}[{index}]")
