"""Why a worker pool is as large as it is."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from goqueue import metrics
from grafana import panels
from grafana.panels import JOBS, JOBS_A_SECOND, PLAIN, PODS, SECONDS, SHARE, graph
from grafana.queries import latest, of, phases_of, quantiles, rate, total

POOL = 'pool=~"$pool"'
QUEUE = 'queue=~"$queue"'


def autoscaling() -> Dashboard:
    """What comes in, what the operator decides, and what follows from it."""
    arrivals = latest(metrics.POOL_ARRIVALS, "pool", POOL)
    pace = latest(metrics.POOL_PACE, "pool", POOL)
    load = [
        graph(
            "Depth",
            "Jobs that could run and wait.",
            JOBS,
            (latest(metrics.DEPTH, "queue", QUEUE), "{{queue}}"),
            stacked=True,
        ),
        graph(
            "Oldest waiting job",
            "For how long the first job of each queue could have run; a pool's `scaling.targetWaitSeconds` is the aim.",
            SECONDS,
            (latest(metrics.OLDEST, "queue", QUEUE), "{{queue}}"),
        ),
        graph(
            "Arrivals and capacity",
            "Jobs a second that arrive in a pool's queues, and that its ready pods could finish.",
            JOBS_A_SECOND,
            (arrivals, "{{pool}}: arriving"),
            (f"{latest(metrics.POOL_READY, 'pool', POOL)} * {pace}", "{{pool}}: capacity"),
        ),
        graph(
            "Pace of one pod",
            "Jobs a second that one pod finishes with all slots busy, learnt from its last five minutes. Empty until "
            "a first job has ended; until then `scaling.jobsPerReplica` stands in for it.",
            JOBS_A_SECOND,
            (pace, "{{pool}}"),
        ),
    ]
    decisions = [
        graph(
            "Pods: desired, actual, ready, draining",
            "What the operator decided, what the Deployment has, what takes jobs, what fetches no more and is removed "
            "when its jobs have ended, and the most that are allowed.",
            PODS,
            (latest(metrics.POOL_DESIRED, "pool", POOL), "{{pool}}: desired"),
            (latest(metrics.POOL_REPLICAS, "pool", POOL), "{{pool}}: actual"),
            (latest(metrics.POOL_READY, "pool", POOL), "{{pool}}: ready"),
            (latest(metrics.POOL_DRAINING, "pool", POOL), "{{pool}}: draining"),
            (latest(metrics.POOL_MOST, "pool", POOL), "{{pool}}: most"),
            width=24,
            steps=True,
        ).override_by_regexp(*panels.dashed(".*: most", "red")),
        panels.phases(
            "Reason of each decision",
            "idle: nothing to do. load: as the formula says. minimum, maximum: held by minReplicas or maxReplicas. "
            "window: more was needed within scaleDownWindowSeconds. limit: scaleUpPods or scaleDownPods. pinned: "
            "spec.replicas. unknown: what waits is not known, nothing changes. refused: the Deployment is not allowed.",
            (phases_of(metrics.POOL_DECISION, "pool, cause", POOL), "{{pool}}: {{cause}}"),
            "the reason",
        ),
        graph(
            "Changes",
            "How often the number of desired pods changed in the last ten minutes; much more than a few is flapping.",
            PLAIN,
            (f"max by (pool) (changes({of(metrics.POOL_DESIRED, POOL)}[10m]))", "{{pool}}"),
            steps=True,
        ),
        graph(
            "Time from ready to claimed",
            "How long jobs waited before a worker took them: what scaling is there to bound.",
            SECONDS,
            *quantiles(metrics.WAIT_SECONDS, "queue", QUEUE, shares=(0.5, 0.95)),
        ),
    ]
    slots = [
        graph(
            "Slots",
            "Jobs that all workers can run at the same time, those they run, those claimed for slots soon free, those "
            "that wait for a thread, those in processes of their own, and handlers that go on although their attempts "
            "are over.",
            PLAIN,
            (total(metrics.SLOTS, ""), "slots"),
            (total(metrics.SLOTS_BUSY, ""), "busy"),
            (total(metrics.HELD, ""), "held"),
            (total(metrics.THREADS_AWAITED, ""), "awaiting a thread"),
            (total(metrics.ISOLATED_BUSY, ""), "isolated"),
            (total(metrics.ABANDONED, ""), "abandoned handlers"),
        ),
        graph(
            "Busy slots",
            "Share of the slots that run a job; near 100 % while jobs wait.",
            SHARE,
            (f"{total(metrics.SLOTS_BUSY, '')} / {total(metrics.SLOTS, '')}", "busy"),
        ),
        graph(
            "Draining workers",
            "Workers that fetch no more jobs because their pod is not needed.",
            PLAIN,
            (total(metrics.DRAINING, ""), "draining"),
            steps=True,
        ),
        graph(
            "Workers of each queue",
            "Active workers that fetch from a queue. A queue with jobs and no worker waits for its pool.",
            PLAIN,
            (latest(metrics.QUEUE_WORKERS, "queue", QUEUE), "{{queue}}"),
            steps=True,
        ),
        graph(
            "Jobs done",
            "Attempts that ended well, by queue.",
            JOBS_A_SECOND,
            (rate(metrics.ATTEMPTS, "queue", QUEUE, 'outcome="completed"'), "{{queue}}"),
        ),
    ]
    return panels.board(
        "autoscaling",
        "Autoscaling",
        "What comes in, what the operator decides and why, and what follows from it.",
        [("What there is to do", load), ("What is decided", decisions), ("What is done", slots)],
        [
            panels.choice("pool", "Pool", metrics.POOL_DESIRED, "pool"),
            panels.choice("queue", "Queue", metrics.DEPTH, "queue"),
        ],
    )
