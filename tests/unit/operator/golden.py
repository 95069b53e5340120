"""Custom resources and what the operator makes of them. `python -m tests.unit.operator.golden` writes the outputs."""

from pathlib import Path
from typing import Any

import yaml

from goqueue_operator.deployment import Defaults, build

FOLDER = Path(__file__).resolve().parents[2] / "data" / "kubernetes"
DEFAULTS = Defaults(
    image="goqueue:1.0",
    env_from=["configmap/goqueue", "secret/goqueue"],
    accounts=["workers"],
    forbidden_account="goqueue-operator",
)


def given(name: str) -> Any:
    """An input."""
    return yaml.safe_load((FOLDER / "input" / name).read_text())


def made(name: str) -> str:
    """What the operator makes of an input."""
    return yaml.safe_dump(build(given(name), 3, DEFAULTS), sort_keys=False)


def names() -> list[str]:
    """All inputs."""
    return sorted(path.name for path in (FOLDER / "input").glob("*.yaml"))


if __name__ == "__main__":
    for item in names():
        (FOLDER / "output" / item).write_text(made(item))
