"""Resources made to harm: the operator refuses each in its status, goes on with the others, and tells no secret."""

import asyncio
import json
from typing import Any

import pytest

from goqueue.builtin import SEND_EMAIL
from tests.fuzz.inputs import nested
from tests.integration.engine import eventually
from tests.integration.operator.conftest import World

pytestmark = pytest.mark.asyncio

PODS: dict[str, dict[str, Any]] = {
    "number": {"securityContext": {"capabilities": 5}},
    "null": {"containers": [{"name": "worker", "securityContext": {"seccompProfile": None, "capabilities": []}}]},
    "name": {"volumes": [{"name": {"a": "b"}}]},
    "deep": {"affinity": {"a": nested(400)}},
}
SECRET = "correct-horse-battery-staple"


async def test_the_operator_goes_on_whatever_a_pool_or_a_job_holds(world: World) -> None:
    async with world.operator(scale_seconds=0.3), world.engine.worker():
        for name, pod in PODS.items():
            await world.make("GoQueueWorkerPool", name, {"podTemplate": {"spec": pod}})
        endless = [{"name": "GOQUEUE_WORKER_GRACE_SECONDS", "value": "inf"}]
        await world.make("GoQueueWorkerPool", "endless", {"env": endless})
        await world.job("deep", payload={"a": nested(400)})
        template = {"spec": {"queue": "default", "type": "echo", "payload": {"a": nested(400)}}}
        await world.make("GoQueueSchedule", "deep", {"cron": "0 0 1 1 *", "jobTemplate": template})
        await world.job("nul", payload={"a": "\x00"})
        for name in ("deep", "nul"):
            assert "invalid json" in (await world.state(name, "failed"))["error"]

        async def told() -> bool:
            return "InvalidJson" in str((await world.get("gqs", "deep")).get("status"))

        await eventually(told)
        for name in PODS:

            async def refused(name: str = name) -> bool:
                return bool(((await world.get("gqp", name)).get("status") or {}).get("reason"))

            await eventually(refused)

        async def made() -> list[str]:
            return (await world.kubectl("get", "deployments", "-o", "name")).split()

        assert await eventually(made) == ["deployment.apps/endless"]
        await world.job("plain")
        await world.state("plain", "completed")


async def test_no_content_of_a_secret_is_shown_by_describe_or_an_event(world: World) -> None:
    contents = {
        "broken": f"{SECRET} is no JSON",
        "wrong": json.dumps({"to": SECRET, "subject": "Hi", "body": "Hello"}),
        "deep": json.dumps({"a": nested(100), "b": SECRET}),
        "fine": json.dumps({"to": "ada@example.org", "subject": SECRET, "body": SECRET}),
    }
    world.engine.registry.add(SEND_EMAIL)
    async with world.operator():
        for name, text in contents.items():
            labels = {"goqueue.io/payload": "true"}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}}
            await world.kubectl("create", "-f", "-", stdin=secret | {"stringData": {"payload": text}})
        hidden = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "hidden"},
            "stringData": {"payload": SECRET},
        }
        await world.kubectl("create", "-f", "-", stdin=hidden)
        for name in (*contents, "hidden"):
            source = {"secretKeyRef": {"name": name, "key": "payload"}}
            job = {"queue": "default", "type": "send_email", "payloadFrom": source}
            await world.make("GoQueueJob", name, job)
            template = {"cron": "* * * * *", "jobTemplate": {"spec": job}}
            await world.make("GoQueueSchedule", name, template)
        assert (await world.state("wrong", "failed"))["error"]
        await world.state("fine", "pending")
        for name, reason in (("broken", "NotReadable"), ("deep", "NotReadable"), ("hidden", "NotAllowed")):
            assert (await world.state(name, "waiting"))["conditions"][0]["reason"] == f"Payload{reason}"
        shown = [await world.kubectl("describe", "gqj,gqs,gqp,deployments,pods")]
        shown += [
            await world.kubectl("get", "gqj,gqs,events", "-o", "yaml"),
            await world.kubectl("get", "events", "-o", "wide"),
        ]
    assert "payload validation failed" in "".join(shown)
    assert not [text for text in shown if SECRET in text]
    # The row of the one that was accepted does hold it.
    assert SECRET in str(await world.engine.rows("SELECT payload FROM jobs"))


async def test_the_payload_of_a_job_cannot_come_from_another_namespace_or_an_unlabelled_secret(world: World) -> None:
    other = f"{world.namespace}-other"
    await asyncio.to_thread(world.kubernetes, "create", "namespace", other)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "theirs", "labels": {"goqueue.io/payload": "true"}},
        "stringData": {"payload": "{}"},
    }
    await asyncio.to_thread(world.kubernetes, "-n", other, "create", "-f", "-", stdin=secret)
    async with world.operator(cluster_wide=True):
        for number, name in enumerate(("theirs", f"../{other}/theirs", f"..%2f{other}%2ftheirs", f"{other}/theirs")):
            body = {
                "apiVersion": "goqueue.io/v1alpha1",
                "kind": "GoQueueJob",
                "metadata": {"name": f"steal-{number}"},
                "spec": {
                    "queue": "default",
                    "type": "echo",
                    "payloadFrom": {"secretKeyRef": {"name": name, "key": "payload"}},
                },
            }
            made = await asyncio.to_thread(world.kubernetes.run, "-n", world.namespace, "create", "-f", "-", stdin=body)
            if made.returncode == 0:
                status = await world.state(f"steal-{number}", "waiting", "failed")
                assert status["conditions"][0]["reason"] == "PayloadNotFound", name
            else:
                assert "payloadFrom" in made.stderr, made.stderr
    assert await world.engine.rows("SELECT id FROM jobs") == []
    await asyncio.to_thread(world.kubernetes, "delete", "namespace", other, "--wait=false")
