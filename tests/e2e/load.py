"""Jobs that are posted while something happens, each answer counted."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Load:
    """What became of the requests."""

    accepted: list[int] = field(default_factory=list)
    """Ids of jobs that were answered by 201."""
    failed: list[tuple[float, str]] = field(default_factory=list)
    """(`time.time()`, what was answered instead)."""
    slowest: float = 0.0
    """Seconds of the slowest request."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def post(self, url: str, headers: dict[str, str], body: dict[str, Any], pause: float) -> None:
        """Post jobs one after the other, until told to stop."""
        with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
            while not self._stop.wait(pause):
                began = time.monotonic()
                try:
                    answer = client.post("/jobs/create", json=body)
                    told = "" if answer.status_code == 201 else f"{answer.status_code} {answer.text[:200]}"
                except httpx.HTTPError as error:
                    told = f"{type(error).__name__}: {error}"
                with self._lock:
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    if told:
                        self.failed.append((time.time(), told))
                    else:
                        self.accepted.append(answer.json()["id"])

    def stop(self) -> None:
        """No further requests."""
        self._stop.set()


@contextmanager
def load(
    url: str, headers: dict[str, str], body: dict[str, Any], *, threads: int = 2, pause: float = 0.1
) -> Iterator[Load]:
    """Post jobs for as long as the block lasts: each thread one, then a pause of so many seconds, and again."""
    made = Load()
    posting = [
        threading.Thread(target=made.post, args=(url, headers, body, pause), daemon=True) for _ in range(threads)
    ]
    for thread in posting:
        thread.start()
    try:
        yield made
    finally:
        made.stop()
        for thread in posting:
            thread.join(30)
