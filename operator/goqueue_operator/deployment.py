"""From a GoQueueWorkerPool to the Deployment that it owns. Pure; golden files in the tests show the whole of it."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import orjson

from goqueue_operator.crds.pool import MAX_NAME
from goqueue_operator.crds.schema import API_VERSION
from goqueue_operator.namespaces import Namespaces
from goqueue_operator.podrules import WORKER, tightened, wrong_metadata, wrongs
from goqueue_operator.podshape import ENV, ENV_FROM, without_nulls, wrong_shapes
from goqueue_operator.revisions import GRACE, QUEUES, Settings

Object = dict[str, Any]

POOL_LABEL: Final = "goqueue.io/pool"
"""Label of a pool's pods, with the pool's name."""

ANY_ADDRESS: Final = "::"
"""Both families, as the probes come from the node: in a cluster of IPv6 alone by that."""

EVICTABLE: Final = {"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "tmp"}
"""Lets the Cluster Autoscaler remove a worker: its emptyDir would pin the node."""

MANAGED: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "goqueue-operator"
HEALTH_PORT: Final = 8081
TMP: Final = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - of the pod
CERTIFICATES: Final = {"name": "certificates", "mountPath": "/etc/goqueue/certificates", "readOnly": True}
SPREAD: Final = {"topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}
SPARE_SECONDS: Final = 10
"""How much longer than the worker's own grace period a pod gets to end."""

REVISION: Final = "goqueue.io/settings-revision"
"""Annotation of the pod template: the state of the ConfigMaps and Secrets that its environment names."""

OTHERS: Final = (
    *("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "goqueue.io/", "helm.sh/", "meta.helm.sh/"),
    *("argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/", "kubectl.kubernetes.io/"),
    *("deployment.kubernetes.io/", "config.kubernetes.io/", "applyset.kubernetes.io/", "cli-utils.sigs.k8s.io/"),
)
"""Labels and annotations of a pool that say what manages it: a Deployment that had them would be pruned."""

MAX_GRACE: Final = 7 * 86400.0
"""Longest grace period in seconds that a pod gets, as in the definition of pools."""


class Refused(Exception):
    """The pool cannot become a Deployment; the message says why, `reason` in one word."""

    def __init__(self, message: str, reason: str = "Refused") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Defaults:
    """What pools get that say nothing else. `grace` in seconds."""

    image: str = ""
    env_from: Sequence[str] = ()
    """`configmap/NAME` and `secret/NAME`."""
    certificates: str = ""
    """Secret with CA certificates: the environment may name files of it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of pods whose pools do not set them; by the chart's, its NetworkPolicies let workers through to the stores."""
    accounts: Sequence[str] = ()
    forbidden_account: str = ""
    grace: float = 25.0
    health_host: str = ANY_ADDRESS
    """Where the probes and metrics of workers listen."""
    fs_group: int = 0
    """Group of the certificates' files; 0: the cluster or the pool says."""
    namespaces: Namespaces = field(default_factory=Namespaces)
    """Which queues the pools of a namespace may serve."""


NOTHING: Final = Settings()


def slots(pool: Object) -> int:
    """Jobs that one pod runs at the same time."""
    return int(pool["spec"].get("concurrency") or 50)


def owner(pool: Object) -> Object:
    """The reference by which the Deployment goes when the pool goes."""
    return {
        "apiVersion": API_VERSION,
        "kind": "GoQueueWorkerPool",
        "name": pool["metadata"]["name"],
        "uid": pool["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def owned(deployment: Object, pool: Object) -> bool:
    """Whether the Deployment belongs to the pool."""
    references = deployment["metadata"].get("ownerReferences") or ()
    return any(reference.get("uid") == pool["metadata"]["uid"] for reference in references)


def build(pool: Object, replicas: int, defaults: Defaults, settings: Settings = NOTHING) -> Object:
    """The Deployment.

    Raises:
        Refused: the pool's template asks for what no pool may have, nothing names an image, or the name is too long.
    """
    if len(pool["metadata"]["name"]) > MAX_NAME:
        raise Refused(f"the name of a pool has at most {MAX_NAME} characters: it is a label of its pods")
    try:
        orjson.dumps(pool["spec"])
    except TypeError:
        raise Refused("the spec is nested too deeply") from None
    spec = without_nulls(pool["spec"])
    template = spec.get("podTemplate") or {}
    pod, given = template.get("spec") or {}, template.get("metadata") or {}
    name = pool["metadata"]["name"]
    selector = {POOL_LABEL: name}
    common = {"app.kubernetes.io/name": "goqueue", "app.kubernetes.io/component": WORKER, **defaults.labels}
    bad = [*wrongs(pod, defaults.accounts, defaults.forbidden_account), *wrong_metadata(given, common)]
    if bad:
        raise Refused("podTemplate: " + "; ".join(bad))
    bad = [
        *wrong_shapes(spec.get("env") or [], ENV, "spec.env"),
        *wrong_shapes(spec.get("envFrom") or [], ENV_FROM, "spec.envFrom"),
    ]
    if bad:
        raise Refused("; ".join(bad))
    if not (spec.get("image") or defaults.image):
        raise Refused("spec.image is not set, and the operator has no default (GOQUEUE_OPERATOR_IMAGE)")
    metadata: Object = {"labels": common | (given.get("labels") or {}) | selector}
    annotations = EVICTABLE | (given.get("annotations") or {})
    if settings.revision:
        annotations[REVISION] = settings.revision
    metadata["annotations"] = annotations
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": pool["metadata"]["namespace"],
            "labels": _copied(pool, "labels") | selector | {MANAGED: MANAGER},
            "annotations": _copied(pool, "annotations"),
            "ownerReferences": [owner(pool)],
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"} | (spec.get("strategy") or {}),
            },
            "minReadySeconds": spec.get("minReadySeconds") or 0,
            "template": {"metadata": metadata, "spec": _pod(spec, pod, selector, defaults, settings)},
        },
    }


