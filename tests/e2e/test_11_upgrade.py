"""An upgrade that replaces every pod of GoQueue, under load: no request fails, no job is lost or done twice."""

from dataclasses import replace

import pytest

from tests.e2e.load import load
from tests.e2e.system import System, until
from tests.e2e.test_10_stores import BODY, all_complete

pytestmark = pytest.mark.timeout(240)

PARTS = ("api", "scheduler", "operator")


def test_an_upgrade_under_load_fails_no_request_and_loses_no_job(system: System) -> None:
    tag = system.installation.tag("next")
    long = system.enqueue({"seconds": [20]})
    system.status(long, "processing")
    before = {part: set(system.pods(part)) for part in PARTS}
    values = {**system.installation.values, "image": {"tag": tag}}
    with load(system.installation.url, system.installation.headers, BODY, threads=4, pause=0.05) as made:
        until("20 jobs to be accepted", lambda: len(made.accepted) >= 20, 30)
        replace(system.installation, values=values).install()
        for part in PARTS:
            after = system.pods(part)
            assert len(after) == 2
            assert not before[part] & set(after), f"{part} was not replaced"
        until("the worker pools to be upgraded", lambda: f':{tag}"' in system.kubectl("get", "gqp", "-o", "json"), 30)
        done = len(made.accepted)
        until("jobs to be accepted by the new pods", lambda: len(made.accepted) >= done + 20, 30)
    all_complete(system, made, 60)
    system.note("upgrade", {"requests": len(made.accepted), "slowest, in seconds": round(made.slowest, 2)})
    assert not made.failed, made.failed[:5]
    assert system.status(long, "completed")["attempts"] == 1
    ids = ",".join(map(str, made.accepted))
    assert system.sql(f"SELECT id FROM jobs WHERE id IN ({ids}) AND attempts > 1") == []  # noqa: S608 - numbers and names of the test itself
