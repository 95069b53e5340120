"""GoQueueWorkerPool: workers that scale with their queues."""

from typing import Any, Final

from goqueue_operator.crds.schema import (
    AGE,
    Schema,
    array,
    boolean,
    column,
    conditions,
    definition,
    free,
    integer,
    number_or_percent,
    obj,
    observed_generation,
    rule,
    text,
    time,
)

MAX_REPLICAS: Final = 1000


def _objects(description: str, **more: Any) -> Schema:
    return array(description, free("As in a pod."), **more)


CONTAINER: Final[dict[str, Schema]] = {
    "name": text("`worker` for the worker itself; others run beside it.", minLength=1, maxLength=63),
    "image": text("Image; not for `worker`, see spec.image."),
    "imagePullPolicy": text("When nodes pull it.", enum=["Always", "IfNotPresent", "Never"]),
    "command": array("Program; not for `worker`.", text("Word.")),
    "args": array("Arguments; not for `worker`.", text("Word.")),
    "workingDir": text("Folder to start in."),
    "env": _objects("Environment."),
    "envFrom": _objects("Secrets and ConfigMaps whose keys become environment."),
    "ports": _objects("Ports; never of the node."),
    "resources": free("CPU and memory."),
    "volumeMounts": _objects("Where volumes are mounted."),
    "lifecycle": free("Hooks."),
    "livenessProbe": free("As in a pod; not for `worker`."),
    "readinessProbe": free("As in a pod; not for `worker`."),
    "startupProbe": free("As in a pod; not for `worker`."),
    "restartPolicy": text("`Always` makes an init container a sidecar.", enum=["Always"]),
    "securityContext": free("May only tighten what is set already."),
    "terminationMessagePath": text("As in a pod."),
    "terminationMessagePolicy": text("As in a pod."),
}

POD: Final[dict[str, Schema]] = {
    "serviceAccountName": text("Account of the pods; its token is never mounted.", maxLength=253),
    "terminationGracePeriodSeconds": integer(
        "Seconds until a pod that should end is killed; raised to what the workers need.", 1, 7 * 86400
    ),
    "enableServiceLinks": boolean("Environment for the Services of the namespace; never on."),
    "imagePullSecrets": _objects("Secrets for private registries."),
    "priorityClassName": text("Priority class."),
    "runtimeClassName": text("Runtime class."),
    "schedulerName": text("Which scheduler places them."),
    "nodeSelector": {"type": "object", "description": "Labels of nodes.", "additionalProperties": {"type": "string"}},
    "tolerations": _objects("Taints that they tolerate."),
    "affinity": free("Affinity."),
    "topologySpreadConstraints": _objects("How they spread; empty: evenly over the nodes where that is possible."),
    "hostAliases": _objects("Names of addresses."),
    "hostUsers": boolean("false: users of the pod are not those of the node (user namespaces)."),
    "dnsPolicy": text("As in a pod.", enum=["ClusterFirst", "Default", "None"]),
    "dnsConfig": free("As in a pod."),
    "securityContext": free("May only tighten what is set already."),
    "initContainers": array("Containers that run before.", obj("As in a pod.", CONTAINER, required=["name"])),
    "containers": array("`worker`, and containers beside it.", obj("As in a pod.", CONTAINER, required=["name"])),
    "volumes": _objects("Volumes; none of the node."),
}
"""The fields of a pod that a pool may set. What is not here (hostNetwork …) is refused at apply."""

_STRINGS: Final = {"type": "object", "additionalProperties": {"type": "string"}}

SCALING: Final[dict[str, Schema]] = {
    "targetWaitSeconds": integer("Seconds that a job may wait for its start.", 1, 86400, default=10),
    "jobsPerReplica": integer(
        "Jobs for one pod, as long as their pace is not known; default: concurrency.",
        1,
        1_000_000,
    ),
    "scaleDownWindowSeconds": integer(
        "Seconds over which the highest demand counts before pods go.", 0, 86400, default=60
    ),
    "scaleDownPods": integer("Most pods that go within a minute; default: any number.", 1, MAX_REPLICAS),
    "scaleUpPods": integer("Most pods that come within a minute; default: any number.", 1, MAX_REPLICAS),
}

STRATEGY: Final[dict[str, Schema]] = {
    "maxUnavailable": number_or_percent("Pods that may be missing meanwhile; default: 0.", "(100|[0-9]{1,2})%"),
    "maxSurge": number_or_percent("Pods that there may be in addition; default: 25%.", "[0-9]{1,4}%"),
}

