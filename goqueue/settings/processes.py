"""The engine, and the processes that move jobs and watch over them."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from goqueue.errors import SettingsError
from goqueue.job import QUEUE_NAME
from goqueue.settings.kinds import Group, Names, Seconds, each


class EngineSettings(Group):
    """What every GoQueue process must agree on."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_")

    queues: Names = Field(
        [],
        description="Queues beside the built-in ones (default, email, webhooks, payment) and those of the job types "
        "that GOQUEUE_JOBS registers.",
    )
    jobs: Names = Field([], description="Python modules that register your own job types.")
    lease_seconds: Seconds = Field(
        15.0, description="A worker silent for this long is dead and its jobs run elsewhere."
    )
    heartbeat_seconds: Seconds = Field(3.0, description="How often a worker says that it lives.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, else JSON."
    )

    @field_validator("queues")
    @classmethod
    def _queue_names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not QUEUE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a queue name (lower case letters, digits, '-', '_', '.')")
        return list(dict.fromkeys(value))

    @model_validator(mode="after")
    def _beats_fit_the_lease(self) -> Self:
        if self.lease_seconds < 3 * self.heartbeat_seconds:
            raise ValueError("GOQUEUE_LEASE_SECONDS must be at least 3 × GOQUEUE_HEARTBEAT_SECONDS")
        return self


class WorkerSettings(Group):
    """A worker process."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_WORKER_")

    queues: Names = Field([], description="Queues to serve, `name` or `name:weight`; empty: all, weight 1.")
    concurrency: int = Field(50, ge=1, le=10_000, description="Jobs that run at the same time.")
    threads: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Threads for handlers that are not async; 0: as many as GOQUEUE_WORKER_CONCURRENCY.",
    )
    isolated: int = Field(
        4,
        ge=0,
        le=1_000,
        description="Jobs that run in processes of their own at the same time at most: those that two workers or more "
        "died of, it seems. 0: they run like others.",
    )
    grace_seconds: Seconds = Field(25.0, description="After SIGTERM: time for running jobs to finish.")
    health_host: str = Field("127.0.0.1", description="Address of the probes and metrics.")
    health_port: int = Field(8081, ge=0, le=65535, description="Port of the probes and metrics; 0: any free one.")
    log_lines: int = Field(
        999,
        ge=0,
        le=1_000_000,
        description="Log lines of one attempt that are kept, beside one that counts the others.",
    )
    log_bytes: int = Field(
        1_048_576, ge=0, le=1_073_741_824, description="Bytes of one attempt's log lines that are kept."
    )
    defer_seconds: Seconds = Field(
        6 * 3600.0,
        description="How long a job whose type or payload this worker does not know waits for one that does; then it "
        "fails.",
    )
    retry_base_seconds: Seconds = Field(2.0, description="First retry delay of types that set none.")
    retry_max_seconds: Seconds = Field(3600.0, description="Longest retry delay of types that set none.")

    def weights(self, known: Collection[str]) -> dict[str, int]:
        """The queues to serve with their weights.

        Raises:
            SettingsError: a queue is unknown or a weight is not a whole number from 1 to 1000.
        """
        chosen: dict[str, int] = {}
        for item in self.queues or known:
            name, _, weight = item.partition(":")
            if name not in known:
                raise SettingsError(f"GOQUEUE_WORKER_QUEUES: unknown queue {name!r} (known: {', '.join(known)})")
            if weight and not (weight.isdecimal() and 1 <= int(weight) <= 1000):
                raise SettingsError(f"GOQUEUE_WORKER_QUEUES: weight of {name!r} must be 1 to 1000")
            chosen[name] = int(weight or 1)
        return chosen


class SchedulerSettings(Group):
    """The scheduler: dispatch, rescue, cron, retention."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_SCHEDULER_")

    reconcile_seconds: Seconds = Field(60.0, description="How often all open jobs are compared with Redis.")
    leader_seconds: Seconds = Field(6.0, description="A leader silent for this long is replaced.")
    keep_completed: Seconds = Field(7 * 86400.0, description="Age at which completed jobs are deleted.")
    keep_failed: Seconds = Field(30 * 86400.0, description="The same for failed and cancelled jobs.")
    keep_audit: Seconds = Field(365 * 86400.0, description="Age at which entries of the audit log are deleted.")
    cron_catch_up: Seconds = Field(
        3600.0, description="After an outage a missed tick still fires, once, if it is younger than this."
    )
    health_host: str = Field("127.0.0.1", description="Address of the probes and metrics.")
    health_port: int = Field(8082, ge=0, le=65535, description="Port of the probes and metrics; 0: any free one.")


