"""What keeps the pods of a pool from taking jobs, as Kubernetes says it. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from goqueue_operator.kube import Object

NORMAL: Final = frozenset({"ContainerCreating", "PodInitializing", "Completed"})
"""Reasons for which a container waits or has ended while nothing is wrong."""

REASON: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]{0,253}[A-Za-z0-9_])?")
"""What the API conventions take as the reason of a condition."""

MESSAGE: Final = 512
"""Longest part of a termination message that is copied, in characters."""

Trouble = tuple[str, str]
"""A reason in one word, and a sentence for a person."""


def of_deployment(deployment: Object | None) -> Trouble | None:
    """Why the Deployment makes no pods, or that its rollout is stuck."""
    conditions = {item.get("type"): item for item in ((deployment or {}).get("status") or {}).get("conditions") or ()}
    for kind, bad in (("ReplicaFailure", "True"), ("Progressing", "False")):
        condition = conditions.get(kind) or {}
        if condition.get("status") == bad:
            return _word(condition.get("reason"), kind), str(condition.get("message") or "")
    return None


def of_pods(pods: Iterable[Object]) -> Trouble | None:
    """The first trouble of the pods, in the order of their names; that of a container says more than a missing node."""
    unplaced: Trouble | None = None
    for pod in pods:
        status, name = pod.get("status") or {}, pod["metadata"]["name"]
        for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            for reason, message in _of_container(container):
                return reason, f"pod {name}, container {container.get('name')}: {message}"
        if unplaced is None:
            unplaced = _unplaced(name, status.get("conditions") or ())
    return unplaced


def _of_container(container: Mapping[str, Any]) -> Iterator[Trouble]:
    state, last = container.get("state") or {}, (container.get("lastState") or {}).get("terminated")
    waiting, ended = state.get("waiting"), state.get("terminated")
    if waiting and waiting.get("reason", "ContainerCreating") not in NORMAL:
        parts = [str(waiting.get("message") or waiting["reason"]), _ending(last)]
        yield _word(waiting["reason"], "Waiting"), "; ".join(part for part in parts if part)
    elif ended and ended.get("exitCode"):
        yield _word(ended.get("reason"), "Error"), _ending(ended)


def _ending(ended: Mapping[str, Any] | None) -> str:
    if not ended:
        return ""
    text = " ".join(str(ended.get("message") or "").split())[-MESSAGE:]  # the end of a log says what was wrong
    said = f"ended with exit code {ended.get('exitCode')} ({ended.get('reason') or 'Error'})"
    return f"{said}: {text}" if text else said


def _unplaced(name: str, conditions: Iterable[Mapping[str, Any]]) -> Trouble | None:
    for condition in conditions:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _word(condition.get("reason"), "Unschedulable"), f"pod {name}: {condition.get('message') or ''}"
    return None


def _word(reason: Any, instead: str) -> str:
    return str(reason) if reason and REASON.fullmatch(str(reason)) else instead
