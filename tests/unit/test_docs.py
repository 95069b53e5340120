"""The pages of the documentation: what they point to exists, and their commands survive a shell."""

import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        ROOT / "charts" / "goqueue" / "README.md",
        ROOT / "tests" / "cluster" / "README.md",
    ]
)
FOLDERS: Final = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))

LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED: Final = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+|[\w-]+\.(?:py|md|yaml))`")
"""A file of the repository, by its path from the root or by its name."""

MADE_BY_READERS: Final = frozenset(("values.yaml", "mine.yaml", "pool.yaml", "jobs.py", "tables.py"))
"""Names of files that are the reader's own, or stand beside the page."""


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> list[str]:
    """The lines of a page that are no code."""
    lines, fenced = [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            lines.append(line)
    return lines


def code(path: Path) -> list[str]:
    """The lines of a page that are code, each with those that continue it."""
    joined = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines, fenced = [], False
    for line in joined.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip())
    return lines


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: list[str] = []
    for line in prose(path):
        if title := re.fullmatch(r"#+ (.*)", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title[1]).replace("`", "").lower()
            slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
            found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return frozenset(found)


@cache
def names() -> frozenset[str]:
    """The names of all files in the folders of the repository."""
    files = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())
    return frozenset(path.name for path in (*files, *ROOT.iterdir()))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    dead = []
    for target in LINK.findall("\n".join(prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_that_are_named_exist(page: Path) -> None:
    named = set(NAMED.findall("\n".join(prose(page)))) - MADE_BY_READERS
    dead = [name for name in named if not ((ROOT / name).exists() if "/" in name else name in names())]
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_addresses_with_a_query_are_quoted_in_commands(page: Path) -> None:
    """Some shells take an unquoted `?` for a pattern and refuse it, and `&` ends a command in all of them."""
    bare = [line for line in code(page) if re.search(r"""(?:^|\s)curl\b.*\s(?!['"])[^\s'"]*/[^\s'"]*\?""", line)]
    assert bare == []


def test_all_pages_are_looked_at() -> None:
    assert {"README.md", "docs/jobs.md", "docs/security.md", "docs/decisions/0008-encryption.md"} <= {
        page_id(page) for page in PAGES
    }
