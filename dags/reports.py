"""The forecast report: one HTML file that opens offline; each series has a plot, its score, coverage, completeness."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import dagster as dg
import jinja2
import polars as pl
from plotly.offline import get_plotlyjs

from dags.capacity import OUTLOOK
from dags.clickhouse import Warehouse
from dags.demand import SERIES
from dags.forecasting.models import DAY
from dags.forecasts import FORECASTS, SCORES, newest_window, read_demand, read_issue
from schemas.settings import Settings

HISTORY = timedelta(days=10)
"""Of the past in each plot."""

KEPT = 14
"""Reports kept, one a day of issue; 5 MB each, for the plotting library is inside."""

_TIGHT = 0.9
"""Share of a capacity used, or reached by P90, that is worth a look."""

TITLES = {
    "requests": "Requests",
    "input_tokens": "Input tokens",
    "output_tokens": "Output tokens",
    "utility_power": "Power from the utility",
    "it_power": "IT power",
    "accelerator_power": "Accelerator power",
}
RESOURCES = {"utility_feed": "Utility feed", "fleet": "Fleet at full load"}
MODELS = {
    "dynamic_optimized_theta": "dynamic optimised theta",
    "weekly_profile": "weekly profile",
    "theta_and_weekly_profile": "theta and weekly profile, mean",
    "seasonal_naive_24": "seasonal naive (yesterday)",
    "seasonal_naive_168": "seasonal naive (last week)",
}


@dataclass(frozen=True)
class Material:
    """Rows of the tables demand_1h, forecasts, forecast_scores and capacity_outlook of one issue."""

    issued: datetime
    made: datetime
    demand: pl.DataFrame
    forecasts: pl.DataFrame
    scores: pl.DataFrame
    capacity: pl.DataFrame


def render(material: Material) -> str:
    """The report as HTML."""
    capacity = material.capacity
    measured = capacity.filter(pl.col("used").is_not_null()).sort("first_hour_p90", "headroom_share", nulls_last=True)
    unmeasured = (
        capacity.group_by("site", maintain_order=True).agg(pl.col("used").is_null().all()).filter("used")["site"]
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((resources.files("dags") / "templates" / "report.html").read_text("utf-8"))
    horizon = int(material.scores["horizon_hours"].max() or 0)  # pyright: ignore[reportArgumentType]
    return template.render(
        title="Power and token demand: the week ahead" if horizon > DAY else "Power and token demand",
        plotly=get_plotlyjs(),
        issued=_when(material.issued),
        made=_when(material.made),
        standing=_standing(material),
        tiles=_tiles(material, measured),
        notes=_notes(material),
        horizon_days=max(horizon // DAY, 1),
        tight=_percent(_TIGHT),
        headroom=[_headroom(row) for row in measured.iter_rows(named=True)],
        unmeasured=unmeasured.to_list(),
        sections=_sections(material),
    )


def write(html: str, folder: Path, issued: datetime) -> Path:
    """Write the report of its day and take away those of days long past; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"forecast-{issued:%Y-%m-%d}.html"
    draft = file.with_suffix(".html.part")
    draft.write_text(html, "utf-8")
    draft.replace(file)
    for old in sorted(folder.glob("forecast-*.html"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink()
    return file.resolve()


def summary(material: Material) -> str:
    """The headroom and the scores in Markdown, for the asset's page."""
    tight = material.capacity.filter(pl.col("used").is_not_null()).sort(
        "first_hour_p90", "headroom_share", nulls_last=True
    )
    lines = [
        f"Issued for **{_when(material.issued)} UTC**. {_standing(material)}",
        "",
        "| site | resource | used | capacity | headroom | peak P90 | P90 exceeds |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in map(_headroom, tight.head(15).iter_rows(named=True)):
        cells = (row[k] for k in ("site", "resource", "used", "capacity", "headroom", "peak_p90", "first_p90"))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| series | model | horizon | skill | coverage | completeness |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in material.scores.filter("chosen").iter_rows(named=True):
        lines.append(
            f"| {_title(row)} | {MODELS.get(row['model'], row['model'])} | {row['horizon_hours']} h | "
            f"{_percent(row['skill'])} | {_percent(row['coverage'])} | {_percent(row['completeness'])} |"
        )
    return "\n".join(lines)


def quantity(value: float | None, unit: str) -> str:
    """Three digits with an SI prefix: 1.25 GW; an em dash for what isn't known."""
    if value is None or not math.isfinite(value):
        return "—"
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return (
                f"{value / size:.3g} {prefix}{unit}"
                if abs(value) < 999.5 * size
                else f"{value / size:.0f} {prefix}{unit}"
            )
    return f"{value:.3g} {unit}"


def _sections(material: Material) -> list[dict[str, Any]]:
    texts = {
        "network": ("Token demand of the network", "Requests and tokens that the gateways finished in each hour."),
        "region": ("Output tokens by demand region", "The regions with most output tokens."),
        "site": (
            "Power by site",
            "Those nearest to their capacity first; the red line is the capacity, where it is near.",
        ),
    }
    limits = {
        (row["basis"], row["site"]): row
        for row in material.capacity.filter(pl.col("capacity") > 0).iter_rows(named=True)
    }
    history = material.demand.filter(pl.col("hour") >= material.issued - HISTORY)
    past = history.partition_by(*SERIES, as_dict=True, maintain_order=True)
    paths = material.forecasts.partition_by(*SERIES, as_dict=True, maintain_order=True)
    by_scope: dict[str, list[tuple[float, dict[str, Any]]]] = {scope: [] for scope in texts}
    longest = material.scores.sort("horizon_hours").group_by(*SERIES, maintain_order=True)
    for key, scores in longest:
        row = scores.row(0, named=True)
        limit = limits.get((row["metric"], row["subject"]))
        chart = {
            "title": _title(row),
            "figure": _figure(material, row, past.get(key), paths.get(key), limit),
            "facts": _facts(scores),
            "note": row["note"],
        }
        share = limit["headroom_share"] if limit and limit["headroom_share"] is not None else 1.0
        by_scope[row["scope"]].append((share, chart))
    return [
        {
            "title": title,
            "text": text,
            "charts": [chart for _, chart in sorted(by_scope[scope], key=lambda pair: pair[0])],
        }
        for scope, (title, text) in texts.items()
        if by_scope[scope]
    ]


def _figure(
    material: Material,
    series: dict[str, Any],
    past: pl.DataFrame | None,
    paths: pl.DataFrame | None,
    limit: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """Plotly's data and layout: the past, the band from P10 to P90 around P50, the baseline, the capacity."""
    if past is None or past["value"].is_not_null().sum() == 0:
        return None
    unit = _words(series["unit"])

    def line(frame: pl.DataFrame, column: str, name: str, **style: Any) -> dict[str, Any]:
        hover = f"%{{y:.4~s}} {unit}"
        # An even grid of hours: the first and the step say all of x.
        return {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x0": f"{frame['hour'][0]:%Y-%m-%d %H:%M}",
            "dx": 3_600_000,
            "y": frame[column].round_sig_figs(5).to_list(),
            "hovertemplate": hover,
            **style,
        }

    data = [line(past, "value", "measured", line={"color": "#1a2433", "width": 1.4})]
    top = float(past["value"].max())  # pyright: ignore[reportArgumentType]
    if paths is not None:
        chosen = paths.filter("chosen").sort("hour")
        baseline = paths.filter(~pl.col("chosen"), pl.col("model") == series["baseline"])
        for rest in baseline.partition_by("model", maintain_order=True):
            style = {"color": "#9aa7b6", "width": 1, "dash": "dot"}
            data.append(
                line(rest.sort("hour"), "p50", f"P50 of {MODELS.get(rest['model'][0], rest['model'][0])}", line=style)
            )
        data.append(line(chosen, "p10", "P10", line={"width": 0}))
        data.append(line(chosen, "p90", "P90", line={"width": 0}, fill="tonexty", fillcolor="rgba(31,111,235,.18)"))
        data.append(line(chosen, "p50", "P50", line={"color": "#1f6feb", "width": 1.8}))
        top = max(top, float(chosen["p90"].max()))  # pyright: ignore[reportArgumentType]
    issued = f"{material.issued:%Y-%m-%d %H:%M}"
    shapes: list[dict[str, Any]] = [
        {
            "type": "line",
            "x0": issued,
            "x1": issued,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": "#c3ccd6", "width": 1, "dash": "dash"},
        }
    ]
    # A capacity far above would press the curve flat.
    if limit is not None and top > 0.5 * limit["capacity"]:
        shapes.append(
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": limit["capacity"],
                "y1": limit["capacity"],
                "line": {"color": "#c0262d", "width": 1.5},
            }
        )
        top = max(top, limit["capacity"])
    return {
        "data": data,
        "layout": {"shapes": shapes, "yaxis": {"title": {"text": unit}, "range": [0, 1.08 * top] if top > 0 else None}},
    }


def _facts(scores: pl.DataFrame) -> list[dict[str, str]]:
    """What is said under a plot: of the chosen model, a day ahead and over the whole horizon."""
    chosen = scores.filter("chosen")
    first = scores.row(0, named=True)
    facts = [{"name": "unit", "value": _words(first["unit"]), "mood": ""}]
    if chosen.height:
        facts.append({"name": "model", "value": MODELS[chosen["model"][0]], "mood": ""})
        for row in chosen.unique("horizon_hours", maintain_order=True).iter_rows(named=True):
            ahead = f"{row['horizon_hours']} h"
            facts.append(
                {
                    "name": f"skill {ahead}",
                    "value": _percent(row["skill"]),
                    "mood": "good" if (row["skill"] or 0) > 0 else "",
                }
            )
            facts.append(
                {"name": f"WQL {ahead}", "value": "—" if row["wql"] is None else f"{row['wql']:.3f}", "mood": ""}
            )
            trusted = row["coverage"] is not None and 0.6 <= row["coverage"] <= 0.95
            facts.append(
                {"name": f"coverage {ahead}", "value": _percent(row["coverage"]), "mood": "" if trusted else "warn"}
            )
    completeness = first["completeness"]
    facts.append(
        {"name": "completeness", "value": _percent(completeness), "mood": "" if (completeness or 0) >= 0.95 else "warn"}
    )
    return facts


def _headroom(row: dict[str, Any]) -> dict[str, Any]:
    used = 1 - row["headroom_share"] if row["headroom_share"] is not None else None
    reach = max(row["peak_p90"] or 0, row["used"] or 0) / row["capacity"] if row["capacity"] else 0
    mood = (
        "bad" if row["first_hour_p50"] or (used or 0) > 1 else "warn" if row["first_hour_p90"] or reach > _TIGHT else ""
    )
    never = "—" if not row["horizon_hours"] else f"not in {row['horizon_hours']} h"
    basis = " (IT × PUE)" if row["basis"] == "it_power_times_pue" else ""
    return {
        "site": row["site"],
        "resource": RESOURCES[row["resource"]] + basis,
        "mood": mood,
        "bar": f"{100 * min(max(used or 0, 0), 1):.0f}",
        "share": _percent(used),
        "first_p50": _soon(row["first_hour_p50"]) if row["first_hour_p50"] else never,
        "first_p90": _soon(row["first_hour_p90"]) if row["first_hour_p90"] else never,
        "coverage": _percent(row["coverage"]),
        "completeness": _percent(row["completeness"]),
        **{name: quantity(row[name], row["unit"]) for name in ("capacity", "used", "headroom", "peak_p50", "peak_p90")},
    }


def _tiles(material: Material, measured: pl.DataFrame) -> list[dict[str, str]]:
    feeds = measured.filter(pl.col("resource") == "utility_feed")
    short90 = feeds["first_hour_p90"].count()
    series = material.scores.select(SERIES).unique().height
    chosen = material.scores.filter("chosen").sort("horizon_hours").group_by(*SERIES).first()
    better = chosen.filter(pl.col("model") != pl.col("baseline")).height
    coverage: Any = chosen["coverage"].median()
    used: Any = feeds["used"].sum() if feeds.height else None
    headroom: Any = feeds["headroom"].sum() if feeds.height else None
    tiles = [
        (quantity(used, "W"), f"drawn by {feeds.height} sites in the last hour", ""),
        (quantity(headroom, "W"), "headroom of their feeds", ""),
        (str(short90), "sites may exceed their feed (P90)", "bad" if short90 else "good"),
        (f"{chosen.height} of {series}", "series could be forecast", ""),
        (f"{better} of {chosen.height}", "are better by model than by repeating the past", ""),
        (_percent(coverage), "median coverage a day ahead (ideal 80 %)", ""),
    ]
    return [{"value": value, "label": label, "mood": mood} for value, label, mood in tiles]


def _notes(material: Material) -> list[str]:
    notes: list[str] = []
    late = material.made - material.issued
    if late > timedelta(hours=2):
        notes.append(
            f"The data ends {_when(material.issued)} UTC, {_span(late)} before this was computed: it starts from there."
        )
    silent = material.scores.filter(pl.col("model") == "").height
    if silent:
        notes.append(f"{silent} series could not be forecast; each says below why.")
    poor = material.scores.filter(pl.col("chosen"), (pl.col("coverage") < 0.1) | (pl.col("coverage") > 0.99))
    if poor.height:
        names = ", ".join(sorted({_title(row) for row in poor.iter_rows(named=True)}))
        notes.append(f"Coverage is outside of 10 to 99 %, so don't rely on these bands: {names}.")
    return notes


def _standing(material: Material) -> str:
    hours = material.demand.height
    known = material.demand["value"].count()
    if not hours:
        return "There is no data yet."
    first: Any = material.demand["hour"].min()
    return (
        f"It stands on {_span(material.issued - first)} of hourly data, {_percent(known / hours)} of whose "
        f"{hours:,} hourly values are measured."
    )


def _title(row: dict[str, Any]) -> str:
    name = TITLES[row["metric"]]
    return f"{name}, {row['subject']}" if row["subject"] else name


def _percent(share: float | None) -> str:
    return "—" if share is None or not math.isfinite(share) else f"{100 * share:.0f} %"


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _soon(moment: datetime) -> str:
    return f"{moment:%a %d %b %H:%M}"


def _words(unit: str) -> str:
    """{token}/h reads token/h."""
    return unit.replace("{", "").replace("}", "")


def _span(span: timedelta) -> str:
    hours = round(span / timedelta(hours=1))
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours} hours"


@dg.asset(
    name="forecast_report",
    deps=["demand_1h", "forecasts", "forecast_scores", "capacity_outlook"],
    group_name="planning",
    kinds={"html", "plotly"},
    description="The planner's report: headroom, forecasts with their scores, and plots, in one file.",
)
def forecast_report(
    warehouse: dg.ResourceParam[Warehouse], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult:
    """Of the newest issue, under home/reports."""
    window = newest_window(warehouse)
    if window is None:
        raise dg.Failure("demand_1h is empty: materialise it first.", allow_retries=False)
    material = Material(
        issued=window.issued,
        made=datetime.now(UTC),
        demand=read_demand(warehouse, window),
        forecasts=read_issue(warehouse, "forecasts", FORECASTS, window.issued),
        scores=read_issue(warehouse, "forecast_scores", SCORES, window.issued),
        capacity=read_issue(warehouse, "capacity_outlook", OUTLOOK, window.issued),
    )
    file = write(render(material), settings.home / "reports", window.issued)
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(file),
            "open": dg.MetadataValue.url(file.as_uri()),
            "summary": dg.MetadataValue.md(summary(material)),
            "issued": window.issued.isoformat(),
        }
    )


ASSETS = [forecast_report]
