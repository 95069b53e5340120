"""Supervision of the leader's duties: each runs in a task of its own, and an error in one never touches the others."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from goqueue import metrics
from goqueue.errors import BrokerUnavailable, StoreContended, StoreUnavailable, UnfitDatabase
from goqueue.retry import RetryPolicy
from goqueue.tasks import end_all

BACKOFF: Final = RetryPolicy(base=0.5, factor=2.0, maximum=30.0, jitter=0.25)
"""Seconds from a tick that failed unexpectedly to the next one, by the number of such failures in a row."""

OUTAGE: Final = 0.2
"""Seconds from a tick that found a store unavailable to the next one."""

PATIENCE: Final = 120.0
"""Seconds that a tick may take. Each of its statements is bounded, and so is the silence of a connection."""

log = structlog.get_logger(__name__)


class Duty(Protocol):
    """Work that only the leader does, in short ticks."""

    name: str
    """Label of its metrics."""

    def begin(self) -> None:
        """Forget what was known: a term of leadership begins, and another process may have led before."""
        ...

    async def tick(self) -> float:
        """Do a bounded amount of work; seconds until the next tick.

        A tick that raises is repeated. It must not have noted as done what it did not do.
        """
        ...

    def end(self) -> None:
        """The term is over."""
        ...


class Supervisor:
    """Runs duties, repeats ticks that failed, and knows how each is."""

    def __init__(self, duties: Sequence[Duty]) -> None:
        self._duties = duties
        self._ticking: dict[str, float] = {}
        self.failing: dict[str, str] = {}
        """Duties whose last tick failed, with the error."""

    async def run(self) -> None:
        """Run all duties until cancelled.

        Raises:
            UnfitDatabase: within an exception group; repeating does not help.
        """
        tasks = [asyncio.create_task(self._supervise(duty), name=duty.name) for duty in self._duties]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)  # none ends but by an error
        finally:
            await end_all(tasks)
        errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
        raise BaseExceptionGroup("duties of the scheduler", errors)

    async def _supervise(self, duty: Duty) -> None:
        failures = 0
        duty.begin()
        metrics.DUTY_FAILING.set(0, duty.name)
        metrics.DUTY_FAILURES.inc(0, duty.name)
        try:
            while True:
                self._ticking[duty.name] = time.monotonic()
                try:
                    pause = await duty.tick()
                except UnfitDatabase:
                    raise
                except (BrokerUnavailable, StoreUnavailable) as error:
                    pause = OUTAGE
                    self._note_failure(duty, error)
                except Exception as error:
                    failures += 1
                    pause = BACKOFF.delay(failures)
                    metrics.DUTY_FAILURES.inc(1, duty.name)
                    log.exception("duty failed", duty=duty.name, again_in=round(pause, 1))
                    self._note_failure(duty, error)
                else:
                    failures = 0
                    self._note_success(duty)
                self._ticking.pop(duty.name, None)
                await asyncio.sleep(pause)
        finally:
            self._ticking.pop(duty.name, None)
            self.failing.pop(duty.name, None)
            metrics.DUTY_FAILING.remove(duty.name)
            duty.end()

    def _note_failure(self, duty: Duty, error: Exception) -> None:
        if duty.name not in self.failing and isinstance(error, BrokerUnavailable | StoreUnavailable):
            level = log.info if isinstance(error, StoreContended) else log.warning
            level("duty interrupted", duty=duty.name, error=error.message)
        self.failing[duty.name] = str(error)
        metrics.DUTY_FAILING.set(1, duty.name)

    def _note_success(self, duty: Duty) -> None:
        if self.failing.pop(duty.name, None) is not None:
            metrics.DUTY_FAILING.set(0, duty.name)
            log.info("duty works again", duty=duty.name)

    def stuck(self) -> dict[str, str]:
        """The duties whose present tick takes too long, with the reason."""
        now = time.monotonic()
        return {
            name: f"has been at one step for {now - since:.0f} s"
            for name, since in list(self._ticking.items())
            if now - since > PATIENCE
        }
