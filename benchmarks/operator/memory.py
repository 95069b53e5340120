"""`python -m benchmarks.operator.memory [--ended 25000] [--open 5000] [--kilobytes 100]`: memory of the operator.

Needs KUBECONFIG of a cluster with our definitions, and ETCD, the address of its etcd without TLS:
`python -m tests.integration.operator.apiserver` runs one and prints both. Open jobs with payloads of that size and
ended ones are put into etcd as the API server stores them, the open ones with their rows, and an operator is started.
Printed are the peak of its resident memory and the seconds from its start until it has made a first decision about a
pool, until it has accepted a job made meanwhile, and until it has read all. The target: 256 MiB, 5 s.
"""

import argparse
import asyncio
import base64
import contextlib
import functools
import os
import sys
import tempfile
import time
import uuid
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import psycopg

from benchmarks.operator.__main__ import namespace, peak
from benchmarks.stores import stores
from goqueue_cli.embedded import free_port
from goqueue_operator.access import find
from goqueue_operator.crds.schema import API_VERSION, GROUP
from goqueue_operator.kube import DEPLOYMENTS, JOBS, POOLS, Kube, KubeUnavailable, Object
from goqueue_operator.rows import key_of

MEMORY: Final = 256.0
"""Target of the peak in MiB."""
SECONDS: Final = 5.0
"""Target of the seconds until the first decision."""
COMPARISON: Final = 70
"""Seconds within which the operator compares all resources with their rows once more."""
ROWS: Final = """
INSERT INTO jobs (queue, type, payload, available_at, dispatch_at, source, source_key)
SELECT 'email', 'send_email', '{}', '2099-01-01', '2099-01-01', 'kubernetes', key
FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS given (key, place) ORDER BY place
RETURNING id
"""
LATER: Final = "2099-01-01T00:00:00Z"


def resource(kind: str, name: str, spec: dict[str, Any]) -> Object:
    """One of our resources."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def job(name: str, size: int) -> Object:
    """A job that waits for decades, with a payload of so many bytes."""
    payload = {"to": "ada@example.org", "subject": "Report", "body": "x" * size}
    return resource("GoQueueJob", name, {"queue": "email", "payload": payload, "availableAt": LATER})


def pool(name: str) -> Object:
    """A pool of one worker."""
    return resource("GoQueueWorkerPool", name, {"queues": ["email"], "minReplicas": 1, "maxReplicas": 2})


def ended(number: int) -> Object:
    """The status of a job that has completed, as the operator writes it."""
    since = {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}
    conditions = [
        since | {"type": "Accepted", "status": "True", "reason": "Accepted", "message": f"job {number}"},
        since | {"type": "Running", "status": "False", "reason": "Ended", "message": "ended after attempt 1"},
        since | {"type": "Succeeded", "status": "True", "reason": "Completed", "message": "completed in attempt 1"},
    ]
    return {
        "observedGeneration": 1,
        "jobID": number,
        "attempts": 1,
        "state": "completed",
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "result": {"sent": True},
        "conditions": conditions,
    }


@contextlib.asynccontextmanager
async def operator(environment: dict[str, str], log: Path) -> AsyncIterator[Process]:
    """An operator process."""
    command = [sys.executable, "-c", "from goqueue_cli.main import main; main()", "operator"]
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.terminate()
            await process.wait()


async def held(port: int) -> dict[str, float]:
    """The gauge of resources of the running operator; empty where it does not lead yet."""
    with contextlib.suppress(httpx.HTTPError):
        async with httpx.AsyncClient() as client:
            lines = (await client.get(f"http://127.0.0.1:{port}/metrics")).text.splitlines()
        found = [line for line in lines if line.startswith("goqueue_operator_resources{")]
        return {line.partition('state="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in found}
    return {}


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Wait until something is true, for at most an hour."""
    async with asyncio.timeout(3600):
        while not await condition():  # noqa: ASYNC110 - only the operator and Kubernetes know
            await asyncio.sleep(0.1)


async def served(kube: Kube, place: str, count: int) -> bool:
    """Whether the API server has taken up all that was put into etcd."""
    try:
        page = await kube.request("GET", JOBS.path(place), limit="1")
    except KubeUnavailable:
        return False
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0)) == count


async def accepted(kube: Kube, place: str, name: str) -> bool:
    """Whether a GoQueueJob has a row."""
    return "jobID" in ((await kube.get(JOBS, place, name)).get("status") or {})


def stored(place: str, body: Object, status: Object, uid: str) -> tuple[str, bytes]:
    """Key and value of a resource in etcd."""
    made = "2026-01-01T00:00:00Z"
    spec: Object = {
        "f:queue": {},
        "f:payload": {".": {}, "f:to": {}, "f:subject": {}, "f:body": {}},
        "f:availableAt": {},
    }
    shown: Object = {f"f:{name}": {} for name in status}
    common = {"apiVersion": API_VERSION, "fieldsType": "FieldsV1", "time": made}
    fields = [
        common | {"manager": "kubectl-create", "operation": "Update", "fieldsV1": {"f:spec": {".": {}} | spec}},
        common
        | {"manager": "goqueue-operator", "operation": "Update", "subresource": "status"}
        | {"fieldsV1": {"f:status": {".": {}} | shown}},
    ]
    metadata = {
        "name": body["metadata"]["name"],
        "namespace": place,
        "uid": uid,
        "creationTimestamp": made,
        "generation": 1,
        "managedFields": fields,
    }
    key = f"/registry/{GROUP}/{JOBS.plural}/{place}/{metadata['name']}"
    return key, orjson.dumps(body | {"metadata": metadata, "status": status})


