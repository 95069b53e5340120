"""The client for code that is not async: `AsyncClient` in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any, Self, TypeVar, Unpack

from goqueue import forks
from goqueue.client import AsyncClient
from goqueue.job import Attempt, Job
from goqueue.library import Options
from goqueue.lifecycle import JobStatus
from goqueue.overview import QueueState
from goqueue.payloads import Payload
from goqueue.registry import Handler

T = TypeVar("T")


class Client:
    """`AsyncClient` for code that is not async, and for any number of threads. Use it as `with`, or call `open` and
    `close`.

    A thread of its own runs the loop. What other threads still wait for when the block ends is cancelled. In a forked
    child it opens connections of its own when it is first used there.
    """

    def __init__(self, client: AsyncClient | None = None) -> None:
        """`client` defaults to one from the environment; it belongs to this object from now on.

        Raises:
            SettingsError: a setting of the environment is wrong.
        """
        self._async = client or AsyncClient.from_environment()
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls) -> Self:
        """As `Client()`; see `AsyncClient.from_environment`."""
        return cls()

    def __enter__(self) -> Self:
        """Connect; raises as `AsyncClient.__aenter__` does."""
        with self._lock:
            self._start()
            self._open = True
        forks.watch(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections and end the thread."""
        forks.forget(self)
        with self._lock:
            self._open = False
            loop = self._loop
        if loop is None:  # in a forked child that never used it
            return
        try:
            asyncio.run_coroutine_threadsafe(self._async.__aexit__(), loop).result()
        finally:
            self._end(loop)

    def open(self) -> Self:
        """Connect, where a `with` block does not fit, as in a module that a server imports; raises as that does."""
        return self.__enter__()

    def close(self) -> None:
        """Close all connections and end the thread."""
        self.__exit__()

    def _start(self) -> None:
        """Start the loop's thread and connect."""
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="goqueue-client", daemon=True)
        self._thread.start()
        opening = asyncio.run_coroutine_threadsafe(self._async.__aenter__(), loop)
        try:
            opening.result()
        except BaseException:
            opening.cancel()  # for a caller that was interrupted
            self._end(loop)
            raise
        self._loop = loop

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what still runs in the loop, then the loop and its thread."""
        self._loop = None
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()
        loop.close()

    def in_child(self) -> None:
        """Forget the parent's thread and loop; called in a forked child."""
        forks.abandon(self._loop, self._thread)
        self._loop = self._thread = None
        self._lock = threading.Lock()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            with self._lock:  # what is handed over before `__exit__` says no is seen to by it
                if not self._open:
                    raise RuntimeError("a Client works inside its `with` block only, or between `open` and `close`")
                if self._loop is None:
                    self._start()
                assert self._loop is not None  # noqa: S101 - `_start` set it
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        finally:
            future.cancel()  # for a caller that was interrupted

    # --- enqueue -----------------------------------------------------------------------------------------------------

    def enqueue(self, kind: str | Handler, payload: Payload, **options: Unpack[Options]) -> int:
        """As `AsyncClient.enqueue`."""
        self._async.load_types(kind)  # in this thread: it may hold the lock of a module that imports another
        return self._run(self._async.enqueue(kind, payload, **options))

    def enqueue_many(self, kind: str | Handler, payloads: Sequence[Payload], **options: Unpack[Options]) -> list[int]:
        """As `AsyncClient.enqueue_many`."""
        self._async.load_types(kind)
        return self._run(self._async.enqueue_many(kind, payloads, **options))

    # --- look --------------------------------------------------------------------------------------------------------

    def get(self, job_id: int) -> Job:
        """As `AsyncClient.get`."""
        return self._run(self._async.get(job_id))

    def find(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,
        status: JobStatus | str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        after: int | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> list[Job]:
        """As `AsyncClient.find`."""
        return self._run(
            self._async.find(
                queue=queue,
                type=type,
                status=status,
                created_after=created_after,
                created_before=created_before,
                after=after,
                newest_first=newest_first,
                limit=limit,
            )
        )

    def wait(self, job_id: int, timeout: float) -> Job:
        """As `AsyncClient.wait`."""
        return self._run(self._async.wait(job_id, timeout))

    def attempts(self, job_id: int) -> list[Attempt]:
        """As `AsyncClient.attempts`."""
        return self._run(self._async.attempts(job_id))

    def logs(self, job_id: int, *, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """As `AsyncClient.logs`."""
        return self._run(self._async.logs(job_id, after=after, limit=limit))

    def queues(self) -> list[QueueState]:
        """As `AsyncClient.queues`."""
        return self._run(self._async.queues())

    # --- steer -------------------------------------------------------------------------------------------------------

    def cancel(self, job_id: int) -> JobStatus:
        """As `AsyncClient.cancel`."""
        return self._run(self._async.cancel(job_id))

    def retry(self, job_id: int) -> None:
        """As `AsyncClient.retry`."""
        self._run(self._async.retry(job_id))

    def delete(self, job_id: int) -> None:
        """As `AsyncClient.delete`."""
        self._run(self._async.delete(job_id))

    def pause(self, queue: str) -> None:
        """As `AsyncClient.pause`."""
        self._run(self._async.pause(queue))

    def resume(self, queue: str) -> None:
        """As `AsyncClient.resume`."""
        self._run(self._async.resume(queue))


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
