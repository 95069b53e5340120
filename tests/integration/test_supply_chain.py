"""The bill of materials is complete and valid; an audit that could ask nobody does not pass for a good one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK = CHECKOUT / "requirements" / "runtime.lock"


def run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command],
        cwd=CHECKOUT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=150,
    )


def locked() -> dict[tuple[str, str], set[str]]:
    """(name, version) of each package of the lock → the hashes of its files."""
    found: dict[tuple[str, str], set[str]] = {}
    for entry in re.split(r"\n(?=\S)", LOCK.read_text()):
        if match := re.match(r"([a-z0-9-]+)==(\S+)", entry):
            found[match[1], match[2]] = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
    return found


@pytest.mark.timeout(200)
def test_the_bill_of_materials_is_valid_and_names_every_locked_package_with_its_hashes(tmp_path: Path) -> None:
    file = tmp_path / "bom.json"
    done = run("tools/sbom.py", str(file))
    assert done.returncode == 0, done.stderr
    bom: dict[str, Any] = json.loads(file.read_text())
    named = {
        (component["name"], component["version"]): {
            digest["content"]
            for reference in component["externalReferences"]
            for digest in reference["hashes"]
            if digest["alg"] == "SHA-256"
        }
        for component in bom["components"]
    }
    assert named == locked()
    assert len(named) > 50
    assert all(named.values())
    assert bom["metadata"]["component"]["name"] == "goqueue"
    direct = next(node["dependsOn"] for node in bom["dependencies"] if node["ref"] == "root-component")
    assert any(name.startswith("pkg:pypi/psycopg@") for name in direct)
    # Packages of another platform or Python are not installed here, and have no metadata to read.
    licensed = sum("licenses" in component for component in bom["components"])
    assert licensed > 0.9 * len(named)


@pytest.mark.timeout(120)
def test_the_tool_refuses_a_bill_that_the_schema_of_cyclonedx_refuses() -> None:
    """The validator behind `make sbom` is no rubber stamp."""
    broken = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "library"}]}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


@pytest.mark.timeout(120)
def test_an_audit_without_a_network_is_told_from_one_that_found_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "one.lock"
    lock.write_text(f"click==8.5.1 --hash=sha256:{'0' * 64}\n")
    nowhere = "http://127.0.0.1:1"
    done = run("tools/audit.py", str(lock), https_proxy=nowhere, HTTPS_PROXY=nowhere, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "not asked about everything" in done.stderr
    assert "0 packages looked up" in done.stdout
