"""The REST API: requests, errors, latency, and what its stores make it wait for."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from goqueue import metrics
from grafana import panels
from grafana.panels import (
    GREEN,
    JOBS,
    JOBS_A_SECOND,
    ORANGE,
    PLAIN,
    RED,
    REQUESTS_A_SECOND,
    SECONDS,
    SHARE,
    graph,
    number,
    spread,
)
from grafana.queries import API, grown, of, quantile, quantiles, rate, ratio

ROUTE = 'route=~"$route"'


def api() -> Dashboard:
    """All routes, or those chosen; by template, never by path."""
    errors = rate(metrics.HTTP_REQUESTS, "", ROUTE, 'status="5xx"')
    requests = rate(metrics.HTTP_REQUESTS, "", ROUTE)
    on_api = f"* on (instance, job) group_left () {of(metrics.BUILD, API)}"
    now = [
        number("Requests", "Requests answered a second.", REQUESTS_A_SECOND, (requests, "requests"), width=6),
        number(
            "Errors",
            "Share of answers that are 5xx.",
            SHARE,
            (ratio(errors, requests), "5xx"),
            width=6,
            limits=((None, GREEN), (0.001, ORANGE), (0.01, RED)),
        ),
        number(
            "Latency, p99",
            "Below it are 99 of 100 requests.",
            SECONDS,
            (quantile(0.99, metrics.HTTP_SECONDS, "", ROUTE), "p99"),
            width=6,
            limits=((None, GREEN), (0.25, ORANGE), (1, RED)),
        ),
        number(
            "Pods",
            "API pods that are scraped.",
            PLAIN,
            (f"count({of(metrics.BUILD, API)})", "pods"),
            width=6,
            limits=((None, RED), (1, GREEN)),
        ),
    ]
    traffic = [
        graph(
            "Requests by route",
            "Requests a second by template of the route and method; `other` is no route of ours.",
            REQUESTS_A_SECOND,
            (rate(metrics.HTTP_REQUESTS, "route, method", ROUTE), "{{method}} {{route}}"),
            stacked=True,
        ),
        graph(
            "Answers by status",
            "4xx are the callers' mistakes, 5xx ours: they burn the error budget.",
            REQUESTS_A_SECOND,
            (rate(metrics.HTTP_REQUESTS, "status", ROUTE), "{{status}}"),
            stacked=True,
        ),
        graph(
            "Share of 5xx by route",
            "Where errors come from.",
            SHARE,
            (
                ratio(
                    rate(metrics.HTTP_REQUESTS, "route", ROUTE, 'status="5xx"'),
                    rate(metrics.HTTP_REQUESTS, "route", ROUTE),
                ),
                "{{route}}",
            ),
        ),
        graph(
            "Latency",
            "From the request's head to the end of the answer, over all chosen routes.",
            SECONDS,
            *quantiles(metrics.HTTP_SECONDS, "", ROUTE),
        ),
        graph(
            "Latency by route, p95",
            "Which routes are slow.",
            SECONDS,
            (quantile(0.95, metrics.HTTP_SECONDS, "route, method", ROUTE), "{{method}} {{route}}"),
        ),
        spread("Latency, all of it", "How requests spread over latencies.", metrics.HTTP_SECONDS, ROUTE),
    ]
    behind = [
        graph(
            "Jobs made by the API",
            "By queue.",
            JOBS_A_SECOND,
            (rate(metrics.ENQUEUED, "queue", 'source="api"'), "{{queue}}"),
            stacked=True,
        ),
        graph(
            "Cancelled, and retried by hand",
            "What people and programs asked for.",
            JOBS,
            (grown(metrics.CANCELLATIONS, "state"), "cancelled while {{state}}"),
            (grown(metrics.RETRIED_BY_HAND, ""), "retried by hand"),
        ),
        graph(
            "Not pushed to Redis",
            "Jobs accepted whose push failed. None is lost: the scheduler pushes them within seconds.",
            JOBS,
            (grown(metrics.UNPUSHED, ""), "not pushed"),
        ),
        graph(
            "Requests refused",
            "Over a rate limit, without good credentials, or without the right scope. `not shared`: Redis did not "
            "count, and a process limited by itself.",
            "reqps",
            (rate(metrics.HTTP_REFUSED, "reason"), "{{reason}}"),
            (rate(metrics.UNSHARED, ""), "not shared"),
        ),
        graph(
            "Connections cut",
            "Connections the server ended: more than GOQUEUE_API_MAX_CONNECTIONS, not HTTP, slow clients.",
            "suffix: connections/s",
            (rate(metrics.HTTP_CUT, "reason"), "{{reason}}"),
        ),
        graph(
            "Database connections",
            "Of all API pods: open, free, and callers that wait for one.",
            PLAIN,
            *[
                (f"sum({of(metric)} {on_api})", legend)
                for metric, legend in (
                    (metrics.POOL_SIZE, "open"),
                    (metrics.POOL_FREE, "free"),
                    (metrics.POOL_LIMIT, "limit"),
                    (metrics.POOL_WAITING, "callers waiting"),
                )
            ],
        ),
    ]
    return panels.board(
        "api",
        "API",
        "Requests, errors and latency by route, and what stands behind them.",
        [("Now", now), ("Requests", traffic), ("Behind them", behind)],
        [panels.choice("route", "Route", metrics.HTTP_REQUESTS, "route")],
    )
