"""The console command against real stores, as it is typed: what it does and prints."""

import asyncio
import contextlib
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import orjson

from goqueue_api.views import JobView, QueuesView, QueueView
from goqueue_cli.embedded import EmbeddedPostgres, free_port
from tests.integration.console import ADA, Console
from tests.integration.engine import Engine, eventually
from tests.servers.process import GOQUEUE, Process
from tests.servers.stores import FreshDatabase

# --- enqueue ---------------------------------------------------------------------------------------------------------


async def test_enqueue_hands_a_job_to_a_worker_and_waits_for_its_result(goqueue: Console) -> None:
    with goqueue.worker():
        answer = await goqueue("enqueue", "greet", ADA, "--wait", "60", "-o", "json")
    assert set(answer.json) == set(JobView.model_fields)
    assert (answer.json["status"], answer.json["result"]) == ("completed", {"said": "hello Ada"})
    assert answer.err == ""


async def test_a_job_that_fails_ends_the_waiting_command_with_1_and_its_error_cannot_play_with_the_terminal(
    goqueue: Console,
) -> None:
    with goqueue.worker():
        answer = await goqueue("enqueue", "fail", ADA, "--wait", "20s")
    assert (answer.code, answer.err) == (1, "goqueue: job 1 is failed\n")
    assert "job 1 enqueued in default\n" in answer.out
    assert r"no \x1b[31mluck\nat all" in answer.out
    assert "\x1b" not in answer.out


async def test_a_job_that_nobody_runs_is_shown_as_it_is_when_the_wait_is_over(goqueue: Console) -> None:
    answer = await goqueue("enqueue", "greet", ADA, "--wait", "300ms", "-o", "json")
    assert (answer.code, answer.err) == (1, "goqueue: job 1 is pending after 0.3 s\n")
    assert orjson.loads(answer.out)["status"] == "pending"


async def test_enqueue_without_wait_returns_with_the_job_in_its_ready_queue(goqueue: Console, engine: Engine) -> None:
    assert (await goqueue("enqueue", "greet", ADA)).out == "job 1 enqueued in default\n"
    assert [job.id for job in await engine.broker.fetch(["default"], 10)] == [1]


async def test_every_option_of_enqueue_is_kept(goqueue: Console, engine: Engine) -> None:
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    options = ["--queue", "payment", "--priority", "-7", "--max-retries", "0", "--timeout", "1.5", "--unique-key", "k"]
    answer = await goqueue("enqueue", "greet", ADA, *options, "--available-at", later.isoformat(), "-o", "json")
    job = await engine.service.get(answer.json["id"])
    assert (job.queue, job.type, job.payload, job.source) == ("payment", "greet", {"name": "Ada"}, "library")
    assert (job.priority, job.max_retries, job.timeout, job.unique_key) == (-7, 0, 1.5, "k")
    assert job.available_at == later


async def test_a_unique_key_gives_the_job_that_stands_there(goqueue: Console, engine: Engine) -> None:
    assert (await goqueue("enqueue", "greet", ADA, "--unique-key", "k")).code == 0
    assert (await goqueue("enqueue", "greet", ADA, "--unique-key", "k")).out == "job 1 stood there already\n"
    assert await engine.rows("SELECT count(*) FROM jobs") == [(1,)]


async def test_a_payload_comes_from_standard_input(goqueue: Console) -> None:
    answer = await goqueue.fed('{"name": "Zoë"}', "enqueue", "greet", "-", "-o", "json")
    assert answer.json["payload"] == {"name": "Zoë"}


async def test_an_interrupted_wait_leaves_the_job_and_no_traceback(goqueue: Console, engine: Engine) -> None:
    process = await goqueue.start("enqueue", "greet", ADA, "--wait", "60")
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err.split()) == (1, [b"Aborted!"])
    assert (await engine.service.get(1)).status == "pending"


