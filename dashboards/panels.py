"""The few kinds of panel that the dashboards are made of, with the settings that all of one kind share."""

from typing import Any, Literal

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    gauge,
    geomap,
    heatmap,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models import text as texts

from dashboards.clickhouse_query import DATASOURCE, Query

Panel = Any
"""A panel builder of the SDK; its builders share their methods but no base class."""

Steps = list[tuple[float | None, str]]
"""Thresholds from low to high, the first from None (minus infinity), each with the colour from there on."""

MINUTE = "1m"
"""The data's own interval: a bucket finer than it would make rates too high and lines full of holes."""

BLUE: Steps = [(None, "blue")]
RISING: Steps = [(None, "green"), (0.8, "yellow"), (0.9, "orange"), (0.97, "red")]
"""A share that should stay low: use of capacity."""

COMPLETE: Steps = [(None, "red"), (0.9, "orange"), (0.98, "yellow"), (0.995, "green")]
"""A share that should be 1: completeness."""


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Absolute thresholds."""
    return (
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value, color) for value, color in steps])
    )


def _common(panel: Panel, title: str, description: str, size: tuple[int, int], unit: str, sql: str, kind: str) -> Panel:
    return (
        panel.title(title)
        .description(description)
        .span(size[0])
        .height(size[1])
        .unit(unit)
        .datasource(DATASOURCE)
        .interval(MINUTE)
        .with_target(Query(sql, kind))
    )


def _reduced(calc: str, *, every_row: bool = False) -> common.ReduceDataOptions:
    return common.ReduceDataOptions().values(every_row).calcs([calc]).fields("")


def _colored(panel: Panel, mode: model.FieldColorModeId) -> Panel:
    return panel.color_scheme(dashboard.FieldColor().mode(mode))


def number(
    title: str,
    description: str,
    sql: str,
    unit: str,
    *,
    size: tuple[int, int] = (4, 4),
    steps: Steps = BLUE,
    decimals: int | None = None,
    trend: bool = False,
    calc: str = "lastNotNull",
    background: bool = False,
) -> Panel:
    """One number; with ``trend`` the query is over time, drawn small under it, and ``calc`` makes the number."""
    panel = _common(stat.Panel(), title, description, size, unit, sql, "timeseries" if trend else "table")
    panel = (
        panel.reduce_options(_reduced(calc))
        .graph_mode(kinds.BigValueGraphMode.AREA if trend else kinds.BigValueGraphMode.NONE)
        .color_mode(kinds.BigValueColorMode.BACKGROUND if background else kinds.BigValueColorMode.VALUE)
        .thresholds(thresholds(steps))
    )
    panel = _colored(panel, model.FieldColorModeId.THRESHOLDS)
    return panel if decimals is None else panel.decimals(decimals)


def dial(
    title: str,
    description: str,
    sql: str,
    unit: str = "percentunit",
    *,
    size: tuple[int, int] = (4, 6),
    steps: Steps = RISING,
    low: float = 0,
    high: float = 1,
    decimals: int = 1,
) -> Panel:
    """A gauge."""
    panel = _common(gauge.Panel(), title, description, size, unit, sql, "table")
    panel = panel.reduce_options(_reduced("lastNotNull")).min(low).max(high).decimals(decimals)
    return _colored(panel.thresholds(thresholds(steps)), model.FieldColorModeId.THRESHOLDS)


def bars(
    title: str,
    description: str,
    sql: str,
    unit: str,
    *,
    size: tuple[int, int] = (8, 8),
    steps: Steps = BLUE,
    high: float | None = None,
    decimals: int | None = None,
) -> Panel:
    """A horizontal bar a row: the query yields a name and a number."""
    panel = _common(bargauge.Panel(), title, description, size, unit, sql, "table")
    panel = (
        panel.reduce_options(_reduced("lastNotNull", every_row=True))
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .min(0)
        .thresholds(thresholds(steps))
    )
    panel = panel if high is None else panel.max(high)
    panel = panel if decimals is None else panel.decimals(decimals)
    return _colored(panel, model.FieldColorModeId.THRESHOLDS)


def lines(
    title: str,
    description: str,
    sql: str,
    unit: str,
    *,
    size: tuple[int, int] = (12, 8),
    by: str = "",
    stack: bool = False,
    steps: Steps | None = None,
    low: float | None = 0,
    high: float | None = None,
    calcs: tuple[str, ...] = (),
    legend: Literal["list", "table"] = "list",
) -> Panel:
    """Lines over time, one for each value of the label ``by``, or one for each number of the query."""
    panel = _common(timeseries.Panel(), title, description, size, unit, sql, "timeseries")
    mode = kinds.LegendDisplayMode.TABLE if legend == "table" else kinds.LegendDisplayMode.LIST
    placement = kinds.LegendPlacement.RIGHT if legend == "table" else kinds.LegendPlacement.BOTTOM
    panel = (
        panel.line_width(1 if stack else 1.5)
        .fill_opacity(45 if stack else 0)
        .show_points(kinds.VisibilityMode.NEVER)
        .span_nulls(False)
        .stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL if stack else kinds.StackingMode.NONE))
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .legend(common.VizLegendOptions().show_legend(True).display_mode(mode).placement(placement).calcs(list(calcs)))
    )
    panel = _colored(panel, model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
    if by:
        panel = panel.display_name(f"${{__field.labels.{by}}}")
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    if steps is not None:
        style = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(thresholds(steps)).thresholds_style(style)
    return panel


def states(
    title: str,
    description: str,
    sql: str,
    mapping: dict[str, tuple[str, str]],
    *,
    by: str,
    size: tuple[int, int] = (24, 8),
) -> Panel:
    """A state timeline; ``mapping`` gives each value its words and colour."""
    panel = _common(statetimeline.Panel(), title, description, size, "none", sql, "timeseries")
    panel = (
        panel.display_name(f"${{__field.labels.{by}}}")
        .mappings([_mapping(mapping)])
        .merge_values(True)
        .show_value(kinds.VisibilityMode.NEVER)
        .row_height(0.85)
        .fill_opacity(85)
        .line_width(0)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
        )
    )
    return _colored(panel, model.FieldColorModeId.THRESHOLDS).thresholds(thresholds([(None, "text")]))


def heat_map(
    title: str,
    description: str,
    sql: str,
    unit: str,
    *,
    by: str,
    size: tuple[int, int] = (12, 9),
    rows_unit: str = "none",
    low: float | None = None,
    high: float | None = None,
) -> Panel:
    """Time across, the values of the label ``by`` in the order of their names, colour by number."""
    color = (
        heatmap.HeatmapColorOptions()
        .mode(heat.HeatmapColorMode.SCHEME)
        .scheme("Viridis")
        .fill("dark-orange")
        .exponent(0.5)
        .steps(64)
    )
    color = color if low is None else color.min(low)
    color = color if high is None else color.max(high)
    panel = _common(heatmap.Panel(), title, description, size, unit, sql, "timeseries")
    return (
        panel.display_name(f"${{__field.labels.{by}}}")
        .calculate(False)
        .color(color)
        .cell_gap(1)
        .cell_values(heatmap.CellValues().unit(unit))
        .y_axis(heatmap.YAxisConfig().unit(rows_unit))
        .show_legend()
    )


Column = tuple[str, dict[str, Any]]
"""A table's column and what is set for it: unit, decimals, steps, mapping, cell, width, link, name."""


