"""The stores' pods are deleted under load: what was accepted completes, and what was refused was told so."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.load import Load, load
from tests.e2e.system import RELEASE, System, until

pytestmark = pytest.mark.timeout(240)

BODY = {"queue": "default", "type": "work", "payload": {"seconds": [0.05]}}


@contextmanager
def posting(system: System) -> Iterator[Load]:
    with load(system.installation.url, system.installation.headers, BODY) as made:
        until("20 jobs to be accepted", lambda: len(made.accepted) >= 20, 30)
        yield made


def all_complete(system: System, made: Load, seconds: float) -> None:
    ids = ",".join(map(str, made.accepted))
    query = f"SELECT count(*), count(*) FILTER (WHERE status = 'completed') FROM jobs WHERE id IN ({ids})"  # noqa: S608 - numbers and names of the test itself

    def counts() -> list[int]:
        return [int(number) for number in system.sql(query)[0]]

    until(f"all {len(made.accepted)} jobs to complete", lambda: counts()[1] == len(made.accepted), seconds, 0.5)
    assert counts() == [len(made.accepted)] * 2


def replaced(system: System, store: str) -> None:
    """Delete a store's pod, and wait until another one is ready."""
    pod = f"{RELEASE}-goqueue-{store}-0"
    system.kubectl("delete", "pod", pod, "--timeout=60s", timeout=70)  # until it is gone
    system.wait("create", f"pod/{pod}")
    system.wait("condition=Ready", f"pod/{pod}", seconds=90)


def accepted_again(made: Load) -> None:
    before = len(made.accepted)
    until("jobs to be accepted again", lambda: len(made.accepted) >= before + 20, 90)


def test_redis_is_deleted(system: System) -> None:
    with posting(system) as made:
        began = time.monotonic()
        replaced(system, "valkey")
        accepted_again(made)
    all_complete(system, made, 90)
    system.note("Redis deleted: all done after, in seconds", round(time.monotonic() - began, 1))
    assert not made.failed, made.failed[:3]  # accepting jobs needs no Redis


def test_postgresql_is_deleted(system: System) -> None:
    with posting(system) as made:
        began = time.monotonic()
        replaced(system, "postgresql")
        accepted_again(made)
        away = made.failed[-1][0] - made.failed[0][0]
    all_complete(system, made, 90)
    system.note(
        "PostgreSQL deleted",
        {"refused for, in seconds": round(away, 1), "all done after": round(time.monotonic() - began, 1)},
    )
    # Not accepted, and said so: by the API, or by nobody where it took too long.
    assert {told.partition(" ")[0] for _, told in made.failed} <= {"500", "503", "408"}, made.failed[:3]
    # Jobs that were made although nobody could be told, which `all_complete` does not know, end as well.
    left = "SELECT count(*) FROM jobs WHERE type = 'work' AND finished_at IS NULL AND queue = 'default'"
    until("jobs that nobody was told of to end", lambda: system.number(left) == 0, 60)
