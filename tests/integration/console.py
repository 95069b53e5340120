"""The console command in a folder of its own, as the tests type it."""

import asyncio
import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from goqueue_cli.embedded import free_port
from tests.servers.process import GOQUEUE, Process

MODULE = """
import asyncio

from pydantic import BaseModel

from goqueue import JobContext, NeverRetry, job_type


class Greeting(BaseModel):
    name: str


@job_type("greet", payload=Greeting)
async def greet(payload: Greeting, job: JobContext) -> dict[str, str]:
    job.log(f"greeting {payload.name}")
    return {"said": f"hello {payload.name}"}


@job_type("fail", payload=Greeting)
async def fail(payload: Greeting, job: JobContext) -> None:
    job.log("about to fail", level="warning")
    raise NeverRetry("no \\x1b[31mluck\\nat all")


@job_type("hold", payload=Greeting)
async def hold(payload: Greeting, job: JobContext) -> None:
    await asyncio.Event().wait()
"""
"""Job types of one's own, in a module that both sides import."""

ADA = '{"name": "Ada"}'


@dataclass
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self
        return orjson.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """The table's lines without the columns' names, split where at least two spaces stand."""
        assert self.code == 0, self
        return [[part.strip() for part in line.split("  ") if part.strip()] for line in self.out.splitlines()[1:]]


@dataclass
class Console:
    """A shell in an empty folder with an environment of its own."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def full(self, **more: str) -> dict[str, str]:
        mine = ("POSTGRES_", "GOQUEUE_", "DB_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        return {**inherited, **self.environment, **more}

    async def start(self, *words: str, **more: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            GOQUEUE, *words, stdin=pipe, stdout=pipe, stderr=pipe, cwd=self.folder, env=self.full(**more)
        )

    async def each(self, commands: Iterable[Sequence[str]]) -> list[Answer]:
        """What several commands say; a few run at the same time."""
        free = asyncio.Semaphore(3)

        async def one(words: Sequence[str]) -> Answer:
            async with free:
                return await self(*words)

        return await asyncio.gather(*map(one, commands))

    async def __call__(self, *words: str, **more: str) -> Answer:
        return await self.fed("", *words, **more)

    async def fed(self, stdin: str, *words: str, **more: str) -> Answer:
        """What a command says to what it reads."""
        process = await self.start(*words, **more)
        out, err = await process.communicate(stdin.encode())
        answer = Answer(process.returncode or 0, out.decode(), err.decode())
        assert "Traceback" not in answer.out + answer.err
        return answer

    @contextlib.contextmanager
    def worker(self, **more: str) -> Iterator[Process]:
        """A real worker; the next command finds it soon enough, since it waits."""
        environment = self.full(GOQUEUE_WORKER_HEALTH_PORT=str(free_port()), **more)
        log = self.folder / "worker.log"
        with Process([GOQUEUE, "worker"], log=log, environment=environment, cwd=self.folder) as process:
            yield process