def _copied(pool: Object, kind: str) -> dict[str, str]:
    """The pool's labels or annotations that its Deployment gets as well."""
    given = pool["metadata"].get(kind) or {}
    return {name: value for name, value in given.items() if not name.startswith(OTHERS)}


def unknown_queues(pool: Object, known: Collection[str], defaults: Defaults, settings: Settings) -> list[str]:
    """The queues that the pool's workers would not know, and so would not start.

    An image of the pool's own may bring queues by its job types, and its environment may name others: those are not
    judged.
    """
    spec = pool["spec"]
    if (spec.get("image") or defaults.image) != defaults.image:
        return []
    template = (spec.get("podTemplate") or {}).get("spec") or {}
    own = [spec, *(template.get("containers") or ())]
    if any(variable.get("name") in (QUEUES, "GOQUEUE_JOBS") for part in own for variable in part.get("env") or ()):
        return []
    added = settings.values.get(QUEUES, "").replace(",", " ").split()
    named = [name.partition(":")[0] for name in spec.get("queues") or ()]
    return [name for name in named if name not in known and name not in added]


def _pod(spec: Object, given: Object, selector: Object, defaults: Defaults, settings: Settings) -> Object:
    named = given.get("containers") or []
    security = given.get("securityContext") or {}
    if defaults.certificates and defaults.fs_group:
        security = {"fsGroup": defaults.fs_group, **security}
    mine: Object = next((container for container in named if container.get("name") == WORKER), {})
    worker = _worker(spec, mine, defaults)
    pod: Object = {key: value for key, value in given.items() if value not in (None, [], {})}
    pod |= {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": tightened(security, container=False),
        "terminationGracePeriodSeconds": max(
            math.ceil(grace(worker["env"], defaults.grace, settings.values)) + SPARE_SECONDS,
            given.get("terminationGracePeriodSeconds") or 0,
        ),
        "containers": [worker, *(_beside(container) for container in named if container.get("name") != WORKER)],
        "volumes": by_key("name", _volumes(defaults), given.get("volumes") or []),
    }
    if given.get("initContainers"):
        pod["initContainers"] = [_beside(container) for container in given["initContainers"]]
    wanted = given.get("topologySpreadConstraints") or [SPREAD]
    # Without a selector Kubernetes counts no pod at all.
    pod["topologySpreadConstraints"] = [{"labelSelector": {"matchLabels": selector}, **one} for one in wanted]
    return pod