def rows(
    title: str,
    description: str,
    sql: str,
    columns: list[Column],
    *,
    size: tuple[int, int] = (24, 9),
    nothing: str | None = None,
) -> Panel:
    """A table; columns that are not named are shown as they are. ``nothing`` is said where no row is good news."""
    panel = _common(table.Panel(), title, description, size, "none", sql, "table")
    panel = panel.cell_height(kinds.TableCellHeight.SM).show_header(True)
    panel = panel if nothing is None else panel.no_value(nothing)
    panel = _colored(panel, model.FieldColorModeId.THRESHOLDS).thresholds(thresholds([(None, "text")]))
    for name, settings in columns:
        panel = panel.override_by_name(name, _column(settings))
    return panel


def _column(settings: dict[str, Any]) -> list[model.DynamicConfigValue]:
    values: list[model.DynamicConfigValue] = []
    for key, value in settings.items():
        match key:
            case "steps":
                values.append(model.DynamicConfigValue("thresholds", thresholds(value).build()))
            case "mapping":
                values.append(model.DynamicConfigValue("mappings", [_mapping(value)]))
            case "cell":
                values.append(model.DynamicConfigValue("custom.cellOptions", {"type": value}))
            case "bar":
                values.append(model.DynamicConfigValue("custom.cellOptions", {"type": "gauge", "mode": "basic"}))
                values.append(model.DynamicConfigValue("min", 0))
                values.append(model.DynamicConfigValue("max", value))
            case "width":
                values.append(model.DynamicConfigValue("custom.width", value))
            case "link":
                values.append(model.DynamicConfigValue("links", [{"title": value[0], "url": value[1]}]))
            case "name":
                values.append(model.DynamicConfigValue("displayName", value))
            case _:
                values.append(model.DynamicConfigValue(key, value))
    return values


