"""GoQueue as it is installed for these tests, and the ways to it: REST through the ingress, kubectl, SQL."""

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.cluster import receiver
from tests.cluster.cluster import Cluster
from tests.cluster.installation import VALUES, Installation
from tests.cluster.shell import ClusterError
from tests.cluster.versions import CHECKOUT

NAMESPACE = "e2e"
RELEASE = "e2e"
OTHER = "e2e-other"
"""A namespace without GoQueue, which the operator serves as well."""

PODS = Path(__file__).parent / "pods"
SAMPLES = CHECKOUT / "manifests" / "samples"
FIGURES = CHECKOUT / ".build" / "e2e"
SECRET = "whsec_" + base64.b64encode(b"the secret of the test's webhooks").decode()
BUILT_IN = ("default", "email", "webhooks", "payment")
QUEUES = (*BUILT_IN, "work", "scale", "grow", "shared")
EACH_MINUTE = "each-minute"
Object = dict[str, Any]
Found = TypeVar("Found")


def pools() -> Mapping[str, Any]:
    """`default` for the built-in queues; `work`, `scale` and `grow`, whose pods run one job at a time; `shared`, whose
    pods run five."""
    quick = {"scaling": {"scaleDownWindowSeconds": 5}}
    single = {"concurrency": 1, "minReplicas": 0, "maxReplicas": 4}
    return {
        "default": {
            "queues": list(BUILT_IN),
            "minReplicas": 0,
            "maxReplicas": 3,
            "spec": quick,
        },
        "work": {"queues": ["work"], "spec": quick, **single},
        "grow": {"queues": ["grow"], "spec": quick, **single, "maxReplicas": 30},
        "shared": {"queues": ["shared"], "spec": quick, **single, "concurrency": 5},
        "scale": {"queues": ["scale"], "spec": {"scaling": quick["scaling"] | {"targetWaitSeconds": 5}}, **single},
    }


def values() -> dict[str, Any]:
    """Values of the release under test."""
    settings = receiver.VALUES["settings"]
    return {
        **VALUES,
        **receiver.VALUES,
        "workerPools": pools(),
        "extraEnv": [
            {"name": "PYTHONPATH", "value": "/opt/goqueue/app:/opt/goqueue/dependencies:/etc/e2e"},
            {"name": "GOQUEUE_JOBS", "value": "e2e_jobs"},
        ],
        "extraVolumes": [{"name": "e2e", "configMap": {"name": "e2e"}}],
        "extraVolumeMounts": [{"name": "e2e", "mountPath": "/etc/e2e", "readOnly": True}],
        "postgresql": {"persistence": {"size": "1Gi"}},
        "settings": {
            **settings,
            "engine": {"queues": list(QUEUES)},
            "operator": {**settings["operator"], "clusterWide": True},
            "webhook": {**settings["webhook"], "secrets": [SECRET]},
        },
    }


def until(what: str, ask: Callable[[], Found | None], timeout: float, every: float = 0.2) -> Found:
    """The first answer that is one (not None, not False).

    Raises:
        AssertionError: there was none within `timeout` seconds; names `what`.
    """
    end = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(every)


