"""The operator, put together: one Lease, and behind it everything that only one process may do."""

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

import structlog

from goqueue import metrics
from goqueue.queues import Queues
from goqueue.registry import REGISTRY, Registry
from goqueue.service import JobService
from goqueue.settings import EngineSettings, OperatorSettings, SchedulerSettings, WorkerSettings, load
from goqueue_operator.access import Access
from goqueue_operator.claims import Claims
from goqueue_operator.compare import Comparison
from goqueue_operator.crds.schema import API_VERSION
from goqueue_operator.deployment import ANY_ADDRESS, Defaults
from goqueue_operator.jobs import Jobs
from goqueue_operator.kube import JOBS, NAMESPACES, POOLS, SCHEDULES, Kind, Kube, KubeError, KubeUnavailable
from goqueue_operator.lease import Lease
from goqueue_operator.namespaces import granted
from goqueue_operator.pools import Pools
from goqueue_operator.schedules import Schedules
from goqueue_operator.watch import Heard, Listed, watch

DEAF_AFTER: Final = 90.0
"""Seconds for which the watch may miss what is there before the process counts as stuck."""

SILENT_AFTER: Final = 60.0
"""Seconds without an answer of the API server about the Lease after which a leader's watch is in doubt."""

log = structlog.get_logger(__name__)


class Operator:
    """One operator process; `run()` stands for leadership and works while it leads."""

    def __init__(
        self,
        access: Access,
        service: JobService,
        settings: OperatorSettings,
        engine: EngineSettings,
        registry: Registry = REGISTRY,
    ) -> None:
        self._access = access
        self._service = service
        self._settings = settings
        self._queues = Queues(registry, engine.queues)
        self._registry = registry
        self.own_namespace = settings.namespace or access.namespace
        self.namespace = None if settings.cluster_wide else self.own_namespace
        self.kube = Kube(access, settings.requests)
        holder = f"{socket.gethostname()}-{os.getpid()}"
        # The lead must not depend on how long a status write takes, or on the wait that it was asked for: the lease has
        # connections of its own, and tries again in its own time.
        self._lease_kube = Kube(access, requests=2, attempts=1)
        self._claim_kube = Kube(access, requests=4, attempts=1)
        self.lease = Lease(self._lease_kube, self.own_namespace, settings.lease_name, holder)
        self.jobs: Jobs | None = None
        self.pools: Pools | None = None
        self.comparison: Comparison | None = None
        self._turned_at = time.monotonic()

    async def run(self) -> None:
        """Lead or wait for it, until cancelled."""
        turning = asyncio.create_task(self._turn(), name="turn")
        metrics.LEADING.read(lambda: self.lease.leading, "operator")
        try:
            await self.lease.run(self._duties)
        finally:
            turning.cancel()
            await self._lease_kube.close()
            await self._claim_kube.close()
            await self.kube.close()

    async def _turn(self) -> None:
        while True:
            self._turned_at = time.monotonic()
            if self.jobs is not None and self.lease.leading:
                self.jobs.show_backlog()
            await asyncio.sleep(1.0)

    async def _duties(self) -> None:
        """What the leader does. All of it starts anew with each lead: nothing is known from an earlier one."""
        settings = self._settings
        installation = await self._installation()
        claims = Claims(self.kube, f"{self.own_namespace}/{settings.lease_name}", self._claim_kube)
        kept = load(SchedulerSettings)
        namespaces = granted(settings.namespace_queues, settings.namespace_tenants)
        self.jobs = jobs = Jobs(
            self.kube,
            self._service,
            self._registry,
            self._queues,
            status_seconds=settings.status_seconds,
            writers=settings.requests,
            installation=installation,
            keep_seconds=min(kept.keep_completed, kept.keep_failed),
            ttl_seconds=settings.ended_ttl_seconds or None,
            ended_limit=settings.ended_limit,
            namespaces=namespaces,
        )
        self.comparison = comparison = Comparison(
            self.kube, self._service.database, jobs, self.namespace, settings.compare_seconds, installation, claims
        )
        worker = load(WorkerSettings)
        defaults = Defaults(
            settings.image,
            settings.worker_env_from,
            settings.worker_certificates,
            dict(label.split("=", 1) for label in settings.worker_labels),
            settings.worker_service_accounts,
            self._access.account,
            worker.grace_seconds,
            worker.health_host if "health_host" in worker.model_fields_set else ANY_ADDRESS,
            settings.worker_fs_group,
            namespaces,
        )
        self.pools = pools = Pools(
            self.kube,
            self._service,
            self._queues,
            defaults,
            settings.scale_seconds,
            namespace=self.namespace,
            settings_seconds=settings.compare_seconds,
        )
        schedules = Schedules(self.kube, self._service, self._registry, self._queues, installation, namespaces)
        handlers: dict[Kind, Heard] = {JOBS: jobs.on_event, POOLS: pools.on_event, SCHEDULES: schedules.on_event}
        kinds = {kind: claims.gate(kind, heard) for kind, heard in handlers.items()}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(claims.run(), name="claims")
                group.create_task(pools.run(), name="pools")
                group.create_task(schedules.run(), name="schedules")
                group.create_task(self._watch(kinds, {JOBS: comparison.relist}), name="watch")
                group.create_task(jobs.run(), name="jobs")
                group.create_task(comparison.run(), name="compare")
        finally:
            self.comparison = None
            pools.hide()
            claims.hide()
            metrics.OPERATOR_BACKLOG.forget()
            metrics.OPERATOR_RESOURCES.forget()

    async def _installation(self) -> str:
        """The id of this installation: the uid of the namespace in which it runs, whatever the release is called."""
        while True:
            try:
                found = await self.kube.request("GET", NAMESPACES.path(name=self.own_namespace))
                return str(found["metadata"]["uid"])
            except KubeUnavailable as error:
                log.warning("id of this installation not read", error=str(error))
            except KubeError as error:
                log.error("id of this installation not read", namespace=self.own_namespace, error=str(error))
            await asyncio.sleep(1.0)

    async def _watch(self, kinds: Mapping[Kind, Heard], listed: Mapping[Kind, Listed]) -> None:
        """Watch as soon as all kinds are served: what is not there when kopf begins, it never sees."""
        missing = {kind.plural for kind in kinds}
        while missing:
            try:
                served = await self.kube.request("GET", f"/apis/{API_VERSION}")
                missing -= {item["name"] for item in served["resources"]}
            except (KubeError, KubeUnavailable) as error:
                log.debug("kinds not read", error=str(error))
            if missing:
                log.warning("waiting for definitions", missing=sorted(missing))
                await asyncio.sleep(1.0)
        await watch(self._access, self.namespace, kinds, listed)

    # --- probes: read in another thread ------------------------------------------------------------------------------

    def unwell(self) -> dict[str, str]:
        """What a restart would mend."""
        now = time.monotonic()
        wrong: dict[str, str] = {}
        if now - self._turned_at > SILENT_AFTER:
            wrong["loop"] = "blocked"
        comparison = self.comparison
        if comparison is not None and comparison.deaf_since is not None and now - comparison.deaf_since > DEAF_AFTER:
            wrong["watch"] = "misses resources"
        return wrong

    def unready(self) -> dict[str, str]:
        """Why it cannot work for now."""
        wrong = self.unwell()
        if time.monotonic() - self.lease.asked_at > SILENT_AFTER:
            wrong["kubernetes"] = "does not answer"
        return wrong
