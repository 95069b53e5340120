"""GoQueueJob: one job."""

from typing import Final

from goqueue.builtin import TYPE_OF_QUEUE
from goqueue.job import (
    DEFAULT_MAX_RETRIES,
    MAX_KEY_LENGTH,
    MAX_PRIORITY,
    MAX_RETRIES,
    MAX_TIMEOUT_SECONDS,
    MIN_PRIORITY,
)
from goqueue_operator.crds.schema import (
    AGE,
    PRINTABLE,
    QUEUE,
    Schema,
    anything,
    boolean,
    column,
    conditions,
    definition,
    free,
    integer,
    obj,
    observed_generation,
    rule,
    text,
    time,
)

MAX_RESULT: Final = 4096
"""Largest result, in bytes of JSON, that a status repeats; a larger one is in the API."""

MAX_ERROR: Final = 2048
"""Longest error, in characters, that a status repeats."""


def _key_of(what: str) -> Schema:
    return obj(
        f"A key of a {what} in the job's namespace.",
        {
            "name": text("Its name.", minLength=1, maxLength=253),
            "key": text("Key in it.", minLength=1, maxLength=253),
        },
        required=["name", "key"],
    )


ORDER: Final[dict[str, Schema]] = {
    "queue": text("Queue in which the job waits.", maxLength=63, pattern=QUEUE),
    "type": text(f"Type of the job. May be left out for the queues {', '.join(TYPE_OF_QUEUE)}.", maxLength=255),
    "payload": free("What the job is about; its type says which fields there are."),
    "payloadFrom": obj(
        "Where the payload stands, as a JSON object, instead of here.",
        {
            "secretKeyRef": _key_of("Secret")
            | {"description": "A key of a Secret with the label goqueue.io/payload=true."},
            "configMapKeyRef": _key_of("ConfigMap"),
        },
        rules=[
            rule("has(self.secretKeyRef) != has(self.configMapKeyRef)", "give either secretKeyRef or configMapKeyRef")
        ],
    ),
    "priority": integer("Jobs of higher priority run first.", MIN_PRIORITY, MAX_PRIORITY, default=0),
    "maxRetries": integer("Attempts after the first.", 0, MAX_RETRIES, default=DEFAULT_MAX_RETRIES),
    "timeout": integer("Seconds that one attempt may take; the type has a default.", 1, MAX_TIMEOUT_SECONDS),
    "uniqueKey": text(
        "While a job of the namespace with this key is not finished, no second one is made.",
        minLength=1,
        maxLength=MAX_KEY_LENGTH,
        pattern=PRINTABLE,
    ),
}
"""What GoQueueJob and the template of a GoQueueSchedule have in common."""

ORDER_RULES: Final = [
    rule("has(self.payload) != has(self.payloadFrom)", "give either payload or payloadFrom"),
    rule(
        f"has(self.type) || self.queue in {list(TYPE_OF_QUEUE)}",
        "type is required for this queue",
        fieldPath=".type",
    ),
]

SPEC: Final[dict[str, Schema]] = ORDER | {
    "availableAt": time("Not before this moment."),
    "ttlSecondsAfterFinished": integer("Seconds after its end at which the resource is deleted.", 0, 10 * 366 * 86400),
    "suspend": boolean("Hold the job back: it starts no attempt until this is false again.", default=False),
}

CHANGEABLE: Final = ("suspend", "priority", "ttlSecondsAfterFinished")
"""What may change after a job was made."""


def _immutable(field: str) -> Schema:
    same = f"has(self.{field}) == has(oldSelf.{field})"
    # The content of a payload is the policy's: rules here see no inside of it, and its nulls must not count.
    if field != "payload":
        same += f" && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return rule(
        same,
        f"{field} cannot be changed; delete the job and make a new one",
        fieldPath=f".{field}",
        reason="FieldValueForbidden",
    )


STATUS: Final[dict[str, Schema]] = {
    "observedGeneration": observed_generation(),
    "state": text("The job's state in one word, as the REST API has it; `waiting` and `suspended` before it is made."),
    "jobID": integer("Its id in the REST API.", 1),
    "attempts": integer("Attempts that were begun.", 0),
    "startedAt": time("When the last attempt began."),
    "finishedAt": time("When the job ended."),
    "result": anything(f"What the handler returned, if that is no more than {MAX_RESULT} bytes of JSON."),
    "error": text("Why the last attempt failed.", maxLength=MAX_ERROR),
    "retry": text("Value of the annotation goqueue.io/retry that was followed, or refused, last.", maxLength=253),
    "traceID": text("The trace that shows its way, where one is recorded."),
    "conditions": conditions(),
}

JOB: Final = definition(
    "GoQueueJob",
    "gqj",
    "One background job: made in PostgreSQL when the resource is made, cancelled when it is deleted.",
    spec=obj(
        "What to do. Cannot be changed, but for suspend, priority and ttlSecondsAfterFinished.",
        SPEC,
        required=["queue"],
        rules=[*ORDER_RULES, *(_immutable(field) for field in SPEC if field not in CHANGEABLE)],
    ),
    status=obj("What became of it.", STATUS),
    columns=[
        column("Queue", "string", ".spec.queue", "Where it waits."),
        column("Type", "string", ".spec.type", "What it does."),
        column("State", "string", ".status.state", "How it stands."),
        column("Attempts", "integer", ".status.attempts", "Attempts that were begun."),
        column("Job", "integer", ".status.jobID", "Its id in the REST API."),
        column("Finished", "date", ".status.finishedAt", "Time since it ended."),
        AGE,
        column("Priority", "integer", ".spec.priority", "The higher the sooner.", wide=True),
        column("Error", "string", ".status.error", "Why the last attempt failed.", wide=True),
        column("Trace", "string", ".status.traceID", "The trace that shows its way.", wide=True),
    ],
)
