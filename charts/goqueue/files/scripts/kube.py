"""The Kubernetes API with the pod's own token and nothing but the standard library."""

import contextlib
import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
GROUP = "goqueue.io"
VERSION = f"apis/{GROUP}/v1alpha1"


class Refused(Exception):
    """The API server said no; `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def call(method: str, path: str, body: Any = None, *, kind: str = "application/json", timeout: float = 10) -> Any:
    """One request.

    Raises:
        Refused: the server answered with an error.
        OSError: it did not answer.
    """
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(f"https://{host}:{port}/{path}", method=method)
    request.add_header("Authorization", f"Bearer {(_ACCOUNT / 'token').read_text()}")
    if body is not None:
        request.add_header("Content-Type", kind)
        request.data = json.dumps(body).encode()
    context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:  # noqa: S310 - https
            return json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["message"]
        raise Refused(error.code, text) from None


def get(path: str, default: Any = None) -> Any:
    """What stands there; `default` where nothing does."""
    try:
        return call("GET", path)
    except Refused as error:
        if error.code == 404:
            return default
        raise


def items(path: str) -> list[dict[str, Any]]:
    """All of a list, page by page; empty where the kind is not installed."""
    found: list[dict[str, Any]] = []
    mark = ""
    while True:
        separator = "&" if "?" in path else "?"
        page = get(f"{path}{separator}limit=500{mark}", {})
        found += page.get("items", [])
        following = page.get("metadata", {}).get("continue")
        if not following:
            return found
        mark = f"&continue={following}"


def delete(path: str) -> None:
    """Delete; no error where it is gone already."""
    try:
        call("DELETE", path)
    except Refused as error:
        if error.code != 404:
            raise