def _mapping(words: dict[str, tuple[str, str]]) -> model.ValueMap:
    return model.ValueMap(
        {
            value: model.ValueMappingResult(text=label, color=color, index=index)
            for index, (value, (label, color)) in enumerate(words.items())
        }
    )


def places(
    title: str, description: str, sql: str, unit: str, *, size: tuple[int, int] = (12, 10), steps: Steps
) -> Panel:
    """A map of points: the query yields latitude, longitude, the point's name and the number that colours it."""
    location = kinds.FrameGeometrySource(
        mode=kinds.FrameGeometrySourceMode.COORDS, latitude="latitude", longitude="longitude"
    )
    style = {
        "style": {
            "color": {"field": "value", "fixed": "green"},
            "size": {"fixed": 7, "min": 4, "max": 16, "field": "weight"},
            "opacity": 0.85,
            "symbol": {"fixed": "img/icons/marker/circle.svg", "mode": "fixed"},
        },
        "showLegend": True,
    }
    panel = _common(geomap.Panel(), title, description, size, unit, sql, "table")
    panel = (
        panel.view(geomap.MapViewConfig().lat(35).lon(108).zoom(4))
        .controls(geomap.ControlsOptions().show_zoom(True).mouse_wheel_zoom(False).show_attribution(True))
        .layers([_Layer(kinds.MapLayerOptions("markers", "Sites", config=style, location=location, tooltip=True))])
        .thresholds(thresholds(steps))
    )
    return _colored(panel, model.FieldColorModeId.THRESHOLDS)


class _Layer:
    """The SDK takes layers as builders but has none for them."""

    def __init__(self, layer: kinds.MapLayerOptions) -> None:
        self._layer = layer

    def build(self) -> kinds.MapLayerOptions:
        return self._layer


def words(title: str, content: str, *, size: tuple[int, int] = (24, 3)) -> Panel:
    """Markdown."""
    panel = text.Panel().title(title).description(title).span(size[0]).height(size[1])
    return panel.mode(texts.TextMode.MARKDOWN).content(content)


def choice(name: str, label: str, sql: str, description: str) -> dashboard.QueryVariable:
    """A variable of several values, all at first, asked for when the dashboard loads."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query(sql)
        .multi(True)
        .include_all(True)
        .allow_custom_value(False)
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def board(
    uid: str, title: str, description: str, *, start: str = "now-3h", refresh: str = "10s"
) -> dashboard.Dashboard:
    """An empty dashboard; ``now`` is a minute ago, so that the last minute shown is a whole one."""
    intervals = ["5s", "10s", "30s", "1m", "5m", "15m"]
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["wattstream"])
        .timezone("utc")
        .time(start, "now")
        .refresh(refresh)
        .timepicker(dashboard.TimePicker().refresh_intervals(intervals).now_delay("1m"))
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["wattstream"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