async def put(etcd: str, objects: Iterable[tuple[str, bytes]]) -> None:
    """Write objects to etcd, a MiB at once."""
    async with httpx.AsyncClient(timeout=60) as client:
        puts: list[Object] = []
        size = 0

        async def flush() -> None:
            if puts:
                (await client.post(f"{etcd}/v3/kv/txn", json={"success": puts})).raise_for_status()
                puts.clear()

        for key, value in objects:
            text = base64.b64encode(value).decode()
            puts.append({"requestPut": {"key": base64.b64encode(key.encode()).decode(), "value": text}})
            size += len(value)
            if size > 2**20 or len(puts) >= 100:
                await flush()
                size = 0
        await flush()


def open_status(number: int) -> Object:
    """The status of a job that waits."""
    since = {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}
    conditions = [
        since | {"type": "Accepted", "status": "True", "reason": "Accepted", "message": f"job {number}"},
        since | {"type": "Running", "status": "False", "reason": "Waiting", "message": "waits for a worker"},
    ]
    return {"observedGeneration": 1, "jobID": number, "attempts": 0, "state": "pending", "conditions": conditions}


async def rows(dsn: str, place: str, uids: list[str]) -> list[int]:
    """Ids of new rows that wait, one for each resource."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        found = await connection.execute(ROWS, {"keys": [key_of(uid, place) for uid in uids]})
        return [row[0] for row in await found.fetchall()]


async def first_decisions(kube: Kube, place: str, began: float) -> tuple[float, float]:
    """Seconds until the pool has its Deployment, and until a job that was just made has its row."""

    async def decided() -> float:
        await until(lambda: kube.find(DEPLOYMENTS, place, "after"))
        return time.perf_counter() - began

    async def taken() -> float:
        await until(lambda: accepted(kube, place, "zz-after"))
        return time.perf_counter() - began

    await kube.create(POOLS, place, pool("after"))
    await kube.create(JOBS, place, job("zz-after", 10))
    return tuple(await asyncio.gather(decided(), taken()))  # type: ignore[return-value]


async def main(etcd: str, ended_jobs: int, open_jobs: int, size: int, ended_size: int) -> int:
    """Measure; 1 where the target is missed."""
    kube = Kube(find())
    place = await namespace(kube, f"memory-{uuid.uuid4().hex[:6]}")
    with stores(fsync=False) as (dsn, settings), tempfile.TemporaryDirectory(prefix="goqueue-memory-") as folder:
        uids = [str(uuid.uuid4()) for _ in range(open_jobs)]
        known = zip(await rows(dsn, place, uids), uids, strict=True)
        await put(etcd, (stored(place, job(f"open-{id}", size), open_status(id), uid) for id, uid in known))
        names = ((id, job(f"ended-{id}", ended_size)) for id in range(ended_jobs))
        await put(etcd, (stored(place, body, ended(10**9 + id), str(uuid.uuid4())) for id, body in names))
        await until(functools.partial(served, kube, place, open_jobs + ended_jobs))
        port = free_port()
        environment = os.environ | settings
        environment |= {"GOQUEUE_OPERATOR_NAMESPACE": place, "GOQUEUE_OPERATOR_HEALTH_PORT": str(port)}
        environment |= {"GOQUEUE_OPERATOR_IMAGE": "goqueue:1"}
        log = Path(folder) / "operator.log"
        began = time.perf_counter()
        async with operator(environment, log) as process:
            decided, taken = await first_decisions(kube, place, began)
            print(f"pool decided after {decided:.1f} s, job accepted after {taken:.1f} s", flush=True)

            async def all_read() -> bool:
                return sum((await held(port)).values()) >= ended_jobs + open_jobs + 1

            await until(all_read)
            read = time.perf_counter() - began
            print(f"{open_jobs} open and {ended_jobs} ended read after {read:.1f} s", flush=True)
            print(f"{peak(process.pid):.0f} MiB peak", flush=True)
            await asyncio.sleep(COMPARISON)
            memory = peak(process.pid)
            print(f"{memory:.0f} MiB peak after {COMPARISON} s more", flush=True)
        if warnings := log.read_text():
            print(warnings[-2000:], file=sys.stderr)
    await kube.close()
    kept = memory <= MEMORY and max(decided, taken) <= SECONDS
    print(f"target {MEMORY:.0f} MiB, {SECONDS:.0f} s: {'met' if kept else 'missed'}")
    return 0 if kept else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ended", type=int, default=25_000)
    parser.add_argument("--open", type=int, default=5_000)
    parser.add_argument("--kilobytes", type=int, default=100, help="payload of an open one")
    parser.add_argument("--ended-kilobytes", type=int, default=1, help="payload of an ended one")
    chosen = parser.parse_args()
    sizes = chosen.kilobytes * 1000, chosen.ended_kilobytes * 1000
    sys.exit(asyncio.run(main(os.environ["ETCD"], chosen.ended, chosen.open, *sizes)))
