"""Files of the chart that are made from other sources: written by `python -m tests.chart write`, checked by a test."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.chart import settings
from tests.chart.chart import CHART, CHECKOUT, HERE, template

VALUES = CHART / "values.yaml"
SCHEMA = CHART / "values.schema.json"
INSTALL = CHECKOUT / "manifests" / "install.yaml"
GOLDEN = HERE / "golden"
GIVEN = HERE / "values"
"""Values files by name: each is rendered into a golden file."""

_BLOCK = re.compile(r"(?<=# BEGIN settings\n).*?(?=# END settings\n)", re.DOTALL)
_KEY = re.compile(r"^( *)([A-Za-z][\w.-]*):(?: (.*))?$")


def values() -> str:
    """values.yaml with the settings of today."""
    return _BLOCK.sub(lambda _: settings.values_block(), VALUES.read_text())


def schema() -> str:
    """values.schema.json with the settings of today."""
    tree = json.loads(SCHEMA.read_text())
    tree["properties"]["settings"] = settings.schema()
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def documented() -> Iterator[tuple[str, str, str]]:
    """(path, default, description) of each value that has a comment, in the order of values.yaml."""
    comment: list[str] = []
    above: list[tuple[int, str]] = []
    lines = values().splitlines()
    for number, line in enumerate(lines):
        text = line.strip()
        if text.startswith("#"):
            heading = text.startswith(("# ----", "# BEGIN", "# END"))
            comment = [] if heading else [*comment, text.lstrip("# ")]
            continue
        match = _KEY.match(line)
        if match is None:
            comment = []
            continue
        indent, key, default = len(match[1]), match[2], match[3] or ""
        above = [(depth, name) for depth, name in above if depth < indent]
        above.append((indent, key))
        if comment:
            # A small map below counts as the key's own default.
            below = []
            for following in lines[number + 1 :]:
                if following.strip() and len(following) - len(following.lstrip()) <= indent:
                    break
                below.append(following)
            if not default and not any(part.strip().startswith("#") for part in below):
                default = json.dumps(yaml.safe_load("\n".join(below)))
            yield ".".join(name for _, name in above), default, " ".join(comment)
        comment = []


def readme() -> str:
    """The chart's README.md."""
    rows = []
    for path, default, description in documented():
        if default or description:
            cells = (f"`{path}`", f"`{default}`" if default else "", description)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = (HERE / "readme.md").read_text().rstrip()
    table = ["", "", "| Value | Default | |", "|---|---|---|"]
    return head + "\n".join([*table, *rows]) + "\n"


def install() -> str:
    """manifests/install.yaml: the chart without Helm."""
    given = yaml.safe_load((HERE / "install.yaml").read_text())
    head = (HERE / "install.head.txt").read_text()
    return head + stable(template(given, namespace="goqueue", options=["--no-hooks"]))


def golden(name: str) -> str:
    """What the chart renders for one of the values files; without the definitions, which are files of their own."""
    given = yaml.safe_load((GIVEN / f"{name}.yaml").read_text())
    return stable(template({**given, "crds": {"install": False}}))


def stable(text: str) -> str:
    """Without what is drawn anew each time, generated passwords, and without the empty lines at a document's end.

    Helm 3.19 drops those, Helm 4.2 keeps them.
    """
    text = re.sub(r"(?:[ \t]*\n)+(?=---\n|\Z)", "\n", text)
    text = re.sub(r'(?m)^(  GOQUEUE_API_BOOTSTRAP_KEY: )"gq_[0-9a-z]{12}_[A-Za-z0-9]{43}"', r'\1"GENERATED"', text)
    return re.sub(
        r"(?m)^(  (?:password|POSTGRES_PASSWORD|GOQUEUE_REDIS_PASSWORD): .*?)[A-Za-z0-9]{32}", r"\1GENERATED", text
    )


def golden_names() -> list[str]:
    """All there are."""
    return sorted(path.stem for path in GIVEN.glob("*.yaml"))


def all_files() -> Iterator[tuple[Path, str]]:
    """Path and content of every generated file. In an order in which each is made from what was written before."""
    yield CHART / "files" / "settings.yaml", settings.variables()
    yield VALUES, values()
    yield SCHEMA, schema()
    yield CHART / "README.md", readme()
    yield INSTALL, install()
    for name in golden_names():
        yield GOLDEN / f"{name}.yaml", golden(name)