SPEC: Final[dict[str, Schema]] = {
    "queues": array(
        "Queues they serve, `name` or `name:weight`; empty: all.",
        text("Queue.", maxLength=68, pattern=r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?(:([1-9][0-9]{0,2}|1000))?$"),
        maxItems=64,
        **{
            "x-kubernetes-list-type": "atomic",
            "x-kubernetes-validations": [
                rule(
                    "self.all(one, self.exists_one(other, other.split(':')[0] == one.split(':')[0]))",
                    "a queue is named twice",
                )
            ],
        },
    ),
    "image": text("Image with your job types; default: the operator's setting.", minLength=1, maxLength=1024),
    "imagePullPolicy": text("When nodes pull it.", enum=["Always", "IfNotPresent", "Never"]),
    "concurrency": integer("Jobs that one pod runs at the same time.", 1, 10_000, default=50),
    "resources": free("CPU and memory of a worker."),
    "env": array("Environment of the workers.", free("As in a pod."), maxItems=256),
    "envFrom": _objects("Secrets and ConfigMaps whose keys become environment of the workers."),
    "podTemplate": obj(
        "What else the pods should be like; merged into what the operator makes.",
        {
            "metadata": obj(
                "Their metadata.",
                {
                    "labels": _STRINGS | {"description": "Labels."},
                    "annotations": _STRINGS | {"description": "Annotations."},
                },
            ),
            "spec": obj("As of a pod, as far as it gives no rights beyond the worker's.", POD),
        },
    ),
    "strategy": obj(
        "How pods are replaced after a change, as in a Deployment.",
        STRATEGY,
        rules=[
            rule(
                "!has(self.maxSurge) || !(string(self.maxSurge) in ['0', '0%']) "
                "|| (has(self.maxUnavailable) && !(string(self.maxUnavailable) in ['0', '0%']))",
                "maxUnavailable and maxSurge cannot both be 0",
            )
        ],
    ),
    "minReadySeconds": integer("Seconds that a new pod must be ready before the next one is replaced.", 0, 86400),
    "replicas": integer(
        "So many pods, whatever waits (`kubectl scale` sets it); left out: as many as are needed.", 0, MAX_REPLICAS
    ),
    "minReplicas": integer("Fewest pods; 0: none while there is nothing to do.", 0, MAX_REPLICAS, default=0),
    "maxReplicas": integer("Most pods.", 1, MAX_REPLICAS, default=10),
    "scaling": obj("How the number of pods follows the work.", SCALING, default={}),
}

MAX_NAME: Final = 63
"""Longest name of a pool: it is a label of its pods."""

POOL: Final = definition(
    "GoQueueWorkerPool",
    "gqp",
    "Workers that serve some queues, as many as the work needs.",
    max_name=MAX_NAME,
    spec=obj(
        "Which workers, and how many.",
        SPEC,
        rules=[
            rule(
                "self.minReplicas <= self.maxReplicas", "minReplicas is more than maxReplicas", fieldPath=".minReplicas"
            )
        ],
    ),
    status=obj(
        "How they are.",
        {
            "observedGeneration": observed_generation(),
            "replicas": integer("Pods there are.", 0),
            "readyReplicas": integer("Pods that take jobs.", 0),
            "busy": integer("Jobs that they run.", 0),
            "desiredReplicas": integer("Pods there should be.", 0),
            "draining": integer("Pods that fetch no more jobs and go when what they run has ended.", 0),
            "pace": array(
                "How long jobs take, as measured: what the number of pods is computed from.",
                obj(
                    "One queue and type.",
                    {
                        "queue": text("The queue."),
                        "type": text("The job type."),
                        "seconds": {"type": "number", "description": "Mean duration of the jobs that started lately."},
                        "usableSlots": {
                            "type": "number",
                            "description": "Jobs that one pod really runs at the same time; absent: all its slots.",
                        },
                    },
                ),
                maxItems=100,
            ),
            "reason": text("Why so many."),
            "lastScaleTime": time("When the number last changed."),
            "selector": text("Labels of the pods."),
            "conditions": conditions(),
        },
    ),
    columns=[
        column("Desired", "integer", ".status.desiredReplicas", "Pods there should be."),
        column("Replicas", "integer", ".status.replicas", "Pods there are."),
        column("Ready", "integer", ".status.readyReplicas", "Pods that take jobs."),
        column("Busy", "integer", ".status.busy", "Jobs that they run."),
        column("Queues", "string", ".spec.queues", "What they serve."),
        column("Reason", "string", ".status.reason", "Why so many."),
        AGE,
        column("Min", "integer", ".spec.minReplicas", "Fewest pods.", wide=True),
        column("Max", "integer", ".spec.maxReplicas", "Most pods.", wide=True),
        column("Draining", "integer", ".status.draining", "Pods that fetch no more jobs.", wide=True),
        column("Image", "string", ".spec.image", "What they run.", wide=True),
    ],
    scale={
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
)