@dataclass
class System:
    """The installation under test."""

    installation: Installation
    rest: httpx.Client
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        """The cluster it is on."""
        return self.installation.cluster

    # --- REST ---------------------------------------------------------------------------------------------------------

    def enqueue(self, payload: Mapping[str, Any] | None = None, **order: Any) -> int:
        """Make a job of type `work`, or as `order` says; its id."""
        body = {"queue": "work", "type": "work", "payload": payload or {}, **order}
        answer = self.rest.post("/jobs/create", json=body)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def job(self, id: int) -> Object:
        """A job, as REST shows it."""
        answer = self.rest.get(f"/jobs/{id}")
        assert answer.status_code == 200, answer.text
        job: Object = answer.json()
        return job

    def status(self, id: int, *wanted: str, timeout: float = 30) -> Object:
        """Wait until a job has one of these states."""

        def there() -> Object | None:
            job = self.job(id)
            assert job["status"] in wanted or job["finished_at"] is None, job
            return job if job["status"] in wanted else None

        return until(f"job {id} to be {' or '.join(wanted)}", there, timeout)

    def cancel(self, *ids: int) -> None:
        """Cancel jobs, and wait until they have ended."""
        for id in ids:
            self.rest.post(f"/jobs/{id}/cancel")
        for id in ids:
            until(f"job {id} to end", lambda id=id: self.job(id)["finished_at"], 60)  # type: ignore[misc]

    # --- SQL ----------------------------------------------------------------------------------------------------------

    def sql(self, query: str) -> list[list[str]]:
        """Rows of a query, in the PostgreSQL pod; a NULL is an empty text."""
        command = ("exec", f"{RELEASE}-goqueue-postgresql-0", "--", "psql", "-U", "goqueue", "-AtF", "\t", "-c", query)
        return [line.split("\t") for line in self.kubectl(*command).splitlines()]

    def number(self, query: str) -> int:
        """The one number that a query gives."""
        return int(self.sql(query)[0][0])

    def worker_of(self, id: int) -> str | None:
        """The pod that runs a job now."""
        rows = self.sql(f"SELECT name FROM workers WHERE id = (SELECT worker_id FROM jobs WHERE id = {id:d})")  # noqa: S608 - numbers and names of the test itself
        return rows[0][0].rpartition("-")[0] if rows else None

    # --- Kubernetes ---------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: Any = None, timeout: float = 60) -> str:
        """Run kubectl in the installation's namespace; `-n` names another one. `stdin`: an object, as JSON."""
        given = None if stdin is None else json.dumps(stdin).encode()
        place = () if "-n" in arguments else ("-n", NAMESPACE)
        return self.cluster.kubectl(*place, *arguments, stdin=given, timeout=timeout)

    def apply(self, *objects: Object, namespace: str = NAMESPACE) -> None:
        """Apply objects."""
        self.kubectl("-n", namespace, "apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": objects})

    def refusal(self, body: Object) -> str:
        """Why an object is refused when it is applied.

        Raises:
            AssertionError: it is not.
        """
        command = [self.cluster.tools.kubectl, "--kubeconfig", self.cluster.kubeconfig, "-n", NAMESPACE]
        done = subprocess.run(
            [*map(str, command), "apply", "-f", "-"],
            input=json.dumps(body).encode(),
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode, f"accepted: {body}"
        return done.stderr.decode()

    def get(self, kind: str, name: str, namespace: str = NAMESPACE) -> Object:
        """One object."""
        found: Object = json.loads(self.kubectl("-n", namespace, "get", kind, name, "-o", "json"))
        return found

    def items(self, kind: str, *, labels: str = "", namespace: str = NAMESPACE) -> list[Object]:
        """Objects of a kind."""
        listed = self.kubectl("-n", namespace, "get", kind, "-l", labels, "-o", "json")
        found: list[Object] = json.loads(listed)["items"]
        return found

    def wait(self, condition: str, *what: str, seconds: int = 60, namespace: str = NAMESPACE) -> None:
        """`kubectl wait` for a condition, e.g. `condition=Succeeded`, `delete`."""
        wait = ("wait", f"--for={condition}", f"--timeout={seconds}s")
        self.kubectl("-n", namespace, *wait, *what, timeout=seconds + 10)

    def rolled_out(self, *what: str, seconds: int = 90) -> None:
        """Wait until Deployments or StatefulSets are as they should be."""
        for one in what:
            self.kubectl("rollout", "status", one, f"--timeout={seconds}s", timeout=seconds + 10)

    def pods(self, component: str) -> list[str]:
        """Names of the pods of a part that are not about to end."""
        labels = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={component}"
        return [
            pod["metadata"]["name"]
            for pod in self.items("pods", labels=labels)
            if not pod["metadata"].get("deletionTimestamp")
        ]

    def workers(self, pool: str) -> list[str]:
        """Names of the pods of a worker pool that are not about to end."""
        pods = self.items("pods", labels=f"goqueue.io/pool={RELEASE}-goqueue-{pool}")
        return [pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def pin(self, pool: str, replicas: int | None) -> None:
        """Give a pool a number of pods by hand, as `kubectl scale` does, or leave it to the operator again."""
        patch = json.dumps({"spec": {"replicas": replicas}})
        self.kubectl("patch", "gqp", f"{RELEASE}-goqueue-{pool}", "--type=merge", "-p", patch)

    def pool_has(self, pool: str, replicas: int, *, timeout: float = 60) -> None:
        """Wait until a pool has so many pods, all of them ready."""
        name = f"{RELEASE}-goqueue-{pool}"

        def there() -> bool:
            status = self.get("gqp", name).get("status") or {}
            return len(self.workers(pool)) == replicas == (status.get("readyReplicas") or 0)

        until(f"{replicas} pods of pool {pool}", there, timeout, 0.5)

    def lease_holder(self) -> str:
        """The pod of the operator that leads."""
        lease = self.get("lease", f"{RELEASE}-goqueue-operator")
        return str(lease["spec"].get("holderIdentity") or "").rpartition("-")[0]

    def received(self) -> dict[str, list[Object]]:
        """What the receiver has got, by `mail` and `http`."""
        return receiver.received(self.cluster, NAMESPACE)

    # --- figures ------------------------------------------------------------------------------------------------------

    def note(self, name: str, figure: Any) -> None:
        """Keep a measurement: on standard output, and in .build/e2e/figures.json."""
        self.figures[name] = figure
        FIGURES.mkdir(parents=True, exist_ok=True)
        (FIGURES / "figures.json").write_text(json.dumps(self.figures, indent=1) + "\n")
        print(f"{name}: {json.dumps(figure)}")

    def describe(self, folder: Path) -> None:
        """Keep what there is now: resources, events, and the end of each container's output."""
        folder.mkdir(parents=True, exist_ok=True)

        def keep(name: str, *arguments: str) -> None:
            with contextlib.suppress(ClusterError, OSError):
                (folder / f"{name}.txt").write_text(self.kubectl(*arguments, timeout=20))

        keep("resources", "get", "all,gqj,gqs,gqp", "-o", "wide")
        keep("resources-in-full", "get", "pods,deployments,gqj,gqs,gqp", "-o", "yaml")
        keep("events", "get", "events", "-A", "--sort-by=.lastTimestamp")
        labels = f"app.kubernetes.io/name=goqueue,app.kubernetes.io/instance={RELEASE}"
        logs = ("logs", "-l", labels, "--all-containers", "--prefix", "--tail=1000", "--max-log-requests=60")
        keep("logs", *logs, "--timestamps", "--ignore-errors")


def gqj(name: str, payload: Mapping[str, Any] | None = None, **spec: Any) -> Object:
    """A GoQueueJob of type `work`, or as `spec` says."""
    return {
        "apiVersion": "goqueue.io/v1alpha1",
        "kind": "GoQueueJob",
        "metadata": {"name": name, "labels": {"app": "e2e"}},
        "spec": {"queue": "work", "type": "work", "payload": payload or {}, **spec},
    }


def each_minute() -> Object:
    """The GoQueueSchedule that the test of schedules looks at; its jobs are none of the other tests' business."""
    template = {"spec": {"queue": "default", "type": "work", "payload": {}}}
    body = gqj(EACH_MINUTE) | {"kind": "GoQueueSchedule"}
    return body | {"spec": {"cron": "* * * * *", "jobTemplate": template}}
