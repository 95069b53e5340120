"""`python -m benchmarks.operator [--jobs 2000]`: how long until all GoQueueJobs have a final status.

Needs KUBECONFIG of a cluster with our definitions, and rights to make namespaces; brings its own stores, worker and
scheduler. The bare client makes as many resources and two status patches each, in the same run; the target is 1.5 times
its time. Peak memory of the operator's process is printed.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.operator import bare
from goqueue_cli.embedded import EmbeddedPostgres, EmbeddedValkey
from goqueue_operator.access import find
from goqueue_operator.kube import JOBS, Kind, Kube

NAMESPACES: Final = Kind("", "v1", "namespaces")
TARGET: Final = 1.5
COUNTED: Final = 'apiserver_request_total{code="200",component="apiserver",dry_run="",group="goqueue.io",'


@contextlib.contextmanager
def system(namespace: str, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Stores, worker, scheduler and operator; yields the operator's process."""
    with (
        EmbeddedPostgres(folder / "postgres", ephemeral=True) as postgres,
        EmbeddedValkey(folder / "valkey", ephemeral=True) as valkey,
        contextlib.ExitStack() as stack,
    ):
        environment = os.environ | {
            "POSTGRES_HOST": postgres.host,
            "POSTGRES_PORT": str(postgres.port),
            "POSTGRES_USER": "goqueue",
            "POSTGRES_DB": "goqueue",
            "POSTGRES_PASSWORD": postgres.password,
            "GOQUEUE_REDIS_URL": valkey.url,
            "GOQUEUE_JOBS": "benchmarks.operator.jobs",
            "GOQUEUE_OPERATOR_NAMESPACE": namespace,
            "GOQUEUE_WORKER_HEALTH_PORT": "0",
            "GOQUEUE_SCHEDULER_HEALTH_PORT": "0",
            "GOQUEUE_OPERATOR_HEALTH_PORT": "0",
        }
        command = [sys.executable, "-c", "from goqueue_cli.main import main; main()"]
        subprocess.run([*command, "migrate"], env=environment, check=True, capture_output=True)
        processes = []
        for name in ("worker", "scheduler", "operator"):
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            processes.append(subprocess.Popen([*command, name], env=environment, stdout=log, stderr=log))
        try:
            yield processes[-1]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20)


def peak(pid: int) -> float:
    """Peak resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def status_patches(kube: Kube) -> float:
    """Status patches of GoQueueJobs that the API server has answered with 200 so far; 0 where it does not say."""
    async with kube._session.get(kube.access.server + "/metrics", headers=kube.access.headers()) as answer:
        lines = (await answer.text()).splitlines()
    wanted = ('resource="goqueuejobs"', 'subresource="status"', 'verb="PATCH"')
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith(COUNTED) and all(w in line for w in wanted)
    )


async def final(kube: Kube, namespace: str) -> int:
    """Resources that have ended."""
    states = [(item.get("status") or {}).get("state") async for item in kube.each(JOBS, namespace)]
    return sum(state == "completed" for state in states)


async def ready(kube: Kube, namespace: str) -> None:
    """Wait until the operator brings a job to its end."""
    warm = bare.resource(-1) | {"metadata": {"name": "warm"}}
    await kube.create(JOBS, namespace, warm)
    while not await final(kube, namespace):  # noqa: ASYNC110 - only Kubernetes knows
        await asyncio.sleep(0.1)
    await kube.request("DELETE", JOBS.path(namespace, "warm"))


async def measured(kube: Kube, namespace: str, jobs: int, at_once: int) -> tuple[float, float]:
    """Seconds until all were made, and until all had ended."""
    began = time.perf_counter()
    made = await bare.create(kube, namespace, jobs, at_once)
    while await final(kube, namespace) < jobs:
        if time.perf_counter() - began > 600:
            raise SystemExit(f"only {await final(kube, namespace)} of {jobs} ended within ten minutes")
        await asyncio.sleep(0.25)
    return made, time.perf_counter() - began


async def namespace(kube: Kube, name: str) -> str:
    """Make a namespace."""
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await kube.request("POST", NAMESPACES.path(), body)
    return name


async def main(jobs: int, at_once: int, rounds: int) -> int:
    """Measure; 1 where the target is missed."""
    kube = Kube(find(), at_once)
    ratios = []
    for _ in range(rounds):
        mark = uuid.uuid4().hex[:6]
        alone, served = await namespace(kube, f"bench-bare-{mark}"), await namespace(kube, f"bench-goqueue-{mark}")
        try:
            creates = await bare.create(kube, alone, jobs, at_once)
            patches = sum(
                [await bare.patch(kube, alone, jobs, at_once, state) for state in ("processing", "completed")]
            )
            with (
                tempfile.TemporaryDirectory(prefix="goqueue-bench-") as folder,
                system(served, Path(folder)) as process,
            ):
                await ready(kube, served)
                before = await status_patches(kube)
                made, done = await measured(kube, served, jobs, at_once)
                writes = (await status_patches(kube) - before) / jobs
                memory = peak(process.pid)
        finally:
            for name in (alone, served):
                await kube.request("DELETE", NAMESPACES.path(None, name))
        ratios.append(done / (creates + patches))
        print(
            f"{jobs} jobs\n"
            f"bare client: {creates:.1f} s of creates ({jobs / creates:.0f}/s),"
            f" {patches:.1f} s of status patches ({2 * jobs / patches:.0f}/s)\n"
            f"operator:    {made:.1f} s of creates, all ended after {done:.1f} s,"
            f" {writes:.2f} status writes a job, peak {memory:.0f} MiB\n"
            f"ratio:       {ratios[-1]:.2f} (target {TARGET})"
        )
    await kube.close()
    return 0 if sorted(ratios)[len(ratios) // 2] <= TARGET else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    sys.exit(asyncio.run(main(chosen.jobs, chosen.at_once, chosen.rounds)))
