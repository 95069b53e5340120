"""Alerts: promtool accepts them, each fires when it should and is quiet when it should be, and each has its page."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from goqueue import metrics
from goqueue.instruments import CATALOGUE, Histogram
from tests.chart.chart import CHECKOUT, HERE, find, render
from tests.servers.prometheus import program

RUNBOOKS = CHECKOUT / "docs" / "runbooks"
CASES = HERE / "alerts.yaml"
SECTIONS = ["Meaning", "Impact", "First look", "Cure"]


def groups(**more: Any) -> list[dict[str, Any]]:
    """The chart's groups of rules."""
    rule = find(render({"prometheusRule": {"enabled": True, **more}}), "PrometheusRule", "goqueue-alerts")
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


def alerts(**more: Any) -> dict[str, dict[str, Any]]:
    """Name → rule of each alert."""
    return {rule["alert"]: rule for group in groups(**more) for rule in group["rules"] if "alert" in rule}


@pytest.fixture(scope="module", name="rules")
def _rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups()}))
    return path


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_nothing_wrong(rules: Path) -> None:
    assert re.search(r"SUCCESS: \d+ rules found", promtool("check", "rules", "--lint-fatal", rules))


def test_each_alert_fires_when_it_should_and_only_then(rules: Path) -> None:
    (rules.parent / "cases.yaml").write_text(CASES.read_text())
    assert "SUCCESS" in promtool("test", "rules", rules.parent / "cases.yaml")


def test_no_alert_is_without_a_case_that_fires_and_one_that_is_quiet() -> None:
    cases: dict[str, set[bool]] = {name: set() for name in alerts()}
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for asked in case["alert_rule_test"]:
            cases[asked["alertname"]].add(bool(asked.get("exp_alerts")))
    assert {name for name, seen in cases.items() if seen != {True, False}} == set()


def test_a_broken_threshold_makes_a_case_fail(rules: Path, tmp_path: Path) -> None:
    broken = rules.read_text().replace("> 300", "> 30000")
    assert broken != rules.read_text()
    (tmp_path / "rules.yaml").write_text(broken)
    (tmp_path / "cases.yaml").write_text(CASES.read_text())
    with pytest.raises(AssertionError, match="GoQueueJobsWaitTooLong"):
        promtool("test", "rules", tmp_path / "cases.yaml")


def test_each_threshold_reaches_its_rule() -> None:
    given = {
        "oldestSeconds": 301.5,
        "deadLetters": 302,
        "noWorkerMinutes": 303,
        "repairs": 304,
        "maximumMinutes": 305,
        "pinnedHours": 306,
        "operatorResources": 307,
        "availabilityPercent": 99.5,
    }
    text = yaml.safe_dump(groups(thresholds=given), width=1000)
    for shown in ("> 301.5", "> 302", "303m", "> 304", "305m", "306h", "> 307", "14.4 * 0.005"):
        assert shown in text, shown


def test_labels_selector_and_runbooks_are_as_chosen() -> None:
    chosen = alerts(alertLabels={"team": "jobs"}, selector='cluster="a"', runbookUrl="https://wiki.example.com/r/")
    for name, rule in chosen.items():
        assert rule["labels"]["team"] == "jobs"
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example.com/r/{name}.md"
        assert 'cluster="a"' in rule["expr"], name
        assert "namespace=" not in rule["expr"], name


def test_without_an_operator_nothing_asks_for_one() -> None:
    documents = render({"prometheusRule": {"enabled": True}, "operator": {"enabled": False}})
    assert "operator" not in yaml.safe_dump(find(documents, "PrometheusRule", "goqueue-alerts")["spec"])


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(alerts())


@pytest.mark.parametrize("name", sorted(path.stem for path in RUNBOOKS.glob("*.md")))
def test_a_page_says_what_it_means_what_it_does_where_to_look_and_what_helps(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert re.search(r"^    (kubectl|goqueue|\$gq) ", text.partition("## First look")[2], re.MULTILINE), "no commands"


def test_rules_and_pages_name_metrics_that_there_are() -> None:
    assert metrics.DEPTH in CATALOGUE
    known = {metric.name for metric in CATALOGUE}
    known |= {
        f"{one.name}_{part}" for one in CATALOGUE if isinstance(one, Histogram) for part in ("bucket", "sum", "count")
    }
    texts = [yaml.safe_dump(groups()), CASES.read_text(), *(page.read_text() for page in RUNBOOKS.glob("*.md"))]
    named = {name for text in texts for name in re.findall(r"goqueue_[a-z_]+", text)}
    assert named - known == set()
    assert len(named) > 8
