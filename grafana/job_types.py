"""What each job type does: how often, how long, how well."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from goqueue import metrics
from grafana import panels
from grafana.panels import JOBS_A_SECOND, SECONDS, SHARE, graph, spread
from grafana.queries import quantiles, rate, ratio

CHOSEN = ('queue=~"$queue"', 'type=~"$type"')


def job_types() -> Dashboard:
    """All job types, or those chosen."""
    ended = rate(metrics.ATTEMPTS, "type", *CHOSEN)
    flow = [
        graph(
            "Enqueued",
            "Jobs made, by type and where they came from. Those that a program enqueues by the library are counted "
            "only when they are claimed.",
            JOBS_A_SECOND,
            (rate(metrics.ENQUEUED, "type, source", *CHOSEN), "{{type}} ({{source}})"),
            stacked=True,
        ),
        graph(
            "Completed",
            "Attempts that ended well.",
            JOBS_A_SECOND,
            (rate(metrics.ATTEMPTS, "type", *CHOSEN, 'outcome="completed"'), "{{type}}"),
            stacked=True,
        ),
        graph(
            "Attempts by outcome",
            "How attempts ended. snoozed: asked to run later, no attempt charged; handed_back: their worker ended; "
            "deferred: their worker could not run them, another may.",
            JOBS_A_SECOND,
            (rate(metrics.ATTEMPTS, "type, outcome", *CHOSEN, 'outcome!="completed"'), "{{type}} {{outcome}}"),
        ),
        graph(
            "Share of attempts that do not end well",
            "Failed and retried attempts among all. One type alone: its handler or what it calls; all types: look at "
            "the overview.",
            SHARE,
            (
                ratio(rate(metrics.ATTEMPTS, "type", *CHOSEN, 'outcome=~"failed|retried"'), ended),
                "{{type}}",
            ),
        ),
    ]
    time = [
        graph(
            "Duration",
            "How long attempts ran.",
            SECONDS,
            *quantiles(metrics.ATTEMPT_SECONDS, "type", *CHOSEN),
        ),
        spread("Duration, all chosen types", "How attempts spread over durations.", metrics.ATTEMPT_SECONDS, *CHOSEN),
        graph(
            "Time spent",
            "Seconds of attempts in a second: the slots that each type keeps busy on average.",
            "suffix: slots",
            (rate(metrics.ATTEMPT_SECONDS, "type", *CHOSEN, suffix="_sum"), "{{type}}"),
            stacked=True,
        ),
        spread(
            "Time from ready to claimed",
            "How long jobs of the chosen queues waited for a worker.",
            metrics.WAIT_SECONDS,
            CHOSEN[0],
        ),
    ]
    return panels.board(
        "job-types",
        "Job types",
        "How often each job type runs, how long and how well.",
        [("How often, how well", flow), ("How long", time)],
        [
            panels.choice("queue", "Queue", metrics.ATTEMPTS, "queue"),
            panels.choice("type", "Job type", metrics.ATTEMPTS, "type"),
        ],
    )