async def test_a_database_that_goes_away_during_the_wait_is_told_with_the_jobs_id(
    goqueue: Console, own_postgres: EmbeddedPostgres, own_database: FreshDatabase
) -> None:
    away = {**own_database.environment, "DB_CONNECT_TIMEOUT": "1"}
    process = await goqueue.start("enqueue", "greet", ADA, "--wait", "12", **away)
    assert process.stdout is not None
    await process.stdout.readline()
    own_postgres.stop(immediate=True)
    _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"goqueue: job 1 was enqueued, but: database is unavailable\n")


# --- jobs ------------------------------------------------------------------------------------------------------------


async def test_jobs_are_listed_newest_first_and_by_queue_status_and_type(goqueue: Console, engine: Engine) -> None:
    for queue, kind in (("default", "greet"), ("email", "greet"), ("default", "fail"), ("default", "greet")):
        await engine.enqueue(kind, queue)
    await engine.service.cancel(4)

    async def ids(*options: str) -> list[int]:
        return [job["id"] for job in (await goqueue("jobs", "list", *options, "-o", "json")).json]

    assert await ids() == [4, 3, 2, 1]
    assert await ids("--queue", "default", "--limit", "2") == [4, 3]
    assert await ids("--queue", "default", "--type", "greet", "--status", "pending") == [1]
    rows = (await goqueue("jobs", "list", "--status", "cancelled")).rows
    assert [row[:5] for row in rows] == [["4", "cancelled", "default", "greet", "0"]]


async def test_attempts_show_how_each_ended_and_what_the_handler_logged(goqueue: Console) -> None:
    with goqueue.worker():
        assert (await goqueue("enqueue", "fail", ADA, "--wait", "60")).code == 1
    # What a handler logged is written some time after its end, but before its worker's.
    table = (await goqueue("jobs", "attempts", "1")).out
    found = (await goqueue("jobs", "attempts", "1", "-o", "json")).json
    assert [(one["attempt"], one["outcome"]) for one in found["attempts"]] == [(1, "failed")]
    assert [(line["level"], line["message"]) for line in found["logs"]] == [("warning", "about to fail")]
    assert "failed" in table
    assert "about to fail" in table


async def test_a_waiting_job_is_cancelled_at_once_retried_and_deleted(goqueue: Console, engine: Engine) -> None:
    await engine.enqueue("greet")
    assert (await goqueue("jobs", "cancel", "1")).out == "job 1 cancelled\n"
    assert (await engine.service.get(1)).status == "cancelled"
    assert (await goqueue("jobs", "retry", "1", "-o", "json")).json["status"] == "pending"
    assert (await engine.broker.depths(["default"]))["default"].depth == 1
    assert (await goqueue("jobs", "cancel", "1", "-o", "json")).json == {"status": "cancelled"}
    assert (await goqueue("jobs", "retry", "1")).out == "job 1 is pending again\n"
    assert (await goqueue("jobs", "delete", "1")).out == "job 1 deleted\n"
    assert (await goqueue("jobs", "get", "1")).err == "goqueue: job not found\n"
    assert (await engine.broker.depths(["default"]))["default"].depth == 0


async def test_a_running_job_is_asked_to_stop_and_stops(goqueue: Console, engine: Engine) -> None:
    await engine.enqueue("hold", payload={"name": "Ada"})
    with goqueue.worker():
        await goqueue("enqueue", "greet", ADA, "--wait", "60")  # the worker is up
        await engine.until(1, "processing")
        assert (await goqueue("jobs", "cancel", "1")).out == "job 1 runs; its worker was asked to stop\n"
        await engine.until(1, "cancelled")


# --- queues and schedules --------------------------------------------------------------------------------------------


async def test_queues_are_listed_paused_and_resumed(goqueue: Console, engine: Engine) -> None:
    await engine.enqueue("greet", "email")
    assert (await goqueue("queues", "pause", "email")).out == "queue email paused\n"
    assert (await goqueue("queues", "list")).rows[1][:3] == ["email", "yes", "1"]
    assert (await goqueue("queues", "resume", "email", "-o", "json")).out == ""
    found = (await goqueue("queues", "list", "-o", "json")).json
    assert [(queue["name"], queue["paused"], queue["depth"]) for queue in found["queues"]] == [
        ("default", False, 0),
        ("email", False, 1),
        ("webhooks", False, 0),
        ("payment", False, 0),
    ]


