"""`make image` without a container engine writes an archive that engines, kind and skopeo take."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest

from tests.cluster import dockerfile
from tests.cluster.versions import CHECKOUT

REFERENCE = "registry.example.org/jobs/goqueue:1.2.3"


@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="without an engine the image is assembled by root")
def test_the_archive_has_the_name_asked_for_and_starts_as_the_dockerfile_says() -> None:
    command = [sys.executable, str(CHECKOUT / "tools" / "image.py"), "--engine", "none", REFERENCE]
    built = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)
    assert built.returncode == 0, built.stderr
    assert "kind load image-archive .build/image/goqueue.tar" in built.stdout
    with tarfile.open(CHECKOUT / ".build" / "image" / "goqueue.tar") as archive:

        def read(name: str) -> Any:
            file = archive.extractfile(name)
            assert file is not None
            return json.load(file)

        def blob(described: Mapping[str, str]) -> Any:
            return read("blobs/" + described["digest"].replace(":", "/"))

        (manifest,) = read("index.json")["manifests"]
        config = blob(blob(manifest)["config"])["config"]
    assert manifest["annotations"]["io.containerd.image.name"] == REFERENCE
    wanted = dockerfile.image_config()
    assert (config["User"], config["Entrypoint"]) == (wanted.user, wanted.entrypoint)
