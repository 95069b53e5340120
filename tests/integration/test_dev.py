"""`goqueue dev`: the command a newcomer types first, run as it is typed."""

import asyncio
import base64
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from goqueue import development
from tests.integration.console import Console
from tests.integration.dev import LIMIT, Dev
from tests.integration.engine import eventually


def processes_of(folder: Path) -> dict[int, str]:
    """Processes that have to do with a folder of `goqueue dev`: id → command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            about = command + (process / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if os.fsencode(str(folder)) in about and int(process.name) != os.getpid():
            found[int(process.name)] = command.decode().replace("\0", " ")
    return found


def child_of(process: int) -> int:
    """The first child of a process."""
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])


@pytest.mark.timeout(400)
async def test_it_completes_a_job_of_each_type_stops_cleanly_and_finds_them_again(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    with Dev(folder) as dev:
        await dev.up()
        for kind in ("send_email", "send_webhook", "process_payment"):
            assert re.search(rf"job \d+ {kind}: completed", dev.output)
        assert (folder / "environment").stat().st_mode & 0o777 == 0o600
        dev.send(signal.SIGINT)
        assert dev.wait(LIMIT) == 0, dev.output
    assert processes_of(folder) == {}
    assert [mail.suffix for mail in (folder / "mails").iterdir()] == [".eml"]
    assert not (folder / "environment").exists()
    password = (folder / "postgres" / "password").read_text()
    logs = "".join(log.read_text() for log in (folder / "logs").iterdir())
    assert password not in logs + dev.output
    assert "Traceback" not in logs

    with Dev(folder) as again:
        await again.up()
        assert "the jobs of earlier runs are there, the newest is 3\n" in again.output, again.output
        assert [job["status"] for job in again.get("/jobs?queue=email")] == ["completed"]
        assert not re.search(r"job \d+ ", again.output)


@pytest.mark.timeout(400)
async def test_a_key_that_is_shown_is_checked_though_none_is_needed(tmp_path: Path) -> None:
    with Dev(tmp_path / "dev") as dev:
        await dev.up()
        wanted = {"name": "mail", "scopes": ["jobs:read"], "queues": ["email"]}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{dev.port}", timeout=30) as client:
            made = (await client.post("/admin/keys", json=wanted)).json()
            restricted = {"Authorization": f"Bearer {made['key']}"}
            assert (await client.get("/jobs?queue=email", headers=restricted)).status_code == 200
            assert (await client.get("/jobs?queue=default", headers=restricted)).status_code == 403
            assert (await client.post("/queues/email/pause", headers=restricted)).status_code == 403
            assert (await client.get("/queues", headers={"Authorization": "Bearer gq_nonsense"})).status_code == 401
            assert (await client.get("/queues")).status_code == 200


@pytest.mark.timeout(400)
async def test_a_python_program_connects_by_the_line_that_is_printed(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    with Dev(folder) as dev:
        await dev.up()
        [line] = [line.strip() for line in dev.output.splitlines() if line.strip().startswith("set -a")]
        program = "from goqueue import Client\nwith Client() as client: print(client.get(1).status.value)"
        shell = f'{line}\nexec "$0" -c "$1"'
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "GOQUEUE_"))}
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-ec", shell, sys.executable, program), cwd=tmp_path, env=clean, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert (process.returncode, output) == (0, b"completed\n")


@pytest.mark.timeout(400)
async def test_a_paused_queue_and_one_that_nobody_serves_are_told_and_stop_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    with Dev(folder) as dev:
        await dev.up()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{dev.port}", timeout=30) as client:
            assert (await client.post("/queues/email/pause")).status_code == 204
    with Dev(folder, "--once", GOQUEUE_WORKER_QUEUES="default,email,webhooks") as again:
        assert again.wait(LIMIT) == 0, again.output
    assert "queue email is paused: its jobs wait until `goqueue queues resume email`\n" in again.output
    assert "send_email: no first job, queue email is paused\n" in again.output
    assert "process_payment: no first job, no worker serves queue payment (GOQUEUE_WORKER_QUEUES)\n" in again.output
    assert re.search(r"job 4 send_webhook: completed", again.output)


@pytest.mark.timeout(400)
def test_queues_of_ones_own_do_not_keep_it_from_starting(tmp_path: Path) -> None:
    with Dev(tmp_path / "dev", "--once", GOQUEUE_QUEUES="lemons") as dev:
        assert dev.wait(LIMIT) == 0, dev.output


ELSEWHERE = {
    "PGHOST": "nowhere.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGSSLMODE": "verify-full",
    "PGOPTIONS": "-c search_path=nowhere",
    "PGSERVICE": "none",
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "LATIN1",
    "POSTGRES_SSLROOTCERT": "system",
    "postgres_host": "nowhere.invalid",
    "GOQUEUE_REDIS_SENTINEL_HOSTS": "nowhere.invalid:26379",
    "GOQUEUE_REDIS_TLS_CA": "/nowhere",
    "GOQUEUE_REDIS_PREFIX": "{theirs}",
    "DB_PGBOUNCER": "true",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "ALL_PROXY": "http://127.0.0.1:1",
}
"""An environment in which somebody works with other stores, and behind a proxy."""


@pytest.mark.timeout(400)
async def test_what_the_environment_says_of_other_stores_disturbs_neither_it_nor_the_console(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    with Dev(folder, **ELSEWHERE) as dev:
        await dev.up()
        assert dev.output.count(": completed (") == 3, dev.output
        theirs = {name: value for name, value in ELSEWHERE.items() if not name.upper().startswith("POSTGRES_")}
        console = Console(tmp_path, {"GOQUEUE_DEV_DIR": str(folder), **theirs})
        answer = await console("enqueue", "send_email", MAIL, "--wait", "30")
        assert (answer.code, answer.err) == (0, "")


MAIL = '{"to": "ada@example.org", "subject": "Hello", "body": "It works."}'


@pytest.mark.timeout(400)
def test_no_first_job_goes_where_the_users_own_settings_send_it(tmp_path: Path) -> None:
    secret = "whsec_" + base64.b64encode(bytes(24)).decode()
    own = {
        "GOQUEUE_SMTP_HOST": "mail.example.org",
        "goqueue_payment_stripe_key": "sk_test_x",
        "GOQUEUE_WEBHOOK_SECRETS": secret,
    }
    with Dev(tmp_path / "dev", "--once", **own) as dev:
        assert dev.wait(LIMIT) == 0, dev.output
    assert "send_email: no first job, your own settings say where it goes\n" in dev.output
    assert "process_payment: no first job, your own settings say where it goes\n" in dev.output
    assert re.search(r"webhook POST /hello: \d+ bytes, signed", dev.output)  # a secret alone leaves the receiver in use


@pytest.mark.timeout(400)
async def test_an_address_that_others_reach_asks_for_a_key(tmp_path: Path) -> None:
    with Dev(tmp_path / "dev", GOQUEUE_API_HOST="0.0.0.0") as dev:
        await dev.up()
        key = (tmp_path / "dev" / "api-key").read_text().strip()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{dev.port}", timeout=30) as client:
            assert (await client.get("/queues")).status_code == 401
            assert (await client.get("/queues", headers={"Authorization": f"Bearer {key}"})).status_code == 200
        assert '-H "Authorization: Bearer $(cat ' in dev.output


@pytest.mark.timeout(400)
async def test_a_job_that_runs_at_ctrl_c_is_finished_first(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio\nfrom pydantic import BaseModel\nfrom goqueue import job_type\n"
        "class Nap(BaseModel):\n    seconds: float\n"
        "@job_type('nap', payload=Nap, queue='naps')\n"
        "async def nap(payload: Nap, job) -> str:\n    await asyncio.sleep(payload.seconds)\n    return 'rested'\n"
    )
    folder = tmp_path / "dev"
    environment = {"GOQUEUE_JOBS": "slow", "GOQUEUE_QUEUES": "lemons", "PYTHONPATH": str(tmp_path)}
    with Dev(folder, **environment) as dev:
        await dev.up()
        names = [queue["name"] for queue in dev.get("/queues")["queues"]]
        assert names == ["default", "email", "webhooks", "payment", "naps", "lemons"]
        kept = development.read(folder / "environment")
        assert {"GOQUEUE_JOBS": "slow", "GOQUEUE_QUEUES": "lemons"}.items() <= kept.items()
        # A program in a shell of its own: it imports no module of types and names no store.
        program = (
            "from goqueue import Client\nwith Client() as c: print(c.wait(c.enqueue('nap', {'seconds': 0}), 30).result)"
        )
        own = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "GOQUEUE_"))}
        own |= {"GOQUEUE_DEV_DIR": str(folder), "PYTHONPATH": str(tmp_path)}
        said = await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", program], env=own)
        assert said == b"rested\n"
        order = {"queue": "naps", "type": "nap", "payload": {"seconds": 3}}
        job = dev.create(order)

        async def running() -> bool:
            return bool(dev.get(f"/jobs/{job}")["status"] == "processing")

        await eventually(running)
        dev.send(signal.SIGTERM)
        assert dev.wait(LIMIT) == 0, dev.output
    with Dev(folder, **environment) as again:
        await again.up()
        found = again.get(f"/jobs/{job}")
        assert (found["status"], found["attempts"], found["result"]) == ("completed", 1, "rested")


@pytest.mark.timeout(400)
async def test_a_part_that_ends_is_reported_with_its_last_lines_and_ends_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    with Dev(folder) as dev:
        await dev.up()
        [pid] = [pid for pid, command in processes_of(folder).items() if "goqueue_cli scheduler" in command]
        os.kill(pid, signal.SIGKILL)
        assert dev.wait(LIMIT) == 1
        assert "the scheduler ended with exit code -9" in dev.output
    assert processes_of(folder) == {}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("server", ["valkey", "postgres"])
async def test_a_store_that_ends_is_reported_and_ends_the_rest(tmp_path: Path, server: str) -> None:
    folder = tmp_path / "dev"
    with Dev(folder) as dev:
        await dev.up()
        [keeper] = [pid for pid, command in processes_of(folder).items() if f"keeper.py {server} " in command]
        os.kill(child_of(keeper), signal.SIGKILL)
        assert dev.wait(LIMIT) == 1
        assert f"goqueue: {server} ended; the end of {folder / server / 'server.log'}:" in dev.output
    assert processes_of(folder) == {}


@pytest.mark.timeout(400)
def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "dev"
    with Dev(tmp_path / "unused", GOQUEUE_DEV_DIR=str(below)) as dev:
        assert dev.wait(LIMIT) == 1
    assert dev.output == f"goqueue: GOQUEUE_DEV_DIR: cannot make {below}: Not a directory\n"


@pytest.mark.timeout(400)
def test_a_wrong_setting_of_a_part_is_told_and_nothing_stays(tmp_path: Path) -> None:
    with Dev(tmp_path / "dev", GOQUEUE_WORKER_CONCURRENCY="many") as dev:
        assert dev.wait(LIMIT) == 1
        assert dev.output.startswith("goqueue: GOQUEUE_WORKER_CONCURRENCY: ")
        assert dev.output.splitlines()[1].startswith("the worker ended with exit code 1; the end of ")
        assert "Traceback" not in dev.output
    assert processes_of(tmp_path / "dev") == {}


@pytest.mark.timeout(400)
def test_a_module_that_cannot_be_imported_is_the_first_thing_told(tmp_path: Path) -> None:
    with Dev(tmp_path / "dev", GOQUEUE_JOBS="no_such_module") as dev:
        assert dev.wait(LIMIT) == 1
    assert dev.output.startswith("goqueue: GOQUEUE_JOBS: cannot import 'no_such_module': ")


def test_a_taken_port_is_told_in_one_line_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Dev(tmp_path / "dev", GOQUEUE_API_PORT=port) as dev:
            assert dev.wait(LIMIT) == 1
    assert re.fullmatch(
        rf"goqueue: port {port} of 127.0.0.1 cannot be had .*; GOQUEUE_API_PORT chooses another\n", dev.output
    )
    assert not (tmp_path / "dev").exists()


@pytest.mark.timeout(400)
def test_once_ends_with_the_first_jobs(tmp_path: Path) -> None:
    with Dev(tmp_path / "dev", "--once") as dev:
        assert dev.wait(LIMIT) == 0, dev.output
        assert dev.output.count(": completed (") == 3
    assert processes_of(tmp_path / "dev") == {}


@pytest.mark.timeout(400)
async def test_killed_it_takes_all_its_processes_with_it_and_the_next_run_recovers(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    with Dev(folder) as dev:
        await dev.up()
        dev.kill()

    async def gone() -> bool:
        return processes_of(folder) == {}

    await eventually(gone, seconds=LIMIT)
    with Dev(folder, "--once") as again:
        assert again.wait(LIMIT) == 0, again.output