LEMONADE = """
from pydantic import BaseModel
from goqueue import job_type

class Squeeze(BaseModel):
    lemons: int = 1

@job_type("squeeze", payload=Squeeze, queue="lemons")
async def squeeze(payload, job): ...
"""


async def test_the_queue_of_a_type_of_ones_own_needs_no_setting(goqueue: Console) -> None:
    (goqueue.folder / "lemonade.py").write_text(LEMONADE)
    own = {"GOQUEUE_JOBS": "lemonade"}
    with goqueue.worker(**own):
        done = await goqueue("enqueue", "squeeze", "--wait", "20", "-o", "json", **own)
    assert (done.json["status"], done.json["queue"]) == ("completed", "lemons")
    assert [row[0] for row in (await goqueue("queues", "list", **own)).rows][4:] == ["lemons"]
    assert (await goqueue("queues", "pause", "lemons", **own)).code == 0


async def test_a_console_without_the_types_shows_and_pauses_a_queue_while_it_is_in_use(
    goqueue: Console, engine: Engine
) -> None:
    assert (await goqueue("queues", "pause", "lemons")).err.startswith("goqueue: invalid queue")
    await engine.enqueue("squeeze", "lemons")
    assert [row[:3] for row in (await goqueue("queues", "list")).rows][4:] == [["lemons", "no", "1"]]
    broken = await goqueue("queues", "pause", "lemons", GOQUEUE_JOBS="no_such_module")
    assert (broken.code, broken.out) == (0, "queue lemons paused\n")
    assert broken.err.startswith("goqueue: GOQUEUE_JOBS: cannot import 'no_such_module'")
    assert (await goqueue("queues", "resume", "lemons")).code == 0


async def test_a_paused_queue_is_served_again_by_the_same_worker_once_it_is_resumed(goqueue: Console) -> None:
    await goqueue("queues", "pause", "default")
    with goqueue.worker():
        assert (await goqueue("enqueue", "greet", ADA, "--queue", "email", "--wait", "60")).code == 0
        assert (await goqueue("enqueue", "greet", ADA, "--wait", "200ms")).code == 1
        await goqueue("queues", "resume", "default")
        assert (await goqueue("enqueue", "greet", ADA, "--wait", "60")).code == 0


async def test_a_schedule_is_made_replaced_listed_and_deleted(goqueue: Console, engine: Engine) -> None:
    options = ["--type", "greet", "--payload", ADA, "--priority", "3", "--max-retries", "1"]
    made = await goqueue("schedules", "put", "daily", "--cron", "0 6 * * *", "--time-zone", "Europe/Berlin", *options)
    assert made.out.startswith("schedule daily created; it fires next at ")
    assert (await goqueue("schedules", "list")).rows[0][:6] == [
        "daily",
        "yes",
        "0 6 * * *",
        "Europe/Berlin",
        "default",
        "greet",
    ]
    hourly = ["--cron", "0 * * * *", "--type", "greet", "--queue", "email", "--payload", "-", "--disabled"]
    replaced = await goqueue.fed(ADA, "schedules", "put", "daily", *hourly)
    assert replaced.out == "schedule daily replaced; it is disabled\n"
    (found,) = (await goqueue("schedules", "list", "-o", "json")).json
    assert found["job"] == {"queue": "email", "type": "greet", "payload": {"name": "Ada"}}
    assert (found["cron"], found["time_zone"], found["enabled"]) == ("0 * * * *", "UTC", False)
    assert (await goqueue("schedules", "delete", "daily")).out == "schedule daily deleted\n"
    assert await engine.rows("SELECT FROM schedules") == []


