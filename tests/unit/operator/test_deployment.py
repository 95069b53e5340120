"""A pool becomes a Deployment: as the golden files show, and never with more rights than a worker has."""

import copy
from typing import Any

import pytest

from goqueue_operator.deployment import Defaults, Refused, build
from tests.unit.operator import golden

PLAIN = golden.given("pool-plain.yaml")


def with_pod(pod: dict[str, Any]) -> dict[str, Any]:
    pool = copy.deepcopy(PLAIN)
    pool["spec"]["podTemplate"] = {"spec": pod}
    return dict(pool)


def worker_of(deployment: dict[str, Any]) -> dict[str, Any]:
    worker: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return worker


@pytest.mark.parametrize("name", golden.names())
def test_each_golden_pool_becomes_the_deployment_that_is_written_down(name: str) -> None:
    assert golden.made(name) == (golden.FOLDER / "output" / name).read_text()


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "hostPath is not allowed"),
        ({"volumes": [{"name": "x", "csi": {"driver": "x"}}]}, "csi is not allowed"),
        (
            {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
            "token is not allowed",
        ),
        ({"serviceAccountName": "admin"}, "serviceAccountName admin is not allowed"),
        ({"serviceAccountName": "goqueue-operator"}, "is not allowed"),
        ({"securityContext": {"runAsUser": 0}}, "root is not allowed"),
        ({"securityContext": {"runAsNonRoot": False}}, "root is not allowed"),
        ({"securityContext": {"sysctls": [{"name": "a", "value": "b"}]}}, "sysctls is not allowed"),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "must not be Unconfined"),
        ({"containers": [{"name": "worker", "securityContext": {"privileged": True}}]}, "privileged is not allowed"),
        (
            {"containers": [{"name": "x", "securityContext": {"allowPrivilegeEscalation": True}}]},
            "allowPrivilegeEscalation is not allowed",
        ),
        (
            {"initContainers": [{"name": "x", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
            "SYS_ADMIN are not allowed",
        ),
        ({"containers": [{"name": "x", "ports": [{"containerPort": 1, "hostPort": 1}]}]}, "hostPort is not allowed"),
        ({"containers": [{"name": "worker", "image": "x"}]}, "set spec.image"),
    ],
)
def test_a_template_that_asks_for_more_rights_is_refused_in_words(pod: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        build(with_pod(pod), 1, golden.DEFAULTS)


def test_a_pool_without_an_image_is_refused_where_the_operator_has_none() -> None:
    with pytest.raises(Refused, match=r"spec\.image is not set"):
        build(PLAIN, 1, Defaults())


def test_workers_get_the_certificates_that_their_environment_may_name() -> None:
    template = build(PLAIN, 1, Defaults(image="x", certificates="store-ca"))["spec"]["template"]["spec"]
    secret = {"secretName": "store-ca", "optional": True, "defaultMode": 0o440}
    assert {"name": "certificates", "secret": secret} in template["volumes"]
    mounts = template["containers"][0]["volumeMounts"]
    assert {"name": "certificates", "mountPath": "/etc/goqueue/certificates", "readOnly": True} in mounts


def test_a_key_among_the_certificates_is_readable_by_the_pods_group_which_the_pool_may_choose() -> None:
    defaults = Defaults(image="x", certificates="store-ca", fs_group=10001)

    def group(pool: dict[str, Any], chosen: Defaults = defaults) -> int | None:
        context: dict[str, Any] = build(pool, 1, chosen)["spec"]["template"]["spec"]["securityContext"]
        return context.get("fsGroup")

    assert group(PLAIN) == 10001
    assert group(with_pod({"securityContext": {"fsGroup": 7}})) == 7
    assert group(PLAIN, Defaults(image="x", certificates="store-ca")) is None
    assert group(PLAIN, Defaults(image="x", fs_group=10001)) is None


def test_workers_listen_for_probes_where_the_operator_says() -> None:
    pod = build(PLAIN, 1, Defaults(image="x", health_host="::"))["spec"]["template"]["spec"]
    assert {"name": "GOQUEUE_WORKER_HEALTH_HOST", "value": "::"} in pod["containers"][0]["env"]


def test_a_pools_own_labels_win_over_those_of_all_pools() -> None:
    defaults = Defaults(image="x", labels={"app.kubernetes.io/instance": "jobs", "team": "north"})
    pool = copy.deepcopy(PLAIN)
    pool["spec"]["podTemplate"] = {"metadata": {"labels": {"team": "south"}}}
    labels = build(pool, 1, defaults)["spec"]["template"]["metadata"]["labels"]
    assert (labels["app.kubernetes.io/instance"], labels["team"]) == ("jobs", "south")


def test_only_named_accounts_may_be_used_or_with_a_star_any_but_the_operators_own() -> None:
    listed = Defaults(image="x", accounts=["mine"], forbidden_account="goqueue-operator")
    star = Defaults(image="x", accounts=["*"], forbidden_account="goqueue-operator")
    for account, allowed in (("default", (True, True)), ("mine", (True, True)), ("other", (False, True))):
        for defaults, fine in zip((listed, star), allowed, strict=True):
            if fine:
                assert build(with_pod({"serviceAccountName": account}), 1, defaults)
            else:
                with pytest.raises(Refused, match="is not allowed"):
                    build(with_pod({"serviceAccountName": account}), 1, defaults)
    with pytest.raises(Refused):
        build(with_pod({"serviceAccountName": "goqueue-operator"}), 1, star)


def test_ports_without_a_name_stay_beside_each_other() -> None:
    ports = [{"containerPort": 9000}, {"containerPort": 9001}]
    made = worker_of(build(with_pod({"containers": [{"name": "worker", "ports": ports}]}), 1, golden.DEFAULTS))["ports"]
    assert [port["containerPort"] for port in made] == [8081, 9000, 9001]


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e300", "soon"])
def test_a_grace_period_that_is_no_time_does_not_stop_the_operator(seconds: str) -> None:
    pool = copy.deepcopy(PLAIN)
    pool["spec"]["env"] = [{"name": "GOQUEUE_WORKER_GRACE_SECONDS", "value": seconds}]
    template = build(pool, 1, golden.DEFAULTS)["spec"]["template"]["spec"]
    assert 0 < template["terminationGracePeriodSeconds"] <= 7 * 86400 + 10


def test_what_the_worker_needs_wins_over_what_the_pool_says() -> None:
    env = {
        item["name"]: item["value"]
        for item in worker_of(build(golden.given("pool-full.yaml"), 1, golden.DEFAULTS))["env"]
    }
    assert env["GOQUEUE_WORKER_HEALTH_PORT"] == "8081"
    assert env["SHOP"] == "south"


def test_a_pod_gets_longer_to_end_than_its_worker_waits_for_jobs() -> None:
    deployment = build(golden.given("pool-full.yaml"), 1, golden.DEFAULTS)
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 100


def test_the_input_is_left_as_it_was() -> None:
    pool = golden.given("pool-full.yaml")
    build(pool, 1, golden.DEFAULTS)
    assert pool == golden.given("pool-full.yaml")
