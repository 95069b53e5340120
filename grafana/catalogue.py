"""All dashboards, and their files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.api import api
from grafana.autoscaling import autoscaling
from grafana.job_types import job_types
from grafana.operator import operator
from grafana.overview import overview

FOLDER: Final = Path(__file__).resolve().parents[1] / "charts" / "goqueue" / "dashboards"
"""Where the chart looks for them."""


def dashboards() -> list[Dashboard]:
    """All there are."""
    return [overview(), autoscaling(), job_types(), api(), operator()]


def text(dashboard: Dashboard) -> str:
    """A dashboard as Grafana reads it."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def files() -> Iterator[tuple[Path, str]]:
    """Path and content of every file."""
    for dashboard in dashboards():
        yield FOLDER / f"{(dashboard.uid or '').removeprefix('goqueue-')}.json", text(dashboard)
