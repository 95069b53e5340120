"""The first jobs: one of each built-in type, so that a first start shows something."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from goqueue import settings
from goqueue.settings import WorkerSettings


@dataclass(frozen=True)
class Order:
    """A job to create, or why it is not created."""

    type: str
    body: dict[str, Any]
    obstacle: str = ""


def orders(api: httpx.Client, webhooks: str, receivers: frozenset[str]) -> Iterator[Order]:
    """The jobs, each with what is in its way.

    Args:
        api: The running API.
        webhooks: Where webhooks are received.
        receivers: The types whose jobs end in this process's own receivers: others would reach real people.
    """
    queues = {queue["name"]: queue["paused"] for queue in _get(api, "/queues")["queues"]}
    types = {kind["name"]: kind["queue"] for kind in _get(api, "/types")}
    served = settings.load(WorkerSettings).weights(list(queues))
    for name, payload in _payloads(webhooks).items():
        queue = types.get(name, "")
        obstacle = ""
        if name not in types:
            obstacle = "there is no such job type"
        elif name not in receivers:
            obstacle = "your own settings say where it goes"
        elif queue not in queues:
            obstacle = f"there is no queue {queue}"
        elif queues[queue]:
            obstacle = f"queue {queue} is paused"
        elif queue not in served:
            obstacle = f"no worker serves queue {queue} (GOQUEUE_WORKER_QUEUES)"
        yield Order(name, {"queue": queue, "type": name, "payload": payload}, obstacle)


def _get(api: httpx.Client, path: str) -> Any:
    return api.get(path).raise_for_status().json()


def _payloads(webhooks: str) -> dict[str, dict[str, Any]]:
    return {
        "send_email": {"to": "you@example.org", "subject": "GoQueue runs", "body": "This mail went nowhere."},
        "send_webhook": {"url": f"{webhooks}/hello", "method": "POST", "body": {"from": "goqueue dev"}},
        "process_payment": {
            "payment_id": f"dev-{secrets.token_hex(6)}",
            "user_id": "you",
            "amount": 12.5,
            "currency": "EUR",
            "method": "card",
        },
    }