def _volumes(defaults: Defaults) -> list[Object]:
    made: list[Object] = [{"name": "tmp", "emptyDir": {}}]
    if defaults.certificates:
        # libpq takes no key that others may read.
        secret = {"secretName": defaults.certificates, "optional": True, "defaultMode": 0o440}
        made.append({"name": "certificates", "secret": secret})
    return made


def _mounts(defaults: Defaults) -> list[Object]:
    return [TMP, CERTIFICATES] if defaults.certificates else [TMP]


def grace(env: Iterable[Object], default: float, values: Mapping[str, str] = MappingProxyType({})) -> float:
    """The worker's own grace period in seconds, as its environment says; `values`: what ConfigMaps give it."""
    named = {variable.get("name"): variable for variable in env}
    text = values.get(GRACE)
    if GRACE in named and "valueFrom" not in named[GRACE]:
        text = str(named[GRACE].get("value"))
    try:
        seconds = float((text or "").removesuffix("s"))
    except ValueError:
        return default
    return min(seconds, MAX_GRACE) if seconds >= 0 else default  # not a number is not >= 0 either


def _beside(container: Object) -> Object:
    return container | {"securityContext": tightened(container.get("securityContext") or {}, container=True)}


def _worker(spec: Object, given: Object, defaults: Defaults) -> Object:
    fixed: list[Object] = [
        {"name": "GOQUEUE_WORKER_CONCURRENCY", "value": str(spec.get("concurrency") or 50)},
        {"name": "GOQUEUE_WORKER_HEALTH_HOST", "value": defaults.health_host},
        {"name": "GOQUEUE_WORKER_HEALTH_PORT", "value": str(HEALTH_PORT)},
    ]
    if spec.get("queues"):
        fixed.insert(0, {"name": "GOQUEUE_WORKER_QUEUES", "value": ",".join(spec["queues"])})
    ports = by_key("name", [{"name": "health", "containerPort": HEALTH_PORT}], given.get("ports") or [])
    worker: Object = {
        "name": WORKER,
        "image": spec.get("image") or defaults.image,
        "args": ["worker"],
        "env": by_key("name", spec.get("env") or [], given.get("env") or [], fixed),
        "envFrom": _env_from(defaults.env_from) + (spec.get("envFrom") or []) + (given.get("envFrom") or []),
        "ports": ports,
        "resources": given.get("resources") or spec.get("resources") or {},
        "securityContext": tightened(given.get("securityContext") or {}, container=True, read_only=True),
        "terminationMessagePolicy": "FallbackToLogsOnError",  # why it ended is said of the pool
        "volumeMounts": by_key("mountPath", _mounts(defaults), given.get("volumeMounts") or []),
        **_probes(),
    }
    policy = given.get("imagePullPolicy") or spec.get("imagePullPolicy")
    if policy:
        worker["imagePullPolicy"] = policy
    rest = ("lifecycle", "workingDir", "terminationMessagePath", "terminationMessagePolicy")
    return worker | {key: given[key] for key in rest if key in given}


def _env_from(references: Iterable[str]) -> list[Object]:
    kinds = {"configmap": "configMapRef", "secret": "secretRef"}
    parts = [reference.partition("/") for reference in references]
    return [{kinds[kind]: {"name": name}} for kind, _, name in parts]


def _probes() -> Object:
    def probe(path: str, **times: int) -> Object:
        return {"httpGet": {"path": path, "port": "health"}, **times}

    return {
        "startupProbe": probe("/livez", periodSeconds=1, failureThreshold=120),
        "livenessProbe": probe("/livez", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
        "readinessProbe": probe("/readyz", periodSeconds=3, timeoutSeconds=3, failureThreshold=2),
    }


def by_key(key: str, *lists: Iterable[Object]) -> list[Object]:
    """The lists as one; of items with the same key the last one stays, in the place of the first."""
    merged: dict[Any, Object] = {}
    for items in lists:
        for item in items:
            merged[item.get(key, (len(merged),))] = item
    return list(merged.values())
