"""Write the software bill of materials of what the images install: CycloneDX, in .build/sbom/goqueue.cdx.json.

    tools/sbom.py [FILE]

The names, versions and hashes are those of requirements/runtime.lock, all of them, whatever machine this runs on;
licences and the graph of dependencies are read from the packages installed in .venv, where these have that version.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements" / "runtime.lock"
OUTPUT: Final = ROOT / ".build" / "sbom" / "goqueue.cdx.json"

Bom = dict[str, Any]


def cyclonedx(*arguments: str) -> Bom:
    """What `cyclonedx-py` writes; the same for the same input, and not validated yet."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bom.json"
        options = ("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--short-PURLs")
        command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", arguments[0], *options, "--no-validate"]
        subprocess.run([*command, "-o", str(file), *arguments[1:]], check=True, stderr=subprocess.PIPE)
        bom: Bom = json.loads(file.read_text())
    return bom


def combined(locked: Bom, installed: Bom) -> Bom:
    """The locked packages, with what is known of them where they are installed in that very version."""
    known = {component["purl"]: component for component in installed["components"]}
    references = {component["bom-ref"]: component.get("purl") for component in installed["components"]}
    components = []
    for component in locked["components"]:
        found = known.get(component["purl"], {})
        files = [reference for reference in component["externalReferences"] if reference["type"] == "distribution"]
        more = {name: found[name] for name in ("description", "licenses") if name in found}
        plain = {name: component[name] for name in ("name", "purl", "type", "version")}
        components.append({"bom-ref": component["purl"], **plain, **more, "externalReferences": files})
    wanted = {component["purl"] for component in components}
    dependencies = []
    for node in installed["dependencies"]:
        ref = references.get(node["ref"], node["ref"])
        if ref in wanted or ref == "root-component":
            needs = sorted({references[name] for name in node.get("dependsOn", ())} & wanted)
            dependencies.append({"ref": ref, "dependsOn": needs})
    return locked | {"components": components, "dependencies": dependencies}


def main(output: Path) -> int:
    """Write it; 1 where it is not valid by the schema of CycloneDX."""
    bom = combined(cyclonedx("requirements", str(LOCK)), cyclonedx("environment", sys.executable))
    text = json.dumps(bom, indent=2) + "\n"
    error = JsonStrictValidator(SchemaVersion.from_version(bom["specVersion"])).validate_str(text)
    if error is not None:
        print(f"not valid: {error}", file=sys.stderr)
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    print(f"{output}: {len(bom['components'])} packages, valid by CycloneDX {bom['specVersion']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT))
