"""Fixtures of the chart tier."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test the time to build Helm 3 and 4 from source."""
    mine = [item for item in items if FOLDER in item.path.parents]
    for item in mine[:1]:
        item.add_marker(pytest.mark.timeout(1200), append=False)
