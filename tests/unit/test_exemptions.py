"""Security rules hold everywhere (ruff's `S`, the rules of bandit), and each exemption says why."""

import re
import subprocess
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
EXEMPTION = re.compile(r"# noqa: [A-Z0-9, ]*\bS\d{3}\b(?P<rest>.*)")


def test_every_exemption_from_a_security_rule_gives_its_reason() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    files = [CHECKOUT / name for name in listed.stdout.split()]
    found = [
        (f"{file.relative_to(CHECKOUT)}:{number}", match["rest"])
        for file in files
        if file.exists()
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if (match := EXEMPTION.search(line))
    ]
    assert len(found) > 20
    assert [place for place, rest in found if not re.match(r"[A-Z0-9, ]* - \S", rest)] == []


def test_no_package_is_exempt_from_a_security_rule_but_the_statements_of_the_store() -> None:
    lint = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert {rule for rule in lint["ignore"] if rule.startswith("S")} == {"S603", "S607"}
    for files, rules in lint["per-file-ignores"].items():
        exempt = {rule for rule in rules if rule.startswith("S")}
        if exempt and not files.startswith(("tests/", "benchmarks/")):
            # Statements are put together there, from fragments that stand in the same file.
            assert files.startswith("goqueue/store/")
            assert exempt == {"S608"}, files
