"""The programs of the tests are those that versions.py states, and so is what the documentation claims."""

from pathlib import Path

import pytest

from tests.chart.chart import CHART, CHECKOUT, HELMS, HERE, run_helm
from tests.cluster import versions

HELM = {"helm3": versions.HELM3, "helm4": versions.HELM4}
DOCUMENTS = (CHECKOUT / "docs" / "install.md", CHART / "README.md", HERE / "readme.md")


def claim() -> str:
    """The sentence about what was tested, as each document has it."""
    kubernetes = " and ".join(release.version.removeprefix("v") for release in versions.RELEASES.values())
    helm = " and ".join(version.removeprefix("v") for version in HELM.values())
    return f"Tested on Kubernetes {kubernetes} with Helm {helm}."


@pytest.mark.parametrize("version", HELMS)
def test_helm_is_of_the_stated_version(version: str) -> None:
    assert run_helm("version", "--template", "{{.Version}}", version=version) == HELM[version]


def test_helm_3_renders_for_the_release_of_kubernetes_that_its_own_libraries_have(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: probe, version: 1.0.0}")
    (tmp_path / "templates" / "probe.yaml").write_text("version: {{ .Capabilities.KubeVersion.Version }}")
    text = run_helm("template", "probe", str(tmp_path), version="helm3")
    assert f"version: v{versions.HELM3_KUBERNETES}.0" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_documentation_claims_what_was_tested(document: Path) -> None:
    assert claim() in " ".join(document.read_text().split())
