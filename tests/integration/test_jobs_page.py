"""docs/jobs.md: each of its lines is run on a `goqueue dev`, in the order of the page."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from goqueue import Client
from tests.integration.dev import Dev
from tests.integration.engine import eventually
from tests.servers.process import GOQUEUE

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "jobs.md"

WITHOUT: Final[dict[str, set[str]]] = {
    "Working with jobs": {"curl", "goqueue", "python"},
    "Create many": {"goqueue"},
    "Schedules (cron)": {"python"},
    "Show": {"python"},
    "Pause, resume, run now": {"python"},
    "Remove": {"python"},
    "Who did what": {"python"},
}
"""Ways that a section does not show: there is none."""


@dataclass(frozen=True)
class Block:
    """Some lines of the page."""

    section: str
    language: str
    text: str
    number: int

    @property
    def way(self) -> str:
        """How it does what the section is about."""
        return "python" if self.language == "python" else "curl" if self.text.startswith("curl ") else "goqueue"


def blocks() -> list[Block]:
    found: list[Block] = []
    section, language, lines = "", "", list[str]()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not language and (title := re.fullmatch(r"#+ (.*)", line)):
            section = title[1]
        elif not language and line.startswith("```"):
            language, lines = line[3:], []
        elif line == "```":
            found.append(Block(section, language, "\n".join(lines), len(found)))
            language = ""
        else:
            lines.append(line)
    return found


BLOCKS: Final = blocks()


def test_each_section_shows_rest_console_and_python_but_where_there_is_none() -> None:
    assert len(BLOCKS) > 30
    sections = {block.section for block in BLOCKS}
    ways = {section: {block.way for block in BLOCKS if block.section == section} for section in sections}
    del ways["Working with jobs"]
    assert ways == {section: {"curl", "goqueue", "python"} - WITHOUT.get(section, set()) for section in ways}
    assert {block.language for block in BLOCKS} == {"sh", "python"}


# --- what a section needs, and what it does --------------------------------------------------------------------------

MAIL: Final = {"to": "ada@example.org", "subject": "Hi", "body": "Hello"}
Api = httpx.AsyncClient


async def create(api: Api, **order: Any) -> int:
    answer = await api.post("/jobs/create", json={"type": "send_email", "payload": MAIL, **order})
    return int(answer.raise_for_status().json()["id"])


async def status(api: Api, job_id: int) -> str:
    return str((await api.get(f"/jobs/{job_id}")).raise_for_status().json()["status"])


async def ended(api: Api, job_id: int) -> int:
    async def final() -> bool:
        return await status(api, job_id) in ("completed", "failed", "cancelled")

    await eventually(final, seconds=30)
    return job_id


async def a_completed_job(api: Api) -> int:
    return await ended(api, await create(api))


async def a_waiting_job(api: Api) -> int:
    return await create(api, available_at="2100-01-01T00:00:00Z")


async def a_failed_job(api: Api) -> int:
    payload = {"url": "http://127.0.0.1:1/", "method": "POST", "body": {}}  # nobody listens there
    return await ended(api, await create(api, type="send_webhook", payload=payload, max_retries=0))


async def a_schedule(api: Api) -> int:
    plan = {"cron": "0 6 * * *", "job": {"type": "send_email", "payload": MAIL}}
    (await api.put("/schedules/morning-mail", json=plan)).raise_for_status()
    return 0


async def nothing(api: Api) -> int:
    return 0


NEEDED: Final[dict[str, Callable[[Api], Awaitable[int]]]] = {
    "Show, and wait for the end": a_completed_job,
    "Attempts and log lines": a_failed_job,
    "Cancel": a_waiting_job,
    "Retry by hand": a_failed_job,
    "Delete": a_waiting_job,
    "Show": a_schedule,
    "Pause, resume, run now": a_schedule,
    "Remove": a_schedule,
}
"""What there must be before the lines of a section run; the result is `$ID`."""


async def check_cancelled(api: Api, job_id: int, _: int) -> None:
    assert await status(api, job_id) == "cancelled"


async def check_retried(api: Api, job_id: int, _: int) -> None:
    acts = (await api.get("/admin/audit?limit=1000")).json()
    retried = [act for act in acts if (act["action"], act["object"]) == ("job.retried", str(job_id))]
    job = (await api.get(f"/jobs/{job_id}")).json()
    attempts = (await api.get(f"/jobs/{job_id}/attempts")).json()["attempts"]
    assert retried or job["status"] != "failed" or len(attempts) > 1


async def check_deleted(api: Api, job_id: int, _: int) -> None:
    assert (await api.get(f"/jobs/{job_id}")).status_code == 404


async def check_schedule(api: Api, _: int, __: int) -> None:
    found = (await api.get("/schedules/morning-mail")).raise_for_status().json()
    assert (found["cron"], found["time_zone"], found["enabled"]) == ("0 6 * * 1-5", "Europe/Berlin", True)


async def check_run(api: Api, _: int, newest: int) -> None:
    job = (await api.get(f"/jobs/{newest + 1}")).raise_for_status().json()
    assert (job["source"], job["type"]) == ("schedule", "send_email")


async def check_removed(api: Api, _: int, __: int) -> None:
    assert (await api.get("/schedules/morning-mail")).status_code == 404


async def check_created(api: Api, _: int, newest: int) -> None:
    assert (await api.get(f"/jobs/{newest + 1}")).json()["payload"]["subject"] == "Hello"


async def check_options(api: Api, _: int, newest: int) -> None:
    job = (await api.get(f"/jobs/{newest + 1}")).raise_for_status().json()
    options = (job["priority"], job["available_at"], job["max_retries"], job["timeout"])
    assert options == (10, "2030-01-31T08:00:00Z", 3, 30)


async def check_many(api: Api, _: int, newest: int) -> None:
    jobs = [(await api.get(f"/jobs/{newest + number}")).raise_for_status().json() for number in (1, 2)]
    assert [job["payload"]["to"] for job in jobs] == ["ada@example.org", "bob@example.org"]


DONE: Final[dict[str, Callable[[Api, int, int], Awaitable[None]]]] = {
    "Create": check_created,
    "Options: priority, delay, retries, timeout": check_options,
    "Create many": check_many,
    "Cancel": check_cancelled,
    "Retry by hand": check_retried,
    "Delete": check_deleted,
    "Schedules (cron)": check_schedule,
    "Pause, resume, run now": check_run,
    "Remove": check_removed,
}
"""What must be so after each block of a section: of `$ID`, or of the jobs after the newest one of before."""


def test_what_is_said_of_sections_is_said_of_sections_that_there_are() -> None:
    assert {*NEEDED, *DONE, *WITHOUT} <= {block.section for block in BLOCKS}


# --- run -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def dev(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    with Dev(tmp_path_factory.mktemp("home") / ".goqueue") as dev:
        await dev.up()
        yield dev


@pytest.fixture
async def api(dev: Dev) -> AsyncIterator[Api]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{dev.port}", timeout=30) as client:
        yield client


async def in_a_shell(dev: Dev, text: str, job_id: int) -> None:
    """Run lines as one types them, where `make run` was started; what curl is refused fails."""
    here = {name: value for name, value in os.environ.items() if not name.startswith(("GOQUEUE_", "POSTGRES_"))}
    own = {
        "PATH": f"{Path(GOQUEUE).parent}{os.pathsep}{os.environ['PATH']}",
        "API": f"http://127.0.0.1:{dev.port}",
        "ID": str(job_id),
        "no_proxy": "127.0.0.1",
    }
    fails = 'curl() { command curl -sS --fail-with-body "$@"; }\n'
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-euc", fails + text),
        cwd=dev.folder.parent,
        env=here | own,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"{text}\n{output.decode()}"


def in_python(dev: Dev, text: str, job_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run lines within `with Client() as client:`, in the environment that the page says how to get."""
    for line in (dev.folder / "environment").read_text().splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    with Client() as client:
        exec(compile(text, str(PAGE), "exec"), {"client": client, "job_id": job_id})  # noqa: S102 - our own page


@pytest.mark.timeout(120)
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.number}-{block.section}-{block.way}")
async def test_the_lines_of_the_page_do_what_they_say(
    dev: Dev, api: Api, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block.way == "curl" and shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    job_id = await NEEDED.get(block.section, nothing)(api)
    newest = await create(api, available_at="2100-01-01T00:00:00Z")
    if block.way == "python":
        await asyncio.to_thread(in_python, dev, block.text, job_id, monkeypatch)
    else:
        await in_a_shell(dev, block.text, job_id)
    if block.section in DONE:
        await DONE[block.section](api, job_id, newest)
