"""`goqueue dev` as a test starts it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from goqueue_cli.embedded import free_port
from tests.integration.engine import eventually
from tests.servers.process import GOQUEUE, Process

LIMIT = 150


class Dev(Process):
    """A `goqueue dev` with a folder and a port of its own."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        settings = {"GOQUEUE_DEV_DIR": str(folder), "GOQUEUE_API_PORT": str(self.port), **environment}
        super().__init__([GOQUEUE, "dev", *options], log=folder.with_suffix(f".{self.port}"), environment=settings)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> Any:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30).raise_for_status().json()

    def create(self, order: dict[str, Any]) -> int:
        answer = httpx.post(f"http://127.0.0.1:{self.port}/jobs/create", json=order, timeout=30)
        return int(answer.raise_for_status().json()["id"])

    async def until(self, condition: Callable[[str], object]) -> None:
        """Until the output meets the condition, or the process has ended."""

        async def met() -> bool:
            return bool(condition(self.output)) or self.returncode is not None

        await eventually(met, seconds=LIMIT)
        assert condition(self.output), self.output

    async def up(self) -> None:
        await self.until(lambda output: "Ctrl-C stops" in output)
