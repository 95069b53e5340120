"""What the console command refuses, and how it says so: one line, exit code 1, nothing changed."""

from pathlib import Path
from typing import Any

import pytest

from goqueue.store import migrate
from tests.integration.console import ADA, Answer, Console
from tests.integration.engine import Engine
from tests.servers.stores import FreshDatabase


async def state(engine: Engine) -> list[Any]:
    """Everything that a command could have changed."""
    return [
        await engine.rows("SELECT id, status, deleted_at, updated_at FROM jobs ORDER BY id"),
        await engine.rows("SELECT name, cron, updated_at FROM schedules ORDER BY name"),
        await engine.rows("SELECT name, paused_at FROM queues ORDER BY name"),
        {name: depth.depth for name, depth in (await engine.broker.depths(["default", "email"])).items()},
    ]


PUT = ("schedules", "put", "s", "--type", "greet", "--payload", ADA)
DAILY = ("--cron", "0 6 * * *")
GREET = ("enqueue", "greet", ADA)

REFUSED: dict[str, dict[tuple[str, ...], str]] = {
    "enqueue": {
        ("enqueue", "dance"): "invalid job type",
        ("enqueue", "greet", "{"): "invalid json",
        ("enqueue", "greet", '{"name": NaN}'): "invalid json",
        ("enqueue", "greet", "[]"): "invalid payload format",
        ("enqueue", "greet", "{}"): "payload validation failed",
        (*GREET, "--queue", "nowhere"): "invalid queue",
        (*GREET, "--priority", "101"): "priority",
        (*GREET, "--max-retries", "21"): "max_retries",
        (*GREET, "--available-at", "tomorrow"): "available_at",
        (*GREET, "--available-at", "2030-01-31T08:00:00"): "available_at",
        (*GREET, "--unique-key", ""): "unique_key",
    },
    "jobs": {
        ("jobs", "get", "99"): "job not found",
        ("jobs", "attempts", "99"): "job not found",
        ("jobs", "cancel", "99"): "job not found",
        ("jobs", "retry", "99"): "job not found",
        ("jobs", "delete", "99"): "job not found",
        ("jobs", "cancel", "2"): "a cancelled job cannot be cancelled",
        ("jobs", "retry", "1"): "a pending job cannot be retried",
    },
    "queues": {
        ("queues", "pause", "nowhere"): "invalid queue",
        ("queues", "resume", "nowhere"): "invalid queue",
    },
    "schedules": {
        ("schedules", "pause", "nothing"): "schedule not found",
        ("schedules", "resume", "nothing"): "schedule not found",
        ("schedules", "run", "nothing"): "schedule not found",
        ("schedules", "run", "UPPER"): "lower case letters",
        ("schedules", "put", "UPPER", *DAILY, "--type", "greet", "--payload", ADA): "lower case letters",
        ("schedules", "put", "s", *DAILY, "--type", "dance"): "invalid job type",
        ("schedules", "put", "s", *DAILY, "--type", "greet"): "job.name",
        ("schedules", "put", "s", *DAILY, "--type", "greet", "--payload", "{"): "invalid json",
        (*PUT, "--cron", "often"): "cron",
        (*PUT, *DAILY, "--time-zone", "Mars/Base"): "IANA",
        (*PUT, *DAILY, "--queue", "no"): "invalid queue",
        (*PUT, *DAILY, "--max-retries", "21"): "job.max_retries",
        ("schedules", "delete", "nothing"): "schedule not found",
    },
}


@pytest.mark.parametrize("group", REFUSED)
async def test_what_cannot_be_done_is_told_in_one_line_and_changes_nothing(
    goqueue: Console, engine: Engine, group: str
) -> None:
    for _ in range(2):
        await engine.enqueue("greet", payload={"name": "Ada"})
    await engine.service.close()  # both are pushed
    await engine.service.cancel(2)
    before = await state(engine)
    for answer, says in zip(await goqueue.each(REFUSED[group]), REFUSED[group].values(), strict=True):
        refused(answer, says)
    assert await state(engine) == before


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"POSTGRES_PORT": "many"}, "POSTGRES_PORT"),
        ({"GOQUEUE_REDIS_URL": "redis://:swordfish@127.0.0.1:many"}, "GOQUEUE_REDIS_URL"),
        ({"GOQUEUE_QUEUES": "UPPER"}, "GOQUEUE_QUEUES"),
        ({"GOQUEUE_JOBS": "no_such_module"}, "GOQUEUE_JOBS"),
        ({"POSTGRES_PORT": "1"}, "database is unavailable"),
        ({"POSTGRES_PASSWORD": "swordfish"}, "password authentication failed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
async def test_a_wrong_setting_and_an_absent_database_are_told_in_one_line_without_a_password(
    goqueue: Console, engine: Engine, wrong: dict[str, str], says: str
) -> None:
    before = await state(engine)
    answer = await goqueue("enqueue", "greet", ADA, **wrong)
    refused(answer, says)
    assert "swordfish" not in answer.err
    assert goqueue.environment["POSTGRES_PASSWORD"] not in answer.err
    assert await state(engine) == before


def refused(answer: Answer, says: str) -> None:
    """Exit code 1, one line on standard error, nothing else."""
    assert (answer.code, answer.out) == (1, ""), answer
    assert answer.err.startswith("goqueue: "), answer
    assert says in answer.err
    assert answer.err.count("\n") == 1, answer


async def test_an_old_schema_is_refused_with_the_command_that_helps(
    goqueue: Console, bare_database: FreshDatabase
) -> None:
    migrate.upgrade(bare_database.dsn, "0001")
    refused(await goqueue("jobs", "list", **bare_database.environment), "run `goqueue migrate`")


async def test_jobs_can_be_steered_where_their_modules_are_not_installed(goqueue: Console, engine: Engine) -> None:
    await engine.enqueue("greet")
    assert (await goqueue("jobs", "cancel", "1", GOQUEUE_JOBS="no_such_module")).code == 0


async def test_without_redis_jobs_are_accepted_and_steered_and_a_warning_says_so(
    goqueue: Console, engine: Engine
) -> None:
    away = {"GOQUEUE_REDIS_URL": "redis://:swordfish@127.0.0.1:1"}
    answers = [
        await goqueue("enqueue", "greet", ADA, **away),
        await goqueue("jobs", "cancel", "1", **away),
        await goqueue("queues", "pause", "default", **away),
        await goqueue("queues", "list", **away),
    ]
    for answer in answers:
        assert answer.code == 0
        assert answer.err.startswith("goqueue: ")
        assert answer.err.count("\n") == 1
        assert "redis" in answer.err
        assert "swordfish" not in answer.err
    assert (await engine.service.get(1)).status == "cancelled"


WRONG_USAGE = """
enqueue
enqueue greet {} --priority high
enqueue greet {} --wait soon
enqueue greet {} --wait 0
enqueue greet {} --timeout nan
enqueue greet {} --colour red
jobs get
jobs get one
jobs get 0
jobs get 99999999999999999999
jobs list --status gone
jobs list --limit 0
jobs list -o yaml
jobs dance
queues pause
schedules put daily --type greet
settings --yaml
"""


async def test_wrong_usage_is_2(tmp_path: Path) -> None:
    for answer in await Console(tmp_path).each(line.split() for line in WRONG_USAGE.strip().splitlines()):
        assert (answer.code, answer.out) == (2, ""), answer
        assert answer.err.startswith("Usage: goqueue "), answer
