"""What Kubernetes says of a pool's pods becomes one reason and one sentence."""

from typing import Any

import pytest

from goqueue_operator.podtrouble import of_deployment, of_pods


def pod(name: str = "one", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": status}


def container(kind: str = "containerStatuses", **more: Any) -> dict[str, Any]:
    return {kind: [{"name": "worker", **more}]}


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return container(state={"waiting": {"reason": reason, "message": message}}, **more)


GATED = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "has gates"}


@pytest.mark.parametrize(
    ("pods", "trouble"),
    [
        ([], None),
        ([pod()], None),
        ([pod(**waiting("ContainerCreating"))], None),
        ([pod(**container(state={"waiting": {}}))], None),
        ([pod(**container(state={"running": {}}))], None),
        (
            [pod(**container("initContainerStatuses", state={"terminated": {"exitCode": 0, "reason": "Completed"}}))],
            None,
        ),
        ([pod(**waiting("ImagePullBackOff", "no"))], ("ImagePullBackOff", "pod one, container worker: no")),
        ([pod(conditions=[GATED])], ("SchedulingGated", "pod one: has gates")),
        (
            [pod(conditions=[GATED]), pod("two", **waiting("ErrImagePull", "no"))],
            ("ErrImagePull", "pod two, container worker: no"),
        ),
        (
            [pod(**container(state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}))],
            ("OOMKilled", "pod one, container worker: ended with exit code 137 (OOMKilled)"),
        ),
        ([pod(**waiting("not a word!", "x"))], ("Waiting", "pod one, container worker: x")),
        (
            [pod(**waiting("CrashLoopBackOff", "wait", lastState={"terminated": {"exitCode": 1, "message": "a\n b"}}))],
            ("CrashLoopBackOff", "pod one, container worker: wait; ended with exit code 1 (Error): a b"),
        ),
    ],
)
def test_the_first_trouble_of_the_pods_is_told(pods: list[dict[str, Any]], trouble: tuple[str, str] | None) -> None:
    assert of_pods(pods) == trouble


def test_of_a_long_termination_message_the_end_is_copied() -> None:
    last = {"terminated": {"exitCode": 1, "message": "x" * 4000 + " the reason"}}
    found = of_pods([pod(**waiting("CrashLoopBackOff", "", lastState=last))])
    assert found is not None
    assert found[1].endswith("the reason")
    assert len(found[1]) < 700


def test_a_deployment_that_makes_no_pods_says_why_before_one_that_is_late() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}
    failed = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    assert of_deployment({"status": {"conditions": [late, failed]}}) == ("FailedCreate", "exceeded quota")
    assert of_deployment({"status": {"conditions": [late]}}) == ("ProgressDeadlineExceeded", "late")
    assert of_deployment({"status": {"conditions": [late | {"status": "True"}]}}) is None
    assert of_deployment(None) is None
