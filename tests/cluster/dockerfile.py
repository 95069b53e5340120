"""Reading the checkout's Dockerfile, so that the assembled image cannot drift from it.

The assembled image takes its configuration (user, variables, entry point …) from the Dockerfile's last stage, and
`build_context` gives a test the very files from which the Dockerfile would build the application.
"""

import fnmatch
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.archive import PATH, Config
from tests.cluster.versions import CHECKOUT


@dataclass(frozen=True)
class Instruction:
    """One instruction: `COPY`, and what follows it."""

    name: str
    value: str


def stages(text: str) -> list[list[Instruction]]:
    """The instructions of each stage, its `FROM` first; what stands before the first `FROM` is left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, value = line.partition(" ")
        if name.upper() == "FROM":
            found.append([])
        if found:
            found[-1].append(Instruction(name.upper(), value.strip()))
    return found


def image_config() -> Config:
    """What the Dockerfile's last stage says about a container of the image."""
    env: dict[str, str] = {}
    labels: dict[str, str] = {}
    told: dict[str, str] = {}
    for instruction in stages((CHECKOUT / "Dockerfile").read_text())[-1]:
        if instruction.name in ("ENV", "LABEL"):
            pairs = (word.partition("=") for word in shlex.split(instruction.value))
            (env if instruction.name == "ENV" else labels).update({name: value for name, _, value in pairs})
        else:
            told[instruction.name] = instruction.value
    return Config(
        entrypoint=json.loads(told["ENTRYPOINT"]),
        command=json.loads(told.get("CMD", "[]")),
        env={name: value.replace("$PATH", PATH) for name, value in env.items()},
        user=told["USER"],
        workdir=told["WORKDIR"],
        ports=[f"{port}/tcp" for port in told.get("EXPOSE", "").split()],
        labels=labels,
    )


def copied_to_image() -> dict[str, str]:
    """Path in the image → path in the build stage, of all that the last stage takes from the build stage."""
    found = {}
    for instruction in stages((CHECKOUT / "Dockerfile").read_text())[-1]:
        if instruction.name == "COPY":
            origin, source, target = instruction.value.split()
            assert origin.startswith("--from="), f"only copies from the build stage are known here: {instruction.value}"
            found[target] = source
    return found


def build_context(target: Path) -> None:
    """Lay out the files that the build stage copies, less those that .dockerignore keeps away, under `target`."""
    ignored = _Ignore((CHECKOUT / ".dockerignore").read_text())
    for instruction in stages((CHECKOUT / "Dockerfile").read_text())[0]:
        if instruction.name != "COPY":
            continue
        *sources, destination = instruction.value.split()
        for source in sources:
            origin = CHECKOUT / source
            into = target / destination / (origin.name if destination.endswith("/") else "")
            for file in [origin] if origin.is_file() else filter(Path.is_file, origin.rglob("*")):
                if ignored(file.relative_to(CHECKOUT)):
                    continue
                copy = into if origin.is_file() else into / file.relative_to(origin)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, copy)


class _Ignore:
    """The rules of .dockerignore as far as this checkout uses them: the last one that fits decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._rules = [(line.removeprefix("!"), not line.startswith("!")) for line in lines if line and line[0] != "#"]

    def __call__(self, path: Path) -> bool:
        verdict = False
        names = [str(path), *(str(parent) for parent in path.parents if parent != Path())]
        for pattern, ignore in self._rules:
            if any(_fits(name, pattern) for name in names):
                verdict = ignore
        return verdict


def _fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(path.rsplit("/", 1)[-1], pattern[3:])
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
