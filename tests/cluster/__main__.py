"""`python -m tests.cluster up|down|status|load|kubeconfig|build|image|install`."""

import argparse
import sys
import time
from pathlib import Path

from tests.cluster import node_image
from tests.cluster.cluster import Cluster, choose_engine
from tests.cluster.podman import Podman
from tests.cluster.shell import ClusterError, say


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring the cluster up (keeps one that runs)")
    up.add_argument("--new", action="store_true", help="make a new one, whatever runs")
    commands.add_parser("down", help="remove it and all it changed on the machine; the cache stays")
    commands.add_parser("status", help="say whether it is up, and show its nodes and pods")
    load = commands.add_parser("load", help="put image archives on the workers")
    load.add_argument("archives", nargs="+", type=Path, metavar="IMAGE_ARCHIVE")
    commands.add_parser("kubeconfig", help="print the path of the kubeconfig")
    commands.add_parser("build", help="build what `up` needs, without starting anything")
    image = commands.add_parser("image", help="build images and print the paths of their archives")
    image.add_argument("names", nargs="+", choices=["goqueue", "postgres", "valkey", "traefik"])
    commands.add_parser("install", help="bring it up with GoQueue of this checkout, and say how to reach it")
    return parser.parse_args()


def main() -> int:
    """Carry out the command; 1 and a message on standard error if it failed."""
    arguments = _arguments()
    cluster = Cluster()
    began = time.monotonic()
    try:
        match arguments.command:
            case "up":
                cluster.up(reuse=not arguments.new)
                say(f"up after {time.monotonic() - began:.1f} s; export KUBECONFIG={cluster.kubeconfig}")
            case "down":
                cluster.down()
                say(f"down after {time.monotonic() - began:.1f} s")
            case "status":
                return _status(cluster)
            case "load":
                for archive in arguments.archives:
                    cluster.load(archive)
            case "kubeconfig":
                print(cluster.kubeconfig)
            case "install":
                _install(cluster)
            case "build":
                _build(cluster)
            case "image":
                from tests.cluster import images

                for name in arguments.names:
                    print(images.archive_of(name))
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _status(cluster: Cluster) -> int:
    if not cluster.is_up():
        print("down")
        return 1
    print(f"up ({cluster.engine.name})")
    print(cluster.kubectl("get", "nodes", "-o", "wide"))
    print(cluster.kubectl("get", "pods", "-A", "-o", "wide"))
    return 0


def _install(cluster: Cluster) -> None:
    from tests.cluster import receiver
    from tests.cluster.installation import VALUES, Installation, in_use

    with in_use(cluster):
        cluster.up()
        goqueue = Installation(cluster, values={**VALUES, **receiver.VALUES})
        goqueue.prepare()
        goqueue.make_namespace()
        receiver.install(cluster, goqueue.namespace)
        goqueue.install()
    goqueue.kubectl("wait", "--for=condition=Available", "gqp", "--all", "--timeout=120s", timeout=130)
    (key,) = goqueue.headers.values()
    print(
        _REACH.format(
            url=goqueue.url, key=key, namespace=goqueue.namespace, config=cluster.kubeconfig, tools=cluster.tools
        )
    )


_REACH = """
GoQueue runs in namespace {namespace}.

  REST         {url} (reference: {url}/docs)
               curl -H 'Authorization: {key}' {url}/queues
  kubectl      export KUBECONFIG={config}
               alias kubectl={tools.kubectl} helm={tools.helm4}
               kubectl --namespace {namespace} get pods,gqj,gqs,gqp
  jobs         kubectl --namespace {namespace} apply --filename manifests/samples/
               kubectl --namespace {namespace} get gqj --watch
  what is sent kubectl --namespace {namespace} logs --follow deployment/receiver
               (the cluster has no way out: a receiver accepts the e-mails, and the webhooks of the samples)
  remove all   make cluster-down
"""


def _build(cluster: Cluster) -> None:
    cluster.tools.build()
    if isinstance(choose_engine(), Podman):
        from tests.cluster import host

        host.install_packages()
        print(node_image.node_image())


if __name__ == "__main__":
    sys.exit(main())
