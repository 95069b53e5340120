"""The operator: does it reconcile, how fast, and what waits?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from goqueue import metrics
from grafana import panels
from grafana.panels import GREEN, JOBS_A_SECOND, ORANGE, PLAIN, PODS, RED, SECONDS, graph, number
from grafana.queries import OPERATOR, grown, latest, of, phases_of, quantile, rate

REFUSED = 'cause="refused"'


def operator() -> Dashboard:
    """Resources of Kubernetes and what becomes of them."""
    now = [
        number(
            "Operator",
            "Whether an operator leads. Without one resources are not accepted and pools keep their size.",
            "none",
            (f"max({of(metrics.LEADING, OPERATOR)})", "leads"),
            width=4,
            limits=((None, RED), (1, GREEN)),
            words={"0": "none leads", "1": "leads"},
        ),
        number(
            "Backlog",
            "Resources that wait to be accepted, cancelled or written.",
            PLAIN,
            (f"sum({latest(metrics.OPERATOR_BACKLOG, 'work')})", "waiting"),
            width=5,
            limits=((None, GREEN), (100, ORANGE), (1000, RED)),
        ),
        number(
            "Pools",
            "Worker pools that the operator scales.",
            PLAIN,
            (f"count({latest(metrics.POOL_DESIRED, 'pool_namespace, pool')}) or vector(0)", "pools"),
            width=5,
        ),
        number(
            "Refused pools",
            "Pools whose Deployment the operator or Kubernetes does not allow; the pool's status says why.",
            PLAIN,
            (
                f"sum({latest(metrics.POOL_DECISION, 'pool_namespace, pool', REFUSED)}) or vector(0)",
                "refused",
            ),
            width=5,
            limits=((None, GREEN), (1, RED)),
        ),
        number(
            "Unserved namespaces",
            "Namespaces whose resources are left alone, since another installation holds their claim.",
            PLAIN,
            (f"max({of(metrics.OPERATOR_UNSERVED, OPERATOR)}) or vector(0)", "unserved"),
            width=5,
            limits=((None, GREEN), (1, RED)),
        ),
    ]
    work = [
        graph(
            "Rounds",
            "Rounds a second by work: accept (resources to jobs), read (jobs to statuses), compare (everything), "
            "pools, schedules.",
            "suffix: rounds/s",
            (rate(metrics.OPERATOR_SECONDS, "work", suffix="_count"), "{{work}}"),
        ),
        graph(
            "Duration of a round, p95",
            "How long one round takes.",
            SECONDS,
            (quantile(0.95, metrics.OPERATOR_SECONDS, "work"), "{{work}}"),
        ),
        graph(
            "Backlog by work",
            "Resources that wait, by what for.",
            PLAIN,
            (latest(metrics.OPERATOR_BACKLOG, "work"), "{{work}}"),
            stacked=True,
        ),
        graph(
            "GoQueueJobs in memory",
            "GoQueueJobs that the operator keeps, by whether they have ended.",
            PLAIN,
            (latest(metrics.OPERATOR_RESOURCES, "state"), "{{state}}"),
            stacked=True,
        ),
        graph(
            "Statuses written",
            "Writes of GoQueueJob statuses to the Kubernetes API.",
            "suffix: writes/s",
            (rate(metrics.OPERATOR_WRITES, ""), "writes"),
        ),
        graph(
            "Jobs from resources and schedules",
            "Jobs made of GoQueueJobs, and jobs that schedules fired.",
            JOBS_A_SECOND,
            (rate(metrics.ENQUEUED, "", 'source="kubernetes"'), "from GoQueueJobs"),
            (rate(metrics.FIRED, ""), "fired by schedules"),
        ),
        graph(
            "Skipped times of schedules",
            "Times of GoQueueSchedules that made no job. active: an earlier job had not ended "
            "and concurrencyPolicy is Forbid. late: no job could be made within startingDeadlineSeconds.",
            PLAIN,
            (grown(metrics.SKIPPED, "reason"), "{{reason}}"),
        ),
        graph(
            "Events left out",
            "Warnings of GoQueueJobs that were not written as events, because too many failed in a short time.",
            PLAIN,
            (grown(metrics.EVENTS_LEFT_OUT, ""), "events"),
        ),
        graph(
            "Memory",
            "Memory of the operator's processes; it grows with the number of GoQueueJobs.",
            "bytes",
            (
                'process_resident_memory_bytes{namespace=~"$namespace"} '
                f"* on (instance, job) group_left () {of(metrics.BUILD, OPERATOR)}",
                "{{instance}}",
            ),
        ),
    ]
    pools = [
        graph(
            "Pods: desired and ready",
            "Of each worker pool.",
            PODS,
            (latest(metrics.POOL_DESIRED, "pool_namespace, pool"), "{{pool_namespace}}/{{pool}}: desired"),
            (latest(metrics.POOL_READY, "pool_namespace, pool"), "{{pool_namespace}}/{{pool}}: ready"),
            width=24,
            steps=True,
        ),
        panels.phases(
            "Reason of each decision",
            "Why each pool is as large as it is; the words are explained on the dashboard Autoscaling.",
            (
                phases_of(metrics.POOL_DECISION, "pool_namespace, pool, cause"),
                "{{pool_namespace}}/{{pool}}: {{cause}}",
            ),
            "the reason",
        ),
    ]
    return panels.board(
        "operator",
        "Operator",
        "Does the operator reconcile, how fast, and what waits?",
        [("Now", now), ("Work", work), ("Worker pools", pools)],
    )
