"""The few kinds of panels that the dashboards have, each with unit, description and the data source's variable."""

from collections.abc import Iterable, Sequence
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableHide,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from goqueue import metrics
from goqueue.instruments import Histogram, Instrument
from grafana.queries import NAMESPACE, WINDOW, of

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG: Final = "goqueue"
WIDTH: Final = 24
"""Columns of Grafana's grid."""

JOBS_A_SECOND: Final = "suffix: jobs/s"
JOBS: Final = "suffix: jobs"
PODS: Final = "suffix: pods"
SECONDS: Final = units.Seconds
SHARE: Final = units.PercentUnit
REQUESTS_A_SECOND: Final = units.RequestsPerSecond
PLAIN: Final = units.Short

RED: Final = "red"
GREEN: Final = "green"
ORANGE: Final = "orange"

Query = tuple[str, str]
"""(expression, legend); the legend like `{{queue}}`."""


def _target(number: int, query: Query) -> prometheus.Dataquery:
    expression, legend = query
    return prometheus.Dataquery().expr(expression).legend_format(legend).range().ref_id(chr(ord("A") + number))


def _steps(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=color) for value, color in steps])
    )


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    stacked: bool = False,
    steps: bool = False,
) -> timeseries.Panel:
    """Lines over time. `stacked`: areas that add up. `steps`: a number that jumps."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(width)
        .height(8)
        .min(0)
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(shapes.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
        .targets([_target(number, query) for number, query in enumerate(queries)])
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    if steps:
        panel.line_interpolation(shapes.LineInterpolation.STEP_AFTER)
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 4,
    limits: Sequence[tuple[float | None, str]] = ((None, GREEN),),
    words: dict[str, str] | None = None,
) -> stat.Panel:
    """What is now, large. `limits`: colour from which value on, the first one from None. `words`: instead of values."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .span(width)
        .height(4)
        .thresholds(_steps(*limits))
        .color_mode(shapes.BigValueColorMode.BACKGROUND)
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .targets([_target(number, query) for number, query in enumerate(queries)])
    )
    if words:
        panel.mappings([ValueMap(options={value: ValueMappingResult(text=text) for value, text in words.items()})])
    return panel


def spread(title: str, description: str, metric: Histogram, *matchers: str, width: int = 12) -> heatmap.Panel:
    """A histogram over time."""
    expression = f"sum by (le) (increase({of(metric, *matchers, suffix='_bucket')}[{WINDOW}]))"
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(PLAIN)
        .span(width)
        .height(8)
        .scale_distribution(common.ScaleDistributionConfig().type(shapes.ScaleDistribution.LINEAR))
        .y_axis(heatmap.YAxisConfig().unit(SECONDS))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64))
        .targets([_target(0, (expression, "{{le}}")).format(PromQueryFormat.HEATMAP)])
    )


def phases(title: str, description: str, query: Query, text: str, *, width: int = 24) -> statetimeline.Panel:
    """Which of several states holds when: a row for each series, filled where it is 1 (`text` says what that means)."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("none")
        .span(width)
        .height(8)
        .line_width(0)
        .fill_opacity(70)
        .show_value(shapes.VisibilityMode.NEVER)
        .mappings([ValueMap(options={"1": ValueMappingResult(text=text, color="blue")})])
        .targets([_target(0, query)])
    )


def dashed(name: str, color: str) -> tuple[str, list[DynamicConfigValue]]:
    """An override by which the series of this name is a dashed line without area, e.g. a bound."""
    return name, [
        DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}),
        DynamicConfigValue("custom.fillOpacity", 0),
        DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color}),
    ]


def choice(name: str, label: str, metric: Instrument, of_label: str) -> dashboard.QueryVariable:
    """A variable with the values of a label, all of them at first."""
    within = "" if name == "namespace" else f"{{{NAMESPACE}}}"
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({metric.name}{within}, {of_label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def board(
    name: str,
    title: str,
    description: str,
    rows: Iterable[tuple[str, Sequence[Builder[Panel]]]],
    variables: Sequence[dashboard.QueryVariable] = (),
) -> Dashboard:
    """A dashboard. `name` is the end of its uid, by which links stay good. `rows`: (title, panels)."""
    made = (
        dashboard.Dashboard(f"GoQueue / {title}")
        .uid(f"goqueue-{name}")
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-3h", "now")
        .refresh("30s")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(choice("namespace", "Namespace", metrics.BUILD, "namespace"))
        .link(
            dashboard.DashboardLink("GoQueue")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in variables:
        made.with_variable(variable.hide(VariableHide.DONT_HIDE))
    for row, panels in rows:
        made.with_row(dashboard.Row(row))
        for panel in panels:
            made.with_panel(panel)
    built = made.build()
    for id, each in enumerate(built.panels or [], 1):
        each.id_val = id
    return built