async def test_a_schedule_is_paused_resumed_and_run_without_its_definition(goqueue: Console, engine: Engine) -> None:
    put = ["--cron", "0 6 * * *", "--type", "greet", "--payload", ADA, "--queue", "email"]
    await goqueue("schedules", "put", "daily", *put)
    assert (await goqueue("schedules", "pause", "daily")).out == "schedule daily paused\n"
    (found,) = (await goqueue("schedules", "-o", "json")).json
    assert (found["enabled"], found["cron"], found["job"]["payload"]) == (False, "0 6 * * *", {"name": "Ada"})
    assert (await goqueue("schedules", "run", "daily")).out == "job 1 of schedule daily created\n"
    job = await engine.service.get(1)
    assert (job.queue, job.type, job.payload, job.source) == ("email", "greet", {"name": "Ada"}, "schedule")
    resumed = await goqueue("schedules", "resume", "daily")
    assert resumed.out.startswith("schedule daily resumed; it fires next at ")
    assert (await goqueue("schedules", "pause", "daily", "-o", "json")).json["enabled"] is False
    acts = await engine.rows("SELECT action FROM audit_log ORDER BY id")
    assert [action for (action,) in acts] == [
        f"schedule.{act}" for act in ("put", "paused", "run", "resumed", "paused")
    ]


async def test_groups_list_where_no_command_is_named(goqueue: Console, engine: Engine) -> None:
    await engine.enqueue("greet")
    await engine.service.cancel(1)  # else its age would differ from one list to the next
    groups = ("queues", "schedules", "keys", "jobs")
    for group, plain in zip(groups, await goqueue.each([(group,) for group in groups]), strict=True):
        assert (plain.code, plain.err) == (0, ""), group
        assert plain.out.split()[0] in ("NAME", "PREFIX", "ID")
    short, long, shown, wrong = await goqueue.each(
        [("jobs", "-o", "json"), ("jobs", "list", "-o", "json"), ("jobs", "-h"), ("jobs", "lisst")]
    )
    assert short.json == long.json
    assert "Commands:" in shown.out
    assert wrong.code == 2


async def test_keys_are_listed_with_their_restrictions(goqueue: Console) -> None:
    await goqueue("keys", "create", "ci", "--scope", "jobs:read", "--queue", "email", "--queue", "default")
    await goqueue("keys", "create", "shop", "--scope", "jobs:write", "--type", "greet", "--tenant", "acme")
    listed = await goqueue("keys", "list")
    assert listed.out.split("\n")[0].split()[1:5] == ["NAME", "TENANT", "QUEUES", "TYPES"]
    assert [row[1:4] for row in listed.rows] == [["ci", "default email", "all"], ["shop", "acme", "all"]]
    assert "greet" in listed.out


async def test_a_schedule_put_here_fires_in_the_scheduler(goqueue: Console, engine: Engine) -> None:
    await goqueue("schedules", "put", "often", "--cron", "* * * * *", "--type", "greet", "--payload", ADA)
    await engine.execute("UPDATE schedules SET next_tick = now()")

    async def fired() -> bool:
        return bool(await engine.rows("SELECT FROM jobs WHERE source = 'schedule' AND payload = %s::jsonb", ADA))

    log = goqueue.folder / "scheduler.log"
    environment = goqueue.full(GOQUEUE_SCHEDULER_HEALTH_PORT=str(free_port()))
    with Process([GOQUEUE, "scheduler"], log=log, environment=environment, cwd=goqueue.folder):
        await eventually(fired)


# --- machines --------------------------------------------------------------------------------------------------------