class OperatorSettings(Group):
    """The operator: custom resources, worker pools, autoscaling."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_OPERATOR_")

    namespace: str = Field("", description="Namespace to serve and to keep the Lease in; empty: the pod's own.")
    cluster_wide: bool = Field(False, description="Serve all namespaces.")
    lease_name: str = Field("goqueue-operator", min_length=1, description="Lease by which one of the replicas leads.")
    image: str = Field("", description="Image of worker pools that name none.")
    worker_env_from: Annotated[
        Names, each(r"(configmap|secret)/[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "configmap/NAME or secret/NAME")
    ] = Field(
        [], description="`configmap/NAME` and `secret/NAME`: environment of all workers, in the pool's namespace."
    )
    worker_certificates: str = Field(
        "",
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$",
        description="Secret in the pool's namespace that all workers mount as /etc/goqueue/certificates.",
    )
    worker_fs_group: int = Field(
        10001,
        ge=0,
        description="Group that may read these files (`fsGroup`), where the pool sets none; 0: the cluster sets it.",
    )
    worker_labels: Annotated[
        Names, each(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*)=[A-Za-z0-9_.-]*", "KEY=VALUE")
    ] = Field([], description="`KEY=VALUE`: labels of worker pods whose pools do not set them.")
    worker_service_accounts: Names = Field(
        [],
        description="Service accounts that worker pools may name beside `default`; `*`: any but the operator's own.",
    )
    namespace_queues: Annotated[
        Names,
        each(
            r"(\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)/(\*|[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?)",
            "NAMESPACE/QUEUE, with * for all namespaces or all queues",
        ),
    ] = Field(
        [],
        description="`NAMESPACE/QUEUE`: the queues that GoQueueJobs, GoQueueSchedules and pools of a namespace may "
        "name; `*` stands for all. Empty: all may name all; else a namespace that is not here may name none.",
    )
    namespace_tenants: Annotated[
        Names,
        each(r"(\*|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)=[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?", "NAMESPACE=TENANT"),
    ] = Field(
        [],
        description="`NAMESPACE=TENANT`: whose the jobs of a namespace are, for REST keys; else the default tenant's.",
    )
    compare_seconds: Seconds = Field(
        60.0,
        description="How often all GoQueueJobs are compared with their rows and the settings of pools are read anew.",
    )
    status_seconds: Seconds = Field(0.5, description="How often changed rows are written back as status.")
    ended_ttl_seconds: int = Field(
        7 * 86400,
        ge=0,
        le=10 * 366 * 86400,
        description="Seconds after which an ended GoQueueJob without `ttlSecondsAfterFinished` is deleted; 0: never.",
    )
    ended_limit: int = Field(
        25_000,
        ge=0,
        description="Ended GoQueueJobs to keep at most, the newest ones; 0: any number.",
    )
    scale_seconds: Seconds = Field(2.0, description="How often pools are looked at where no arrival asks for it.")
    requests: int = Field(
        16, ge=1, le=256, description="Requests of one verb and kind to the Kubernetes API at the same time."
    )
    health_host: str = Field("127.0.0.1", description="Address of the probes and metrics.")
    health_port: int = Field(8083, ge=0, le=65535, description="Port of the probes and metrics; 0: any free one.")


class DevSettings(Group):
    """`goqueue dev`."""

    model_config = SettingsConfigDict(env_prefix="GOQUEUE_DEV_")

    dir: Path = Field(Path(".goqueue"), description="Folder that keeps the data, logs and mails.")
