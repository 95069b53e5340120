"""The way of docs/install.md for those who have no Helm: a Secret, and one file to apply."""

import json
import re

import pytest

from goqueue.keys import Token
from tests.cluster.cluster import Cluster
from tests.cluster.installation import Installation, remove_everything
from tests.cluster.versions import CHECKOUT
from tests.e2e.system import gqj

pytestmark = pytest.mark.timeout(240)

FILE = CHECKOUT / "manifests" / "install.yaml"
# Needs no receiver: a loopback address is refused by the worker itself.
WEBHOOK = {"url": "http://127.0.0.1/", "method": "POST", "body": {}}


def test_the_manifest_brings_a_system_that_works(cluster: Cluster, installation: Installation) -> None:
    assert installation.cluster is cluster  # what is about to go was there before
    remove_everything(cluster)
    bare = Installation(cluster)
    (tag,) = set(re.findall(r"docker\.io/goqueue/goqueue:([\w.-]+)", FILE.read_text()))
    bare.tag(tag)
    cluster.kubectl("create", "namespace", bare.namespace)
    try:
        key = f"--from-literal=api={Token.new().text}"
        passwords = ("--from-literal=postgresql=first", "--from-literal=valkey=second", key)
        bare.kubectl("create", "secret", "generic", "goqueue-passwords", *passwords)
        cluster.kubectl("apply", "--server-side", "--filename", str(FILE))
        bare.kubectl("wait", "--for=create", "deployment/goqueue-default", "--timeout=90s", timeout=100)
        bare.kubectl("wait", "--for=condition=Available", "deployment", "--all", "--timeout=90s", timeout=100)
        job = json.dumps(gqj("tried", WEBHOOK, queue="webhooks", type="send_webhook", maxRetries=0)).encode()
        bare.kubectl("apply", "-f", "-", stdin=job)
        bare.kubectl("wait", "--for=condition=Failed", "gqj/tried", "--timeout=60s", timeout=70)
        assert "loopback" in bare.kubectl("get", "gqj/tried", "-o", "jsonpath={.status.error}")
    finally:
        cluster.kubectl("delete", "namespace", bare.namespace, "--timeout=120s", timeout=130)
    remove_everything(cluster)
