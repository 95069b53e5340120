"""The dashboards in the chart are those in the code, Grafana's classes read them, and every panel explains itself."""

import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from goqueue.instruments import CATALOGUE, Histogram
from grafana.catalogue import FOLDER, files

FILES = {path.stem: json.loads(text) for path, text in files()}
PROCESS = {"process_resident_memory_bytes"}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.fixture(params=FILES, name="board")
def _board(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = FILES[request.param]
    return found


def test_the_files_in_the_chart_are_current() -> None:
    assert {path: path.read_text() for path in FOLDER.glob("*.json")} == dict(files()), "run `make dashboards`"


def test_there_are_five() -> None:
    assert set(FILES) == {"overview", "autoscaling", "job-types", "api", "operator"}
    assert len({board["uid"] for board in FILES.values()}) == 5


def test_grafanas_own_classes_read_each_and_write_the_same(board: dict[str, Any]) -> None:
    register_default_plugins()
    assert json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)) == board


def test_every_panel_has_a_unit_a_description_queries_and_the_data_source_of_the_variable(
    board: dict[str, Any],
) -> None:
    sources = [one["name"] for one in board["templating"]["list"] if one["type"] == "datasource"]
    assert sources == ["datasource"]
    for panel in panels(board):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["targets"], panel["title"]
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"]), panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), panel["title"]


def test_panels_have_titles_and_ids_of_their_own_and_do_not_overlap(board: dict[str, Any]) -> None:
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in panels(board)}) == len(panels(board))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


def test_queries_name_metrics_labels_and_variables_that_there_are(board: dict[str, Any]) -> None:
    variables = {one["name"] for one in board["templating"]["list"]} | {"__rate_interval"}
    labels = {label for metric in CATALOGUE for label in metric.labels} | {"le", "namespace", "instance", "job"}
    names = {metric.name for metric in CATALOGUE} | PROCESS
    names |= {
        f"{one.name}_{end}" for one in CATALOGUE if isinstance(one, Histogram) for end in ("bucket", "sum", "count")
    }
    for panel in panels(board):
        for target in panel["targets"]:
            text = target["expr"]
            assert set(re.findall(r"(?:goqueue|process)_\w+(?=\{)", text)) <= names, panel["title"]
            assert set(re.findall(r"\$(\w+)", text)) <= variables, panel["title"]
            assert set(re.findall(r"(\w+)=~?\"", text)) <= labels, panel["title"]
            named = re.search(r"\bby \(([^)]*)\)", text)
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named is None or shown <= set(named[1].split(", ")) | {"process"}, panel["title"]


def test_every_metric_of_the_catalogue_stands_on_a_dashboard() -> None:
    text = json.dumps(FILES)
    missing = [metric.name for metric in CATALOGUE if metric.name not in text]
    assert missing == [], "give each a panel in grafana/, then run `make dashboards`"
