"""What works after `pip install goqueue` without extras, and what the rest says: one line that names the extra."""

from pathlib import Path

import orjson
import pytest

from tests.servers import installed
from tests.servers.process import Process
from tests.servers.stores import FreshDatabase, FreshRedis

MAIL = '{"to": "ada@example.org", "subject": "Hello", "body": "It works."}'


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of `pip install goqueue`."""
    folder = tmp_path_factory.mktemp("installed") / "packages"
    installed.install(folder)
    return folder


def test_an_installation_without_extras_has_none_of_their_packages(bare: Path) -> None:
    there = {path.name for path in bare.iterdir()}
    assert {"click", "pydantic", "psycopg", "redis", "sqlalchemy"} <= there
    assert not {"fastapi", "httpx", "uvicorn", "stripe", "kopf", "cryptography", "rich"} & there


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("api", "needs the extra api: pip install 'goqueue[api]'"),
        ("operator", "needs the extra operator: pip install 'goqueue[operator]'"),
        ("dev", "needs the extras api, embedded and worker: pip install 'goqueue[api,embedded,worker]'"),
    ],
)
def test_a_command_whose_extra_is_missing_names_it_in_one_line(bare: Path, command: str, told: str) -> None:
    answer = installed.run(bare, command)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"goqueue: `goqueue {command}` {told} (No module named ")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("GOQUEUE_ENCRYPTION_KEYS", "QUJD", "pip install 'goqueue[encryption]'\n"),
        ("OTEL_TRACES_EXPORTER", "otlp", "pip install 'goqueue[otlp]'\n"),
    ],
)
def test_a_setting_whose_extra_is_missing_names_it_in_one_line(
    bare: Path, variable: str, value: str, told: str
) -> None:
    answer = installed.run(bare, "scheduler", **{variable: value})
    *logged, last = answer.stderr.splitlines(keepends=True)
    assert answer.returncode == 1
    assert all(line.startswith("{") for line in logged), answer.stderr
    assert last.startswith("goqueue: ")
    assert last.endswith(told)


@pytest.fixture
def stores(database: FreshDatabase, ready_queues: FreshRedis) -> dict[str, str]:
    return {**database.environment, **ready_queues.environment, "DB_MAX_RETRIES": "0"}


@pytest.mark.timeout(120)
def test_the_console_works_without_extras(bare: Path, stores: dict[str, str]) -> None:
    commands = [
        ("--help",),
        ("settings",),
        ("metrics",),
        ("redis", "acl"),
        ("encryption", "generate"),
        ("keys", "create", "ci", "--scope", "jobs:read"),
        ("keys", "list"),
        ("queues", "list"),
        ("schedules", "put", "daily", "--cron", "0 6 * * *", "--type", "send_email", "--payload", MAIL),
        ("schedules", "list"),
        ("audit",),
        ("migrate", "--check"),
        ("enqueue", "send_email", MAIL),
        ("jobs", "list"),
    ]
    for words in commands:
        answer = installed.run(bare, *words, **stores)
        assert answer.returncode == 0, (words, answer.stderr)


def test_a_worker_without_its_extra_fails_built_in_jobs_with_what_is_missing(
    bare: Path, stores: dict[str, str], tmp_path: Path
) -> None:
    environment = installed.environment(bare, GOQUEUE_WORKER_HEALTH_PORT="0", **stores)
    log = tmp_path / "worker.log"
    with Process(installed.command("worker"), log=log, environment=environment, cwd=tmp_path):
        options = ("--max-retries", "0", "--wait", "30", "-o", "json")
        answer = installed.run(bare, "enqueue", "send_email", MAIL, *options, **stores)
    job = orjson.loads(answer.stdout)
    assert job["status"] == "failed"
    assert job["error"].endswith("send_email needs the extra worker: pip install 'goqueue[worker]' (no aiosmtplib)")
    assert "Traceback" not in log.read_text()
    assert log.read_text().count("job type cannot run in this worker") == 3
