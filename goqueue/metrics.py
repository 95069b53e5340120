"""All metrics there are. docs/metrics.md is made of these declarations.

Labels are bounded: queues and types that are not known become `other` (`goqueue.instruments`), everything else comes
from lists in the code, but for worker pools, of which there are as many as somebody made resources.
"""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry

from goqueue import instruments
from goqueue.instruments import ALL, Counter, Gauge, Histogram, Process

_SHORT: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG: Final = (*_SHORT, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


def begin(
    process: Process, queues: Iterable[str], types: Iterable[str], registry: CollectorRegistry = REGISTRY
) -> None:
    """Count in this process from now on. Once, when all job types are registered."""
    instruments.begin(process, queues, types, registry)
    BUILD.set(1, version("goqueue"), process)


# --- every process ---------------------------------------------------------------------------------------------------

BUILD: Final = Gauge(
    "goqueue_build_info", "Always 1; the labels say what runs.", ALL, ("version", "process"), mode="livemax"
)
POOL_SIZE: Final = Gauge("goqueue_database_pool_connections", "Connections to PostgreSQL that are open.", ALL)
POOL_FREE: Final = Gauge("goqueue_database_pool_free_connections", "Those of them that nobody uses.", ALL)
POOL_LIMIT: Final = Gauge("goqueue_database_pool_limit", "Connections that may be open.", ALL)
POOL_WAITING: Final = Gauge("goqueue_database_pool_waiting", "Callers that wait for a connection.", ALL)
REDIS_UP: Final = Gauge("goqueue_redis_up", "1: Redis answered the last command, 0: it did not.", ALL, mode="livemin")
TRACE_SPANS: Final = Counter(
    "goqueue_trace_spans_total",
    "Spans that were to be exported; `outcome`: exported, failed (the collector did not take them), dropped (the queue "
    "was full).",
    ALL,
    ("outcome",),
)

# --- jobs come in ----------------------------------------------------------------------------------------------------

ENQUEUED: Final = Counter(
    "goqueue_jobs_enqueued_total",
    "Jobs made by this process; `source`: api, schedule, kubernetes.",
    ("api", "scheduler", "operator"),
    ("queue", "type", "source"),
)
UNPUSHED: Final = Counter(
    "goqueue_jobs_unpushed_total",
    "Jobs accepted whose push to Redis failed; the scheduler pushes them.",
    ("api", "scheduler", "operator"),
)
CANCELLATIONS: Final = Counter(
    "goqueue_job_cancellations_total",
    "Jobs cancelled on request; `state`: waiting (ended at once) or running (its worker is asked to stop it).",
    ("api", "scheduler", "operator"),
    ("state",),
)
RETRIED_BY_HAND: Final = Counter(
    "goqueue_job_manual_retries_total", "Failed or cancelled jobs that were given a fresh set of attempts.", ("api",)
)

# --- API -------------------------------------------------------------------------------------------------------------

HTTP_REQUESTS: Final = Counter(
    "goqueue_http_requests_total",
    "Requests answered, by template of the route (`other`: no such route) and class of the status (`2xx`).",
    ("api",),
    ("route", "method", "status"),
)
HTTP_SECONDS: Final = Histogram(
    "goqueue_http_request_duration_seconds",
    "From the request's head to the end of the answer.",
    ("api",),
    ("route", "method"),
    unit="seconds",
    buckets=_SHORT,
)

HTTP_REFUSED: Final = Counter(
    "goqueue_http_requests_refused_total",
    "Requests refused for what their caller is or does; `reason`: rate (of the caller), address_rate, quota (of its "
    "tenant), unauthorized, forbidden.",
    ("api",),
    ("reason",),
)
UNSHARED: Final = Counter(
    "goqueue_rate_limit_unshared_total",
    "Times that an API process went on by itself because Redis did not count the requests of a caller.",
    ("api",),
)
HTTP_CUT: Final = Counter(
    "goqueue_http_connections_refused_total",
    "Connections ended by the server; `reason`: connections (too many), head (not HTTP), large_head, slow_head, "
    "slow_body, slow_reader, silent.",
    ("api",),
    ("reason",),
)

# --- worker ----------------------------------------------------------------------------------------------------------

ATTEMPTS: Final = Counter(
    "goqueue_attempts_total",
    "Attempts ended; `outcome`: completed, retried, failed, cancelled, snoozed, handed_back, deferred (this "
    "worker could not run the job, another may).",
    ("worker",),
    ("queue", "type", "outcome"),
    outside=True,
)
ATTEMPT_SECONDS: Final = Histogram(
    "goqueue_attempt_duration_seconds",
    "How long attempts ran.",
    ("worker",),
    ("queue", "type"),
    unit="seconds",
    buckets=_LONG,
    outside=True,
)
WAIT_SECONDS: Final = Histogram(
    "goqueue_queue_wait_seconds",
    "From the time at which a job could run to its claim by a worker.",
    ("worker",),
    ("queue",),
    unit="seconds",
    buckets=_LONG,
    outside=True,
)
SLOTS: Final = Gauge("goqueue_worker_slots", "Jobs that the worker runs at the same time at most.", ("worker",))
SLOTS_BUSY: Final = Gauge("goqueue_worker_slots_busy", "Jobs that it runs.", ("worker",))
THREADS_AWAITED: Final = Gauge(
    "goqueue_worker_jobs_awaiting_thread",
    "Jobs that have a slot and wait for a thread, since their handlers are not async.",
    ("worker",),
)
ABANDONED: Final = Gauge(
    "goqueue_worker_abandoned_handlers",
    "Handlers that go on although their attempts are over: they did not stop when they were told to.",
    ("worker",),
)
ISOLATED_BUSY: Final = Gauge(
    "goqueue_worker_isolated_jobs",
    "Jobs that run in processes of their own, since two workers or more died that ran them.",
    ("worker",),
)
ISOLATED: Final = Counter(
    "goqueue_worker_isolated_attempts_total",
    "Attempts in processes of their own; `result`: ended, or died (the process ended before it could tell an end).",
    ("worker",),
    ("result",),
)
HELD: Final = Gauge("goqueue_worker_held_jobs", "Jobs claimed for slots about to be free.", ("worker",))
UNWRITTEN: Final = Gauge("goqueue_worker_unwritten_ends", "Ended attempts not yet in PostgreSQL.", ("worker",))
STALE: Final = Counter(
    "goqueue_worker_lost_leases_total", "Ends not written: the job had been given to somebody else.", ("worker",)
)
DEAF: Final = Gauge(
    "goqueue_worker_deaf",
    "1: the worker's fetches do not come back although Redis answers; its liveness probe fails.",
    ("worker",),
)
DRAINING: Final = Gauge(
    "goqueue_worker_draining",
    "1: the operator asked the worker to fetch no more jobs, since its pod is to be removed.",
    ("worker",),
)
HEARTBEATS: Final = Counter(
    "goqueue_worker_heartbeats_total",
    "Heartbeats of the worker; `result`: written, or missed (PostgreSQL did not take it).",
    ("worker",),
    ("result",),
)
HEARTBEAT_AGE: Final = Gauge(
    "goqueue_worker_heartbeat_age_seconds",
    "Since the last heartbeat that was written; NaN before the first.",
    ("worker",),
    unit="seconds",
)

# --- scheduler -------------------------------------------------------------------------------------------------------

LEADING: Final = Gauge(
    "goqueue_leader",
    "1: this process leads the others of its kind. Gauges of queues and worker pools come from the leader alone.",
    ("scheduler", "operator"),
    ("process",),
)
DEPTH: Final = Gauge(
    "goqueue_queue_depth",
    "Jobs that could run and wait, those beyond the window in Redis included.",
    ("scheduler",),
    ("queue",),
)
OLDEST: Final = Gauge(
    "goqueue_queue_oldest_age_seconds",
    "For how long the longest-waiting of them could have run, of any priority; 0: none waits.",
    ("scheduler",),
    ("queue",),
    unit="seconds",
)
IN_FLIGHT: Final = Gauge("goqueue_queue_in_flight", "Jobs being processed.", ("scheduler",), ("queue",))
SCHEDULED: Final = Gauge(
    "goqueue_queue_scheduled", "Jobs whose time has not come, retries included.", ("scheduler",), ("queue",)
)
FAILED: Final = Gauge("goqueue_queue_failed", "Failed jobs (dead letters) that are kept.", ("scheduler",), ("queue",))
PAUSED: Final = Gauge("goqueue_queue_paused", "1: no worker fetches from it.", ("scheduler",), ("queue",))
QUEUE_WORKERS: Final = Gauge("goqueue_queue_workers", "Active workers that fetch from it.", ("scheduler",), ("queue",))
WORKERS: Final = Gauge(
    "goqueue_workers",
    "Registered workers; `state`: active, or draining (they take no more jobs).",
    ("scheduler",),
    ("state",),
)
DISPATCHED: Final = Counter(
    "goqueue_dispatched_jobs_total",
    "Jobs that the leader added to Redis; `sweep`: due (their time came), stray (their enqueuer did not push them), "
    "reconcile.",
    ("scheduler",),
    ("sweep",),
)
RECONCILE_SECONDS: Final = Histogram(
    "goqueue_dispatch_reconcile_duration_seconds",
    "How long it took to compare all open jobs with Redis, a chunk at a time beside the other duties.",
    ("scheduler",),
    unit="seconds",
    buckets=_LONG,
)
REDIS_LOSSES: Final = Counter(
    "goqueue_redis_losses_total", "Times that Redis had lost its contents and got them anew.", ("scheduler",)
)
BURIED: Final = Counter("goqueue_workers_buried_total", "Workers declared dead.", ("scheduler",))
RESCUED: Final = Counter(
    "goqueue_jobs_rescued_total",
    "Jobs taken from dead workers; `fate`: again (without charge), charged (an attempt, from the third death on), or "
    "ended (no attempt left, or cancelled).",
    ("scheduler",),
    ("fate",),
)
SUSPECTS: Final = Counter(
    "goqueue_jobs_suspected_total",
    "Jobs that a second worker died of, or beside; they run in a process of their own from then on.",
    ("scheduler",),
)
FIRED: Final = Counter("goqueue_schedules_fired_total", "Jobs made by schedules.", ("scheduler", "operator"))
SKIPPED: Final = Counter(
    "goqueue_schedules_skipped_total",
    "Times of GoQueueSchedules that made no job; `reason`: active (Forbid, an earlier job had not ended), late (none "
    "could be made within startingDeadlineSeconds).",
    ("operator",),
    ("reason",),
)
PRUNED: Final = Counter("goqueue_jobs_pruned_total", "Final jobs deleted for their age.", ("scheduler",))
UNDELETED: Final = Counter(
    "goqueue_retention_refused_total",
    "Rows past their age that PostgreSQL refused to delete, at each try; `table`: jobs, audit_log, payment_declines, "
    "idempotency_keys.",
    ("scheduler",),
    ("table",),
)
DUTY_FAILING: Final = Gauge(
    "goqueue_scheduler_duty_failing",
    "1: the last tick of this duty of the leader failed, and is repeated; `duty`: dispatch, reconcile, refill, beyond, "
    "watch, rescue, cron, retention, census, counts.",
    ("scheduler",),
    ("duty",),
)
DUTY_FAILURES: Final = Counter(
    "goqueue_scheduler_duty_failures_total",
    "Ticks that failed for another reason than an unavailable store.",
    ("scheduler",),
    ("duty",),
)

# --- operator --------------------------------------------------------------------------------------------------------

OPERATOR_SECONDS: Final = Histogram(
    "goqueue_operator_reconcile_duration_seconds",
    "How long one round took; `work`: accept, read (rows to status), compare, pools, schedules.",
    ("operator",),
    ("work",),
    unit="seconds",
    buckets=_LONG,
)
OPERATOR_BACKLOG: Final = Gauge(
    "goqueue_operator_backlog", "Resources that wait; `work`: accept, cancel, write.", ("operator",), ("work",)
)
OPERATOR_RESOURCES: Final = Gauge(
    "goqueue_operator_resources",
    "GoQueueJobs that the operator keeps in memory; `state`: open, ended.",
    ("operator",),
    ("state",),
)
OPERATOR_WRITES: Final = Counter(
    "goqueue_operator_status_writes_total", "Statuses of GoQueueJobs written.", ("operator",)
)
EVENTS_LEFT_OUT: Final = Counter(
    "goqueue_operator_events_left_out_total",
    "Warnings of GoQueueJobs that were not written as events, because too many failed in a short time.",
    ("operator",),
)
OPERATOR_UNSERVED: Final = Gauge(
    "goqueue_operator_unserved_namespaces",
    "Namespaces whose GoQueue resources are left alone: another installation holds the claim, or it cannot be read.",
    ("operator",),
)
POOL_DESIRED: Final = Gauge(
    "goqueue_pool_desired_replicas", "Pods that a worker pool shall have.", ("operator",), ("pool_namespace", "pool")
)
POOL_REPLICAS: Final = Gauge(
    "goqueue_pool_replicas", "Pods that its Deployment has.", ("operator",), ("pool_namespace", "pool")
)
POOL_READY: Final = Gauge(
    "goqueue_pool_ready_replicas", "Those of them that take jobs.", ("operator",), ("pool_namespace", "pool")
)
POOL_DRAINING: Final = Gauge(
    "goqueue_pool_draining_replicas",
    "Those of its pods that fetch no more jobs and are removed when what they run has ended.",
    ("operator",),
    ("pool_namespace", "pool"),
)
POOL_MOST: Final = Gauge(
    "goqueue_pool_max_replicas", "Pods that it may have.", ("operator",), ("pool_namespace", "pool")
)
POOL_ARRIVALS: Final = Gauge(
    "goqueue_pool_arrival_rate",
    "Jobs a second that arrive in its queues, as the autoscaler sees it.",
    ("operator",),
    ("pool_namespace", "pool"),
)
POOL_PACE: Final = Gauge(
    "goqueue_pool_service_rate",
    "Jobs a second that one of its pods finishes with all slots busy; NaN: not known yet.",
    ("operator",),
    ("pool_namespace", "pool"),
)
POOL_DECISION: Final = Gauge(
    "goqueue_pool_decision",
    "1 for the cause of the last decision: idle, load, minimum, maximum, window, limit, pinned, unknown, refused.",
    ("operator",),
    ("pool_namespace", "pool", "cause"),
)