async def test_json_is_what_the_rest_api_answers(goqueue: Console, engine: Engine) -> None:
    with goqueue.worker():
        assert (await goqueue("enqueue", "fail", ADA, "--wait", "60")).code == 1
    assert (await goqueue("enqueue", "greet", ADA)).code == 0
    monthly = ["--cron", "0 0 1 1 *", "--type", "greet", "--payload", ADA]
    put = (await goqueue("schedules", "put", "yearly", *monthly, "-o", "json")).json
    port = free_port()
    environment = goqueue.full(GOQUEUE_API_PORT=str(port), GOQUEUE_API_HEALTH_PORT="0")
    with Process([GOQUEUE, "api"], log=goqueue.folder / "api.log", environment=environment, cwd=goqueue.folder) as api:
        api.wait_for_port(port)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for words, path in (
                (("jobs", "get", "1"), "/jobs/1"),
                (("jobs", "attempts", "1"), "/jobs/1/attempts"),
                (("jobs", "list"), "/jobs?queue=default&newest_first=true"),
                (("schedules", "list"), "/schedules"),
            ):
                shown = (await goqueue(*words, "-o", "json")).json
                assert shown == (await client.get(path)).json()
            assert put == (await client.get("/schedules/yearly")).json()
    queues = (await goqueue("queues", "list", "-o", "json")).json
    assert set(queues) == set(QueuesView.model_fields)
    assert set(queues["queues"][0]) == set(QueueView.model_fields)


def whatever_comes(terminal: int) -> bytes:
    """Everything that is written to a terminal until the last process that has it open ends."""
    found = b""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            found += part
    return found


async def test_a_line_ends_where_the_terminal_does(goqueue: Console, engine: Engine) -> None:
    await engine.enqueue("greet", payload={"name": "Ada"})
    await engine.execute("UPDATE jobs SET error = repeat('x', 500)")
    main, side = os.openpty()
    process = await asyncio.create_subprocess_exec(
        GOQUEUE, "jobs", "list", stdout=side, cwd=goqueue.folder, env=goqueue.full(COLUMNS="100")
    )
    os.close(side)
    lines = (await asyncio.to_thread(whatever_comes, main)).decode().splitlines()
    os.close(main)
    assert await process.wait() == 0
    assert len(lines[-1]) == 100
    assert lines[-1].endswith("x…")
    assert (await goqueue("jobs", "list")).out.count("x") == 500


# --- where it goes ---------------------------------------------------------------------------------------------------


async def test_the_stores_of_goqueue_dev_are_used_where_the_environment_names_none(
    goqueue: Console, engine: Engine
) -> None:
    stores = {name: goqueue.environment.pop(name) for name in list(goqueue.environment) if name.startswith("POSTGRES_")}
    redis_url = goqueue.environment.pop("GOQUEUE_REDIS_URL")
    file = goqueue.folder / ".goqueue" / "environment"
    file.parent.mkdir()
    file.touch(0o600)
    file.write_text("".join(f"{name}={value}\n" for name, value in {**stores, "GOQUEUE_REDIS_URL": redis_url}.items()))
    assert (await goqueue("enqueue", "greet", ADA)).code == 0
    assert (await engine.service.get(1)).status == "pending"
    elsewhere = await goqueue("jobs", "list", POSTGRES_HOST="127.0.0.1", POSTGRES_PORT="1")
    assert (elsewhere.code, elsewhere.out) == (1, "")


async def test_the_help_says_which_stores_are_used(tmp_path: Path) -> None:
    commands = ["enqueue", "jobs list", "queues pause", "schedules put"]
    for answer in await Console(tmp_path).each([*command.split(), "--help"] for command in commands):
        assert "Where that names no POSTGRES_*" in " ".join(answer.out.split())


# --- settings, and what processes load -------------------------------------------------------------------------------


async def test_settings_are_listed_and_none_of_their_values_shown(goqueue: Console) -> None:
    answer = await goqueue("settings", GOQUEUE_SMTP_PASSWORD="swordfish")
    assert answer.code == 0
    assert "GOQUEUE_SMTP_PASSWORD" in answer.out
    assert "swordfish" not in answer.out
    assert goqueue.environment["POSTGRES_PASSWORD"] not in answer.out


async def test_a_worker_loads_none_of_the_operating_commands(goqueue: Console) -> None:
    with goqueue.worker(PYTHONPROFILEIMPORTTIME="1") as worker:
        assert (await goqueue("enqueue", "greet", ADA, "--wait", "60")).code == 0
        loaded = worker.log.read_text()
    assert "goqueue_cli.processes" in loaded
    assert "goqueue_cli.commands" not in loaded
