"""Handlers in every form that Python has for them, and the exceptions that no future carries."""

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from goqueue import JobContext
from goqueue.registry import Handler, JobType, Registry
from tests.integration.engine import Anything, Engine


async def plain(payload: Any, job: JobContext) -> dict[str, Any]:
    """What all forms below come to."""
    await asyncio.sleep(0)
    return {"job": job.job_id, "main": threading.current_thread() is threading.main_thread()}


def decorated(handler: Callable[..., Any]) -> Handler:
    """As a decorator of somebody who did not think of async functions."""

    @functools.wraps(handler)
    def wrapper(*arguments: Any) -> Any:
        return handler(*arguments)

    return wrapper


@dataclass
class Callable_:  # noqa: N801 - `Callable` is taken
    """An object with an async `__call__`; as a dataclass it has no hash."""

    seen: list[int] = field(default_factory=list)

    async def __call__(self, payload: Any, job: JobContext) -> dict[str, Any]:
        self.seen.append(job.job_id)
        return await plain(payload, job)

    async def method(self, payload: Any, job: JobContext) -> dict[str, Any]:
        return await plain(payload, job)


async def with_more(more: str, payload: Any, job: JobContext) -> dict[str, Any]:
    return await plain(payload, job)


FORMS: dict[str, Any] = {
    "function": plain,
    "decorated": decorated(plain),
    "object": Callable_(),
    "method": Callable_().method,
    "partial": functools.partial(with_more, "more"),
    "lambda": lambda payload, job: plain(payload, job),
    "decorated object": decorated(Callable_()),
}


@pytest.mark.parametrize("form", FORMS)
async def test_what_an_async_function_in_any_form_returns_is_awaited_in_the_event_loop(
    engine: Engine, form: str
) -> None:
    engine.handle("it", FORMS[form])
    async with engine.worker():
        job = await engine.until(await engine.enqueue("it", max_retries=0), "completed", "failed")
    assert (job.status, job.result) == ("completed", {"job": job.id, "main": True}), job.error


async def test_a_decorated_async_handler_that_waits_is_cancelled_and_timed_out_as_any_other(engine: Engine) -> None:
    async def wait(payload: Any, job: JobContext) -> None:
        await asyncio.Event().wait()

    engine.handle("wait", decorated(wait))
    engine.handle("slow", decorated(wait), timeout=0.2)
    async with engine.worker():
        slow = await engine.until(await engine.enqueue("slow", max_retries=0), "failed")
        assert slow.error == "timed out after 0.2 s"
        waiting = await engine.enqueue("wait")
        await engine.until(waiting, "processing")
        await engine.service.cancel(waiting)
        await engine.until(waiting, "cancelled")


def generator(payload: Any, job: JobContext) -> Any:
    yield 1


async def async_generator(payload: Any, job: JobContext) -> Any:
    yield 1


class Generating:
    def __call__(self, payload: Any, job: JobContext) -> Any:
        yield 1


async def of_one_argument(payload: Any) -> None: ...


async def of_three_arguments(payload: Any, job: JobContext, more: Any) -> None: ...


@pytest.mark.parametrize("handler", [of_one_argument, of_three_arguments])
def test_a_handler_that_does_not_take_payload_and_job_is_refused_when_it_is_registered(handler: Any) -> None:
    registry = Registry()
    with pytest.raises(TypeError, match="job type 'it': a handler takes two arguments, the payload and the job"):
        registry.add(JobType("it", Anything, handler=handler))
    assert registry.names() == []


@pytest.mark.parametrize("timeout", ["30s", 0, -1, float("inf"), float("nan"), None, True])
def test_a_timeout_that_is_no_time_is_refused_when_the_type_is_registered(timeout: Any) -> None:
    registry = Registry()
    with pytest.raises(ValueError, match="job type 'it': timeout must be a number of seconds above 0"):
        registry.add(JobType("it", Anything, timeout=timeout))
    assert registry.names() == []


@pytest.mark.parametrize("handler", [generator, async_generator, Generating()])
def test_a_generator_is_refused_when_it_is_registered(handler: Any) -> None:
    registry = Registry()
    with pytest.raises(TypeError, match="job type 'it': a handler must not be a generator"):
        registry.add(JobType("it", Anything, handler=handler))
    assert registry.names() == []
    with pytest.raises(TypeError, match="generator"):
        registry.add(JobType("it", Anything)).implements(handler)


class Odd(BaseException):
    """Not an Exception."""


ENDS: dict[str, tuple[BaseException, str]] = {
    "StopIteration": (StopIteration("swordfish"), "RuntimeError: the handler raised StopIteration"),
    "StopAsyncIteration": (StopAsyncIteration(), "StopAsyncIteration"),
    "CancelledError": (concurrent.futures.CancelledError(), "CancelledError"),
    "TimeoutError": (concurrent.futures.TimeoutError("late"), "TimeoutError: late"),
    "InvalidStateError": (concurrent.futures.InvalidStateError("odd"), "InvalidStateError: odd"),
    "GeneratorExit": (GeneratorExit(), "GeneratorExit"),
    "SystemExit": (SystemExit(3), "SystemExit: 3"),
    "KeyboardInterrupt": (KeyboardInterrupt(), "KeyboardInterrupt"),
    "BaseException": (Odd("x"), "Odd: x"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_a_plain_function_may_raise_anything_and_the_attempt_fails_at_once_by_its_name(
    engine: Engine, name: str
) -> None:
    raised, error = ENDS[name]

    def fail(payload: Any, job: JobContext) -> None:
        raise raised

    engine.handle("fail", fail)
    async with engine.worker():
        # Within far less than the type's timeout of 30 s.
        job = await engine.until(await engine.enqueue("fail", max_retries=0), "failed", seconds=10)
    assert job.error == error
