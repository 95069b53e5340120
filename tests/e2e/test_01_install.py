"""What `helm install` brings, from the outside."""

import pytest

from tests.cluster import images
from tests.e2e.system import System

pytestmark = pytest.mark.timeout(180)


def test_a_fresh_installation_has_no_worker_where_there_is_nothing_to_do(system: System) -> None:
    assert system.workers("default") == []
    assert system.workers("work") == []


def test_a_job_by_rest_through_the_ingress_completes(system: System) -> None:
    id = system.enqueue({"seconds": [0.1]})
    job = system.status(id, "completed", timeout=60)
    assert job["result"]["pod"].startswith("e2e-goqueue-work-")


def test_helm_test_passes(system: System) -> None:
    told = system.installation.run_helm("test", system.installation.release, "--logs", timeout=180)
    assert "by REST: " in told
    assert "by GoQueueJob: " in told


def test_the_image_holds_what_the_dockerfile_would_put_into_it(system: System) -> None:
    assert images.application_files(images.archive_of("goqueue")) == images.dockerfile_files()
