"""Pod templates by which somebody who may make pools could try to get more than a worker has, and harmless ones."""

from collections.abc import Mapping
from typing import Any

Pod = dict[str, Any]


def beside(**fields: Any) -> Pod:
    """A second container."""
    return {"containers": [{"name": "beside", "image": "x", **fields}]}


def before(**fields: Any) -> Pod:
    """An init container."""
    return {"initContainers": [{"name": "before", "image": "x", **fields}]}


def worker(**fields: Any) -> Pod:
    """Changes of the worker's own container."""
    return {"containers": [{"name": "worker", **fields}]}


def context(**fields: Any) -> Mapping[str, Any]:
    """A container's security context."""
    return {"securityContext": fields}


def volume(**source: Any) -> Pod:
    """A volume."""
    return {"volumes": [{"name": "v", **source}]}


def source(**kind: Any) -> Pod:
    """A projected volume of one source."""
    return volume(projected={"sources": [kind]})


PLACES = {"worker": worker, "beside": beside, "before": before}

_CONTEXTS: dict[str, tuple[dict[str, Any], str]] = {
    "privileged": ({"privileged": True}, "privileged is not allowed"),
    "privileged, as text": ({"privileged": "true"}, "privileged is not allowed"),
    "more rights than its parent": ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation is not allowed"),
    "root by number": ({"runAsUser": 0}, "root is not allowed"),
    "root by a fraction": ({"runAsUser": 0.0}, "root is not allowed"),
    "root is fine": ({"runAsNonRoot": False}, "root is not allowed"),
    "all capabilities": ({"capabilities": {"add": ["ALL"]}}, "capabilities ALL are not allowed"),
    "one capability": ({"capabilities": {"add": ["SYS_ADMIN"]}}, "capabilities SYS_ADMIN are not allowed"),
    "a capability behind a harmless one": (
        {"capabilities": {"add": ["NET_BIND_SERVICE", "NET_RAW"]}},
        "capabilities NET_RAW are not allowed",
    ),
    "a capability by its long name": ({"capabilities": {"add": ["CAP_SYS_PTRACE"]}}, "CAP_SYS_PTRACE are not allowed"),
    "capabilities as text": ({"capabilities": {"add": "SYS_ADMIN"}}, "must be a list"),
    "no seccomp": ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile must not be Unconfined"),
    "an empty seccomp profile": ({"seccompProfile": {}}, "seccompProfile must not be empty"),
    "no AppArmor": ({"appArmorProfile": {"type": "Unconfined"}}, "appArmorProfile must not be Unconfined"),
    "unmasked proc": ({"procMount": "Unmasked"}, "procMount is not allowed"),
    "SELinux": ({"seLinuxOptions": {"type": "spc_t"}}, "seLinuxOptions is not allowed"),
    "a process of the host": ({"windowsOptions": {"hostProcess": True}}, "windowsOptions is not allowed"),
    "kernel settings": ({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}, "sysctls is not allowed"),
    "another spelling": ({"Privileged": True}, "Privileged is not allowed"),
    "a field to come": ({"tomorrow": True}, "tomorrow is not allowed"),
}

