"""docs/metrics.md is what the code says, and the names follow Prometheus' conventions."""

import re
from pathlib import Path

from goqueue.instruments import CATALOGUE
from goqueue_cli.commands.metrics import page

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_metric_stands_on_the_page_once() -> None:
    for metric in CATALOGUE:
        assert page().count(f"| `{metric.name}` |") == 1


def test_names_follow_the_conventions() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert re.fullmatch(r"goqueue_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.name.endswith("_seconds") == (metric.unit == "seconds"), metric.name
        assert metric.help.endswith("."), metric.name
        assert metric.processes
