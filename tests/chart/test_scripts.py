"""The scripts that the chart runs in the cluster, against an API server in memory."""

import importlib
import json
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.chart.chart import CHART

SCRIPTS = CHART / "files" / "scripts"
POOLS = "apis/goqueue.io/v1alpha1/namespaces/jobs/goqueueworkerpools"
JOBS = "apis/goqueue.io/v1alpha1/namespaces/jobs/goqueuejobs"
PODS = {"app.kubernetes.io/name": "goqueue", "app.kubernetes.io/instance": "goqueue"}
MINE = {"goqueue.io/release": "goqueue"}
Object = dict[str, Any]
NONE: Object = {}


class Clock:
    """The scripts' time: it passes where they sleep, however long this machine takes for what they do."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


SECONDS = 5.0
"""How long a cleanup may take."""


class Cluster:
    """Objects by path, with as much of the API as the scripts use."""

    def __init__(self, kube: ModuleType) -> None:
        self.kube = kube
        self.clock = Clock()
        self.objects: dict[str, Object] = {}
        self.calls: list[str] = []
        self.refuse: dict[str, Exception] = {}
        """Start of "METHOD path" → what is raised."""

    def add(self, collection: str, name: str, labels: Object = NONE, finalizers: Sequence[str] = ()) -> None:
        metadata: Object = {"name": name, "namespace": "jobs", "labels": labels, "resourceVersion": "1"}
        if finalizers:
            metadata["finalizers"] = list(finalizers)
        self.objects[f"{collection}/{name}"] = {"metadata": metadata}

    def call(self, method: str, target: str, body: Any = None, *, kind: str = "", timeout: float = 10) -> Any:
        self.calls.append(f"{method} {target}")
        for start, error in self.refuse.items():
            if f"{method} {target}".startswith(start):
                raise error
        url = urlsplit(target)
        query = parse_qs(url.query)
        if method == "GET":
            if url.path in self.objects:
                return self.objects[url.path]
            wanted = dict(pair.split("=") for pair in query.get("labelSelector", [""])[0].split(",") if pair)
            found = [one for path, one in sorted(self.objects.items()) if path.rsplit("/", 1)[0] == url.path]
            found = [one for one in found if wanted.items() <= one["metadata"]["labels"].items()]
            first = int(query.get("continue", ["0"])[0])
            last = first + int(query.get("limit", ["500"])[0])
            return {"items": found[first:last], "metadata": {"continue": str(last)} if last < len(found) else {}}
        if method == "DELETE":
            if self.objects.pop(url.path, None) is None:
                raise self.kube.Refused(404, "not found")
            return {}
        if method == "PATCH" and kind == "application/apply-patch+yaml":
            self.objects[url.path] = body
            return {**body, "metadata": {**body["metadata"], "uid": "1"}}
        elif method == "PATCH" and "finalizers" in body.get("metadata", {}):
            self.objects[url.path]["metadata"]["finalizers"] = body["metadata"]["finalizers"] or []
        return {}


@pytest.fixture(name="cluster")
def _cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    kube = importlib.import_module("kube")
    cluster = Cluster(kube)
    monkeypatch.setattr(kube, "call", cluster.call)
    monkeypatch.setattr("time.sleep", cluster.clock.sleep)
    monkeypatch.setattr("time.monotonic", lambda: cluster.clock.now)
    told = {"NAMESPACE": "jobs", "OPERATOR": "goqueue-operator", "CLUSTER_WIDE": "false"}
    for name, labels in (("LABELS", PODS), ("POOL_LABEL", MINE)):
        told[name] = ",".join(f"{key}={value}" for key, value in labels.items())
    for name, value in {**told, "SECONDS": str(SECONDS)}.items():
        monkeypatch.setenv(name, value)
    yield cluster
    sys.modules.pop("kube", None)


def clean_up() -> None:
    runpy.run_path(str(SCRIPTS / "cleanup.py"), run_name="__main__")


def test_cleanup_deletes_the_pools_of_the_release_only(cluster: Cluster) -> None:
    cluster.add(POOLS, "goqueue-default", MINE)
    cluster.add(POOLS, "somebody-elses")
    clean_up()
    assert set(cluster.objects) == {f"{POOLS}/somebody-elses"}


def test_cleanup_takes_its_own_finalizers_and_leaves_others(cluster: Cluster) -> None:
    cluster.add(JOBS, "one", finalizers=["goqueue.io/job"])
    cluster.add(JOBS, "two", finalizers=["goqueue.io/job", "example.com/other"])
    clean_up()
    assert cluster.objects[f"{JOBS}/one"]["metadata"]["finalizers"] == []
    assert cluster.objects[f"{JOBS}/two"]["metadata"]["finalizers"] == ["example.com/other"]


def test_cleanup_stops_the_operator_before_it_takes_finalizers(cluster: Cluster) -> None:
    cluster.add(JOBS, "one", finalizers=["goqueue.io/job"])
    clean_up()
    scale = next(n for n, call in enumerate(cluster.calls) if "goqueue-operator/scale" in call)
    patch = next(n for n, call in enumerate(cluster.calls) if call.startswith(f"PATCH {JOBS}"))
    assert scale < patch


def test_cleanup_sees_all_pages(cluster: Cluster) -> None:
    for number in range(1234):
        cluster.add(JOBS, f"job-{number}", finalizers=["goqueue.io/job"])
    clean_up()
    assert not any(one["metadata"]["finalizers"] for one in cluster.objects.values())


FAILURES = [f"DELETE {POOLS}", "PATCH apis/apps", "GET api/v1", f"PATCH {JOBS}", f"GET {POOLS}"]


@pytest.mark.parametrize("failing", FAILURES)
@pytest.mark.parametrize("error", [OSError("no route"), "refused"], ids=["away", "refused"])
def test_cleanup_ends_well_whatever_fails(
    cluster: Cluster, failing: str, error: Exception | str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.add(POOLS, "goqueue-default", MINE, ["goqueue.io/pool"])
    cluster.add(JOBS, "one", finalizers=["goqueue.io/job"])
    cluster.refuse[failing] = error if isinstance(error, Exception) else cluster.kube.Refused(500, error)
    clean_up()
    assert "could not" in capsys.readouterr().out
    if failing != f"PATCH {JOBS}":  # the other steps were taken
        assert not cluster.objects[f"{JOBS}/one"]["metadata"]["finalizers"]


def test_cleanup_ends_in_time_where_a_pool_does_not_go(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.add(POOLS, "goqueue-default", MINE, ["goqueue.io/pool"])
    call, began = cluster.call, cluster.clock.now

    def deaf(method: str, target: str, *rest: Any, **more: Any) -> Any:
        return {} if method == "DELETE" else call(method, target, *rest, **more)

    monkeypatch.setattr(cluster.kube, "call", deaf)
    clean_up()
    assert cluster.objects[f"{POOLS}/goqueue-default"]["metadata"]["finalizers"] == []
    assert 0 < cluster.clock.now - began <= SECONDS


def pool(name: str) -> Object:
    return {"metadata": {"name": name, "labels": MINE}, "spec": {}}


def apply_pools(pools: list[Object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pools.json").write_text(json.dumps(pools))
    monkeypatch.setenv("POOLS", str(tmp_path / "pools.json"))
    runpy.run_path(str(SCRIPTS / "pools.py"), run_name="__main__")


def test_pools_are_applied_and_those_that_left_deleted(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster.add(POOLS, "goqueue-old", MINE)
    cluster.add(POOLS, "somebody-elses")
    apply_pools([pool("goqueue-new")], monkeypatch, tmp_path)
    assert set(cluster.objects) == {f"{POOLS}/goqueue-new", f"{POOLS}/somebody-elses"}


def test_pools_wait_for_their_kind(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = [cluster.kube.Refused(404, "no such kind")] * 3
    call = cluster.call

    def late(method: str, target: str, *rest: Any, **more: Any) -> Any:
        if answers:
            raise answers.pop()
        return call(method, target, *rest, **more)

    monkeypatch.setattr(cluster.kube, "call", late)
    apply_pools([pool("goqueue-new")], monkeypatch, tmp_path)
    assert f"{POOLS}/goqueue-new" in cluster.objects


def test_a_pool_that_kubernetes_refuses_fails_the_job_once_the_others_are_applied(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.add(POOLS, "goqueue-old", MINE)
    cluster.refuse[f"PATCH {POOLS}/goqueue-bad"] = cluster.kube.Refused(422, "spec.queues: unknown")
    with pytest.raises(SystemExit, match="1 of 2 worker pools are refused"):
        apply_pools([pool("goqueue-bad"), pool("goqueue-good")], monkeypatch, tmp_path)
    assert set(cluster.objects) == {f"{POOLS}/goqueue-good"}
    assert "worker pool goqueue-bad is refused: 422: spec.queues: unknown" in capsys.readouterr().out
