"""Is GoQueue healthy, how long do jobs wait, and what fails?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from goqueue import metrics
from grafana import panels
from grafana.panels import GREEN, JOBS, JOBS_A_SECOND, ORANGE, PLAIN, RED, SECONDS, SHARE, graph, number
from grafana.queries import SCHEDULER, grown, latest, of, phases_of, quantile, quantiles, rate, ratio


def overview() -> Dashboard:
    """The first dashboard to open."""
    errors = rate(metrics.HTTP_REQUESTS, "", 'status="5xx"')
    healthy = [
        number(
            "Scheduler",
            "Whether a scheduler leads. Without one nothing is dispatched, rescued or fired by a schedule.",
            "none",
            (f"max({of(metrics.LEADING, SCHEDULER)})", "leads"),
            limits=((None, RED), (1, GREEN)),
            words={"0": "none leads", "1": "leads"},
        ),
        number(
            "Redis",
            "Whether Redis answered the last command of every process.",
            "none",
            (f"min({of(metrics.REDIS_UP)})", "Redis"),
            limits=((None, RED), (1, GREEN)),
            words={"0": "away", "1": "answers"},
        ),
        number(
            "Workers",
            "Registered workers that take jobs.",
            PLAIN,
            (latest(metrics.WORKERS, "state", 'state="active"'), "active"),
            limits=((None, ORANGE), (1, GREEN)),
        ),
        number(
            "Longest wait",
            "For how long the oldest of all waiting jobs could have run.",
            SECONDS,
            (f"max({of(metrics.OLDEST)})", "oldest"),
            limits=((None, GREEN), (60, ORANGE), (300, RED)),
        ),
        number(
            "Dead letters",
            "Failed jobs that are kept. `goqueue jobs list --status failed` names them.",
            JOBS,
            (f"sum({latest(metrics.FAILED, 'queue')})", "failed"),
            limits=((None, GREEN), (1, ORANGE)),
        ),
        number(
            "API errors",
            "Share of the API's answers that are 5xx.",
            SHARE,
            (ratio(errors, rate(metrics.HTTP_REQUESTS, "")), "5xx"),
            limits=((None, GREEN), (0.001, ORANGE), (0.01, RED)),
        ),
        graph(
            "Processes",
            "Processes that are scraped, by kind and version: a rollout shows as one version taking over.",
            PLAIN,
            (f"count by (process, version) ({of(metrics.BUILD)})", "{{process}} {{version}}"),
            width=8,
            steps=True,
        ),
        graph(
            "Database connections in use",
            "Connections to PostgreSQL that are busy, as a share of those that may be open; callers wait at 100 %.",
            SHARE,
            (
                f"max by (process) ((({of(metrics.POOL_SIZE)} - {of(metrics.POOL_FREE)}) / {of(metrics.POOL_LIMIT)}) "
                f"* on (instance, job) group_left (process) {of(metrics.BUILD)})",
                "{{process}}, busiest",
            ),
            width=8,
        ),
        graph(
            "Waiting for a connection",
            "Callers that wait for a connection to PostgreSQL. For minutes: DB_MAX_OPEN_CONNS is too small.",
            PLAIN,
            (f"sum({of(metrics.POOL_WAITING)})", "callers"),
            width=8,
        ),
    ]
    waits = [
        graph(
            "Depth",
            "Jobs that could run and wait, by queue.",
            JOBS,
            (latest(metrics.DEPTH, "queue"), "{{queue}}"),
            stacked=True,
        ),
        graph(
            "Oldest waiting job",
            "For how long the first job of each queue could have run.",
            SECONDS,
            (latest(metrics.OLDEST, "queue"), "{{queue}}"),
        ),
        graph(
            "Time from ready to claimed",
            "How long jobs waited before a worker took them, over all queues.",
            SECONDS,
            *quantiles(metrics.WAIT_SECONDS, ""),
        ),
        graph(
            "Running and scheduled",
            "Jobs that workers hold, and jobs whose time has not come (retries included).",
            JOBS,
            (f"sum({latest(metrics.IN_FLIGHT, 'queue')})", "running"),
            (f"sum({latest(metrics.SCHEDULED, 'queue')})", "scheduled"),
        ),
    ]
    fails = [
        graph(
            "Attempts by outcome",
            "How attempts ended. Retried ones run again; failed ones are dead letters.",
            JOBS_A_SECOND,
            (rate(metrics.ATTEMPTS, "outcome"), "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Failures by job type",
            "Attempts that failed for good or are to be retried, by job type.",
            JOBS_A_SECOND,
            (rate(metrics.ATTEMPTS, "type", 'outcome=~"failed|retried"'), "{{type}}"),
        ),
        graph(
            "Dead letters by queue",
            "Failed jobs that are kept.",
            JOBS,
            (latest(metrics.FAILED, "queue"), "{{queue}}"),
            stacked=True,
        ),
        graph(
            "Repairs",
            "What the scheduler had to repair: jobs pushed that their enqueuer did not push (stray), workers declared "
            "dead, jobs taken from them, suspects among these, times that Redis had lost its contents.",
            PLAIN,
            (grown(metrics.DISPATCHED, "", 'sweep="stray"'), "strays pushed"),
            (grown(metrics.BURIED, ""), "workers dead"),
            (grown(metrics.RESCUED, "fate"), "rescued: {{fate}}"),
            (grown(metrics.SUSPECTS, ""), "suspects"),
            (grown(metrics.ISOLATED, "result"), "suspects run: {{result}}"),
            (grown(metrics.REDIS_LOSSES, ""), "Redis losses"),
        ),
        graph(
            "Duties that fail",
            "1 while the last tick of a duty of the scheduler failed; ticks that failed for another reason than an "
            "unavailable store; rows that retention could not delete.",
            PLAIN,
            (latest(metrics.DUTY_FAILING, "duty"), "{{duty}} fails"),
            (grown(metrics.DUTY_FAILURES, "duty"), "{{duty}}, failed ticks"),
            (grown(metrics.UNDELETED, "table"), "{{table}}, rows not deleted"),
        ),
        graph(
            "Workers, and deaf ones",
            "Registered workers, and those whose fetches do not come back although Redis answers (deaf).",
            PLAIN,
            (latest(metrics.WORKERS, "state"), "{{state}}"),
            (f"sum({of(metrics.DEAF)})", "deaf"),
        ),
        graph(
            "Heartbeats",
            "Heartbeats that PostgreSQL took and did not take, and the age of the oldest one. A worker without one for "
            "0.7 of a lease stops its jobs.",
            PLAIN,
            (rate(metrics.HEARTBEATS, "result"), "{{result}}, per second"),
            (f"max({of(metrics.HEARTBEAT_AGE)})", "oldest, in seconds"),
        ),
        graph(
            "Ends not yet written",
            "Ended attempts that wait for PostgreSQL, and ends that came too late: the job had been given to another.",
            JOBS,
            (f"sum({of(metrics.UNWRITTEN)})", "not yet written"),
            (grown(metrics.STALE, ""), "lease lost"),
        ),
        graph(
            "Reconciliation, p95",
            "How long the scheduler took to compare all open jobs with Redis and the workers, once a minute.",
            SECONDS,
            (quantile(0.95, metrics.RECONCILE_SECONDS, ""), "p95"),
        ),
        graph(
            "Paused queues",
            "1 while no worker fetches from a queue because somebody paused it: `goqueue queues resume` ends that.",
            PLAIN,
            (phases_of(metrics.PAUSED, "queue"), "{{queue}}"),
            steps=True,
        ),
        graph(
            "Duties of the scheduler",
            "Jobs that were pushed as their time came, fired by schedules, and deleted for their age.",
            JOBS_A_SECOND,
            (rate(metrics.DISPATCHED, "", 'sweep="due"'), "due"),
            (rate(metrics.FIRED, ""), "fired"),
            (rate(metrics.PRUNED, ""), "pruned"),
        ),
        graph(
            "Spans of traces",
            "Spans exported to the collector, refused by it (failed), and dropped because the queue was full.",
            PLAIN,
            (rate(metrics.TRACE_SPANS, "outcome"), "{{outcome}}, per second"),
        ),
    ]
    return panels.board(
        "overview",
        "Overview",
        "Is it healthy, how long do jobs wait, and what fails?",
        [("Is it healthy?", healthy), ("How long do jobs wait?", waits), ("What fails?", fails)],
    )
