"""The scheduler process: stands for leadership and, while leading, runs the seven duties."""

import asyncio
import time

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.queues import Queues
from goqueue.registry import REGISTRY, Registry
from goqueue.service import JobService
from goqueue.settings import EngineSettings, SchedulerSettings
from goqueue.store.connect import Database
from goqueue_scheduler.beyond import BeyondCount
from goqueue_scheduler.census import Census
from goqueue_scheduler.cronduty import CronDuty
from goqueue_scheduler.dispatcher import Dispatcher
from goqueue_scheduler.leader import Leadership
from goqueue_scheduler.pruner import Pruner
from goqueue_scheduler.refill import Refill
from goqueue_scheduler.rescuer import Rescuer


class Scheduler:
    """Any number may run; one leads."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        settings: SchedulerSettings,
        engine: EngineSettings,
        registry: Registry = REGISTRY,
    ) -> None:
        self.leadership = Leadership(database, "scheduler", settings.leader_seconds)
        self.dispatcher = Dispatcher(database, broker, settings.reconcile_seconds)
        self.rescuer = Rescuer(database, self.dispatcher, engine.lease_seconds)
        self._service = JobService(database, broker)
        queues = Queues(registry, engine.queues)
        self._cron = CronDuty(self._service, registry, queues, settings.cron_catch_up)
        self._pruner = Pruner(database, settings.keep_completed, settings.keep_failed, settings.keep_audit)
        self._census = Census(database, broker, queues)
        self.refill = Refill(database, broker, queues)
        self._beyond = BeyondCount(database, broker, self.refill)
        self._patience = 10 * settings.leader_seconds

    async def run(self) -> None:
        """Stand for leadership until cancelled."""
        metrics.LEADING.read(lambda: self.leadership.leading, "scheduler")
        try:
            await self.leadership.run(self._duties)
        finally:
            await self._service.close()

    async def _duties(self) -> None:
        async with asyncio.TaskGroup() as group:
            for duty in (
                self.refill,
                self._beyond,
                self.dispatcher,
                self.rescuer,
                self._cron,
                self._pruner,
                self._census,
            ):
                group.create_task(duty.run(), name=type(duty).__name__)

    def unwell(self) -> dict[str, str]:
        """Why the process should be restarted, for its liveness probe; empty where it should not."""
        silent = time.monotonic() - self.leadership.asked_at
        return {"loop": f"has not asked for the lead for {silent:.0f} s"} if silent > self._patience else {}
