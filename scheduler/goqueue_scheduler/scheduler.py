"""The scheduler process: stands for leadership and, while leading, runs the duties."""

import asyncio
import time
from collections.abc import Sequence

from goqueue import metrics
from goqueue.broker import Broker
from goqueue.queues import Queues
from goqueue.registry import REGISTRY, Registry
from goqueue.service import JobService
from goqueue.settings import EngineSettings, SchedulerSettings
from goqueue.store.connect import Database
from goqueue_scheduler.beyond import BeyondCount
from goqueue_scheduler.census import Census
from goqueue_scheduler.counts import Counts
from goqueue_scheduler.cronduty import CronDuty
from goqueue_scheduler.dispatcher import Dispatcher
from goqueue_scheduler.leader import Leadership
from goqueue_scheduler.pruner import Pruner
from goqueue_scheduler.reconciler import Reconciler
from goqueue_scheduler.refill import Refill
from goqueue_scheduler.rescuer import Orphanage, Rescuer
from goqueue_scheduler.supervisor import Duty, Supervisor
from goqueue_scheduler.watch import Watcher


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
        self._service = JobService(database, broker)
        queues = Queues(registry, engine.queues)
        ask_walk, orphans = asyncio.Event(), Orphanage()
        self.dispatcher = Dispatcher(database, broker, ask_walk)
        self.reconciler = Reconciler(
            database, broker, self.dispatcher.strays, orphans, ask_walk, settings.reconcile_seconds
        )
        self.watcher = Watcher(database, orphans, engine.lease_seconds)
        self.rescuer = Rescuer(database, orphans)
        self.pruner = Pruner(database, settings.keep_completed, settings.keep_failed, settings.keep_audit)
        self.refill = Refill(database, broker, queues)
        counts = Counts(database, queues)
        self.duties: Sequence[Duty] = (
            self.refill,
            BeyondCount(database, broker, self.refill),
            self.dispatcher,
            self.reconciler,
            self.watcher,
            self.rescuer,
            CronDuty(self._service, registry, queues, settings.cron_catch_up),
            self.pruner,
            Census(database, broker, queues, counts),
            counts,
        )
        self.supervisor = Supervisor(self.duties)
        self._patience = 10 * settings.leader_seconds

    async def run(self) -> None:
        """Stand for leadership until cancelled."""
        metrics.LEADING.read(lambda: self.leadership.leading, "scheduler")
        try:
            await self.leadership.run(self.supervisor.run)
        finally:
            await self._service.close()

    def unwell(self) -> dict[str, str]:
        """Why the process should be restarted, for its liveness probe; empty where it should not."""
        silent = time.monotonic() - self.leadership.asked_at
        loop = {"loop": f"has not asked for the lead for {silent:.0f} s"} if silent > self._patience else {}
        return loop | self.supervisor.stuck()
