"""One cluster and one installation for the whole tier; its files run in the order of their names.

`GOQUEUE_E2E`: what becomes of a cluster and an installation that are there.

    (unset)  a cluster that runs is used, and left running; releases of GoQueue in it are removed first
    new      the cluster is made anew, and removed at the end
    keep     the installation of an earlier run is upgraded to this checkout, and all is left as it is at the end
"""

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.installation import Installation, in_use, releases, remove_everything
from tests.e2e import preparation
from tests.e2e.system import FIGURES, NAMESPACE, RELEASE, System, each_minute, values

_SYSTEM: list[System] = []
FOLDER = Path(__file__).parent
MODE = os.environ.get("GOQUEUE_E2E", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test has time to build everything from source, the last one to take it down."""
    mine = [item for item in items if FOLDER in item.path.parents]
    for item, seconds in zip(mine[-1:] + mine[:1], (600, 3300), strict=False):
        item.add_marker(pytest.mark.timeout(seconds), append=False)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, up; for one run at a time, from whichever checkout."""
    found = Cluster()
    with in_use(found):
        stays = MODE == "keep" or (MODE != "new" and found.is_up())
        found.up(reuse=MODE != "new")
        yield found
        if not stays:
            found.down()


@pytest.fixture(scope="session")
def installation(cluster: Cluster) -> Iterator[Installation]:
    """The release, installed with Helm, and all pods of the chart ready."""
    made = Installation(cluster, NAMESPACE, RELEASE, values())
    if MODE != "keep" or all(one.release != RELEASE for one in releases(cluster)):
        remove_everything(cluster)
    made.prepare()
    preparation.prepare(cluster)
    made.install()
    made.kubectl("apply", "-f", "-", stdin=json.dumps(each_minute()).encode())
    cluster.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s", timeout=70)
    yield made
    if MODE != "keep":
        remove_everything(cluster)
        preparation.undo(cluster)


@pytest.fixture(scope="session")
def system(installation: Installation) -> Iterator[System]:
    """The installation, and the ways to it."""
    with httpx.Client(base_url=installation.url, headers=installation.headers, timeout=15) as client:
        _SYSTEM.append(System(installation, client))
        yield _SYSTEM[0]
        _SYSTEM.clear()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """After a failure, keep what the cluster shows in .build/e2e."""
    outcome = yield
    if outcome.get_result().failed and _SYSTEM:
        folder = FIGURES / item.name.replace("/", "_")
        _SYSTEM[0].describe(folder)
        outcome.get_result().sections.append(("cluster", f"what it showed then is in {folder}"))
