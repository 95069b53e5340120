"""`helm test`: one job by REST and, where there is an operator, one by a GoQueueJob; both must come to their end.

The job calls a webhook at an address that no worker may or can reach, once. So it ends as `failed`, on every
installation and without a trace elsewhere, and only after API, PostgreSQL, Redis and a worker had it in hand.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import kube

API = os.environ["API"]
KEY = os.environ.get("API_KEY", "")
NAMESPACE = os.environ["NAMESPACE"]
QUEUE = os.environ["QUEUE"]
OPERATOR = os.environ["OPERATOR"] == "true"
DEADLINE = time.monotonic() + float(os.environ["SECONDS"])
PAYLOAD = {"url": "http://127.0.0.1:9/helm-test", "method": "POST", "body": {"from": "helm test"}, "timeout": 1}
FINAL = ("completed", "failed", "cancelled")


def main() -> None:
    """Both ways, one after the other."""
    _show("by REST", by_rest())
    if OPERATOR:
        _show("by GoQueueJob", by_resource())


def by_rest() -> str:
    """Create a job and follow it."""
    request = {"queue": QUEUE, "type": "send_webhook", "payload": PAYLOAD, "max_retries": 0}
    created: dict[str, Any] = _until("the API to accept a job", lambda: _rest("POST", "/jobs/create", request))
    print(f"job {created['id']} accepted", flush=True)

    def ended() -> dict[str, Any] | None:
        job: dict[str, Any] = _rest("GET", f"/jobs/{created['id']}")
        return job if job["status"] in FINAL else None

    job: dict[str, Any] = _until("the job to end (is a worker running?)", ended)
    if job["attempts"] < 1:
        raise SystemExit(f"the job ended without any attempt: {job}")
    return f"{job['status']} after {job['attempts']} attempt ({job.get('error') or 'no error'})"


def by_resource() -> str:
    """The same by the Kubernetes API; the resource is deleted at the end."""
    jobs = f"{kube.VERSION}/namespaces/{NAMESPACE}/goqueuejobs"
    made = kube.call(
        "POST",
        jobs,
        {
            "apiVersion": f"{kube.GROUP}/v1alpha1",
            "kind": "GoQueueJob",
            "metadata": {"generateName": "helm-test-"},
            "spec": {"queue": QUEUE, "type": "send_webhook", "payload": PAYLOAD, "maxRetries": 0},
        },
    )
    name = made["metadata"]["name"]
    print(f"GoQueueJob {name} created", flush=True)

    def ended() -> str | None:
        status = kube.call("GET", f"{jobs}/{name}").get("status") or {}
        for condition in status.get("conditions", []):
            if condition["type"] in ("Succeeded", "Failed", "Cancelled") and condition["status"] == "True":
                return f"{condition['type']}: {condition.get('message', '')}"
        return None

    try:
        result: str = _until("the GoQueueJob to end (is the operator running?)", ended)
    finally:
        kube.delete(f"{jobs}/{name}")
    return result


def _rest(method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {KEY}"} if KEY else {})
    request = urllib.request.Request(API + path, data, headers, method=method)  # noqa: S310 - the release's own API
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - the address is the chart's own
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code < 500:
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from None
        raise


def _until(what: str, ask: Callable[[], Any]) -> Any:
    """The first answer that is one; a server that is away for a moment is asked again."""
    told = ""
    while True:
        try:
            answer = ask()
            if answer is not None:
                return answer
        except (OSError, kube.Refused) as error:
            if isinstance(error, kube.Refused) and error.code < 429:
                raise SystemExit(f"waiting for {what}: {error}") from None
            told = f" ({error})"
        if time.monotonic() > DEADLINE:
            raise SystemExit(f"waited in vain for {what}{told}")
        time.sleep(0.5)


def _show(way: str, result: str) -> None:
    print(f"{way}: {result}", flush=True)


if __name__ == "__main__":
    main()
