"""GoQueueSchedule: jobs at certain times."""

from typing import Final

from goqueue import cron
from goqueue_operator.crds.job import ORDER, ORDER_RULES
from goqueue_operator.crds.schema import (
    AGE,
    Schema,
    array,
    boolean,
    column,
    conditions,
    definition,
    integer,
    obj,
    observed_generation,
    rule,
    text,
    time,
)

TEMPLATE: Final = obj(
    "The jobs that are made.",
    {"spec": obj("As of a GoQueueJob.", ORDER, required=["queue"], rules=ORDER_RULES)},
    required=["spec"],
)


def _cron_rule(one: cron.Rule) -> Schema:
    """A rule of the dialect in CEL, whose string literals have the escapes of Python's."""
    pattern = one.pattern.replace("\\", "\\\\")
    return rule(f"{'' if one.wanted else '!'}self.matches('{pattern}')", one.message)


SCHEDULE: Final = definition(
    "GoQueueSchedule",
    "gqs",
    "Jobs at certain times.",
    spec=obj(
        "When, and what.",
        {
            "cron": text(
                "Five fields: minute, hour, day of month, month, day of week; or a name such as @daily.",
                minLength=1,
                maxLength=255,
                # at the field, so that Kubernetes lets one that an earlier release allowed stay when others change
                **{"x-kubernetes-validations": [_cron_rule(one) for one in cron.RULES]},
            ),
            "timeZone": text("IANA time zone in which the times are meant.", maxLength=64, default="UTC"),
            "jobTemplate": TEMPLATE,
            "concurrencyPolicy": text(
                "If an earlier job has not ended: Allow both, Forbid the new one, or Replace the earlier one.",
                enum=["Allow", "Forbid", "Replace"],
                default="Allow",
            ),
            "suspend": boolean("Make no jobs until this is false again.", default=False),
            "startingDeadlineSeconds": integer(
                "Seconds by which a job may come too late, after an outage or where its payload was missing; older "
                "times are skipped.",
                1,
                366 * 86400,
                default=3600,
            ),
        },
        required=["cron", "jobTemplate"],
    ),
    status=obj(
        "What it has done.",
        {
            "observedGeneration": observed_generation(),
            "lastScheduleTime": time("The last time for which a job was made."),
            "lastSkippedTime": time("The last time that made none: it came too late, or concurrencyPolicy forbade it."),
            "lastSuccessfulTime": time("When a job of its times last completed."),
            "nextScheduleTime": time("The time that comes next; one in the past is due, and tried again."),
            "lastJobID": integer("The job that was made last.", 1),
            "active": array("Jobs of its times that have not ended.", integer("A job's id.", 1)),
            "runNow": text("Value of the annotation goqueue.io/run-now for which a job was made last.", maxLength=253),
            "conditions": conditions(),
        },
    ),
    columns=[
        column("Cron", "string", ".spec.cron", "When."),
        column("Zone", "string", ".spec.timeZone", "In which time zone."),
        column("Suspend", "boolean", ".spec.suspend", "Whether it pauses."),
        column("Last", "date", ".status.lastScheduleTime", "Time since it made a job."),
        column("Success", "date", ".status.lastSuccessfulTime", "Time since a job of it completed.", wide=True),
        column("Next", "string", ".status.nextScheduleTime", "When it makes one."),
        AGE,
        column("Queue", "string", ".spec.jobTemplate.spec.queue", "Where its jobs wait.", wide=True),
        column("Job", "integer", ".status.lastJobID", "The job that was made last.", wide=True),
    ],
)