TRICKS: dict[str, tuple[Pod, str]] = {
    # the node's namespaces, and what the definition does not know at all
    **{
        name: ({name: True}, f"{name} is not allowed")
        for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "automountServiceAccountToken")
    },
    "hostUsers": ({"hostUsers": True}, "hostUsers is not allowed"),
    "nodeName": ({"nodeName": "control-plane"}, "nodeName is not allowed"),
    "ephemeralContainers": (
        {"ephemeralContainers": [{"name": "x", "image": "x"}]},
        "ephemeralContainers is not allowed",
    ),
    "serviceAccount, the old name": ({"serviceAccount": "admin"}, "serviceAccount is not allowed"),
    "resourceClaims": ({"resourceClaims": [{"name": "gpu"}]}, "resourceClaims is not allowed"),
    # other identities
    "another account": ({"serviceAccountName": "admin"}, "serviceAccountName admin is not allowed"),
    "the operator's account": ({"serviceAccountName": "goqueue-operator"}, "goqueue-operator is not allowed"),
    "all accounts": ({"serviceAccountName": "*"}, r"serviceAccountName \* is not allowed"),
    "a token": (source(serviceAccountToken={"path": "token"}), "a service account's token is not allowed"),
    "a token behind something harmless": (
        volume(projected={"sources": [{"configMap": {"name": "x"}}, {"serviceAccountToken": {"path": "token"}}]}),
        "a service account's token is not allowed",
    ),
    "a token beside something harmless": (
        source(configMap={"name": "x"}, serviceAccountToken={"path": "token"}),
        "a service account's token is not allowed",
    ),
    "a certificate of the pod": (source(podCertificate={"keyType": "ED25519"}), "podCertificate is not allowed"),
    "a system's priority": ({"priorityClassName": "system-node-critical"}, "system-node-critical is not allowed"),
    # the node's files and devices
    **{
        f"volume {kind}": (volume(**{kind: {"x": "y"}}), f"{kind} is not allowed")
        for kind in ("hostPath", "csi", "nfs", "iscsi", "flexVolume", "local", "gitRepo", "fc", "rbd", "HostPath")
    },
    "hostPath behind a harmless kind": (volume(emptyDir={}, hostPath={"path": "/"}), "hostPath is not allowed"),
    "a device": (beside(volumeDevices=[{"name": "v", "devicePath": "/dev/sda"}]), "volumeDevices is not allowed"),
    # the node's network
    "hostPort": (beside(ports=[{"containerPort": 80, "hostPort": 80}]), "hostPort is not allowed"),
    "hostPort of the worker": (worker(ports=[{"containerPort": 80, "hostPort": 80}]), "hostPort is not allowed"),
    "hostPort of an init container": (before(ports=[{"containerPort": 80, "hostPort": 80}]), "hostPort is not allowed"),
    "hostIP": (beside(ports=[{"containerPort": 80, "hostIP": "127.0.0.1"}]), "hostPort is not allowed"),
    **{
        f"{probe} asks another host": (
            beside(**{probe: {"httpGet": {"host": "169.254.169.254", "port": 80}}}),
            f"{probe}.httpGet.host is not allowed",
        )
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
    },
    "a sidecar's probe connects elsewhere": (
        before(restartPolicy="Always", livenessProbe={"tcpSocket": {"host": "127.0.0.1", "port": 10250}}),
        "livenessProbe.tcpSocket.host is not allowed",
    ),
    **{
        f"{hook} of the worker asks another host": (
            worker(lifecycle={hook: {"httpGet": {"host": "127.0.0.1", "port": 10255}}}),
            f"{hook}.httpGet.host is not allowed",
        )
        for hook in ("postStart", "preStop")
    },
    # security contexts, everywhere
    **{
        f"{what}, {where}": (place(**context(**fields)), words)
        for what, (fields, words) in _CONTEXTS.items()
        for where, place in PLACES.items()
    },
    **{f"{what}, whole pod": ({"securityContext": fields}, words) for what, (fields, words) in _CONTEXTS.items()},
    # another program as the worker, which has the stores' passwords in its environment
    **{
        f"{name} of the worker": (worker(**{name: value}), f"{name} cannot be set")
        for name, value in {"image": "x", "command": ["sh"], "args": ["-c"], "livenessProbe": {}}.items()
    },
    "a second worker": ({"containers": [{"name": "worker"}, {"name": "worker", "image": "x"}]}, "image cannot be set"),
    # shapes that are none
    "containers of texts": ({"containers": ["worker"]}, r"containers\[0\] must be an object"),
    "containers as an object": ({"containers": {"name": "worker"}}, "containers must be a list"),
    "a volume named by an object": (volume() | {"volumes": [{"name": {}}]}, r"volumes\[0\].name must be a text"),
    "projected as a text": (volume(projected="serviceAccountToken"), "projected must be an object"),
    "a source as a text": (volume(projected={"sources": ["serviceAccountToken"]}), "must be an object"),
    "a mount at an object": (worker(volumeMounts=[{"mountPath": {}}]), "mountPath must be a text"),
    "an environment of numbers": (beside(env=[1]), "must be an object"),
    "capabilities as a number": (worker(**context(capabilities=5)), "capabilities must be an object"),
    "a profile as a text": (worker(**context(seccompProfile="Unconfined")), "seccompProfile must be an object"),
    "a hook as a list": (worker(lifecycle=[]), "lifecycle must be an object"),
}
"""What → the pod's spec, and words of the refusal."""

METADATA_TRICKS: dict[str, tuple[dict[str, Any], str]] = {
    "the API's traffic": ({"labels": {"app.kubernetes.io/component": "api"}}, "component cannot be changed"),
    "the operator's flows": ({"labels": {"app.kubernetes.io/component": "operator"}}, "component cannot be changed"),
    "PostgreSQL's clients": ({"labels": {"app.kubernetes.io/component": "postgresql"}}, "component cannot be changed"),
    "another release": ({"labels": {"app.kubernetes.io/instance": "other"}}, "instance cannot be changed"),
    "another program": ({"labels": {"app.kubernetes.io/name": "other"}}, "name cannot be changed"),
    "no AppArmor": (
        {"annotations": {"container.apparmor.security.beta.kubernetes.io/worker": "unconfined"}},
        "is not allowed",
    ),
    "no seccomp": ({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}, "is not allowed"),
}
"""What → the pod's metadata, and words of the refusal."""

HARMLESS: dict[str, Pod] = {
    "nothing": {},
    "what it is anyway": worker(**context(privileged=False, allowPrivilegeEscalation=False, procMount="Default")),
    "nulls": {
        "securityContext": {"seccompProfile": None, "runAsUser": None},
        **worker(**context(seccompProfile=None, capabilities=None, privileged=None)),
    },
    "a user": {"securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "supplementalGroups": [1]}},
    "a low port": worker(**context(capabilities={"add": ["NET_BIND_SERVICE"]})),
    "a profile of the node": worker(**context(seccompProfile={"type": "Localhost", "localhostProfile": "x.json"})),
    "a sidecar": before(restartPolicy="Always", livenessProbe={"httpGet": {"port": 80, "path": "/"}}),
    "files": {
        "volumes": [
            {"name": "a", "emptyDir": {"medium": "Memory"}},
            {"name": "b", "configMap": {"name": "x"}},
            {"name": "c", "secret": {"secretName": "x"}},
            {"name": "d", "persistentVolumeClaim": {"claimName": "x"}},
            {"name": "e", "projected": {"sources": [{"secret": {"name": "x"}}, {"downwardAPI": {"items": []}}]}},
        ]
    },
    "places": {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "priorityClassName": "high",
    },
    "a hook": worker(lifecycle={"preStop": {"exec": {"command": ["true"]}}}),
}
"""What → a pod's spec that must be allowed."""
