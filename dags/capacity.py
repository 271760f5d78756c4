"""Headroom of each site against what the catalogue says there is, and the first hour in which it runs out."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from dags.clickhouse import Warehouse, text
from dags.forecasting.outlook import first_above
from dags.forecasts import FORECASTS, SCORES, newest_window, read_demand, read_issue
from schemas import catalog

OUTLOOK = pl.Schema(
    {
        "issued": pl.Datetime("ms", "UTC"),
        "made": pl.Datetime("ms", "UTC"),
        "site": pl.String(),
        "resource": pl.String(),
        "unit": pl.String(),
        "basis": pl.String(),
        "capacity": pl.Float64(),
        "used": pl.Float64(),
        "used_hour": pl.Datetime("ms", "UTC"),
        "headroom": pl.Float64(),
        "headroom_share": pl.Float64(),
        "peak_p50": pl.Float64(),
        "peak_p90": pl.Float64(),
        "peak_hour": pl.Datetime("ms", "UTC"),
        "first_hour_p50": pl.Datetime("ms", "UTC"),
        "first_hour_p90": pl.Datetime("ms", "UTC"),
        "horizon_hours": pl.UInt16(),
        "coverage": pl.Float64(),
        "completeness": pl.Float64(),
        "note": pl.String(),
    }
)
"""The columns of the table capacity_outlook."""

CAPACITIES = pl.Schema(
    {
        "site": pl.String(),
        "resource": pl.String(),
        "basis": pl.String(),
        "factor": pl.Float64(),
        "capacity": pl.Float64(),
    }
)
"""What is compared: ``capacity`` (W) of a ``resource`` against ``factor`` times the metric that ``basis`` names."""

_FEEDS = """
    SELECT site, toFloat64(argMax(c.amount, (c.effective, c.time))) AS capacity
    FROM capacity AS c
    WHERE c.resource = 'utility_feed' AND c.status = 'actual' AND c.effective <= {issued:DateTime('UTC')}
    GROUP BY site
"""


def capacities(warehouse: Warehouse, issued: datetime) -> pl.DataFrame:
    """The catalogue's feeds and fleets; a feed's newest actual capacity event counts more than the catalogue."""
    stepped = warehouse.frame(_FEEDS, issued=text(issued)).rename({"capacity": "stepped"})
    feeds = (
        catalog.sites()
        .select("site", "pue_target", pl.col("utility_capacity_watts").cast(pl.Float64).alias("capacity"))
        .join(stepped, on="site", how="left")
        .with_columns(pl.coalesce("stepped", "capacity").alias("capacity"))
    )
    fleets = catalog.fleet().group_by("site").agg(pl.col("rated_watts").sum().alias("capacity"))
    utility = feeds.with_columns(resource=pl.lit("utility_feed"))
    return pl.concat(
        frame.select(pl.col(name).cast(dtype) for name, dtype in CAPACITIES.items())
        for frame in (
            utility.with_columns(basis=pl.lit("utility_power"), factor=pl.lit(1.0)),
            utility.with_columns(basis=pl.lit("it_power_times_pue"), factor="pue_target"),
            fleets.with_columns(resource=pl.lit("fleet"), basis=pl.lit("it_power"), factor=pl.lit(1.0)),
        )
    )


def capacity_outlook(
    capacities: pl.DataFrame,
    demand: pl.DataFrame,
    forecasts: pl.DataFrame,
    scores: pl.DataFrame,
    issued: datetime,
    made: datetime,
) -> pl.DataFrame:
    """Rows of the table capacity_outlook, one a site and resource; the first basis that was measured counts.

    ``demand``, ``forecasts`` and ``scores`` are rows of the tables of that name, of one issue.
    """
    day = issued - timedelta(days=1)
    newest = {
        (row["metric"], row["subject"]): row
        for row in demand.filter(pl.col("scope") == "site", pl.col("value").is_not_null(), pl.col("hour") >= day)
        .sort("hour")
        .group_by("metric", "subject", maintain_order=True)
        .last()
        .iter_rows(named=True)
    }
    sites = pl.col("scope") == "site"
    paths = forecasts.filter(sites, "chosen").partition_by("metric", "subject", as_dict=True, maintain_order=True)
    # The score over the longest horizon; of a series that wasn't forecast the one row that says why.
    trust = {
        (row["metric"], row["subject"]): row
        for row in scores.filter(sites, pl.col("chosen") | (pl.col("model") == ""))
        .sort("horizon_hours")
        .iter_rows(named=True)
    }
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in capacities.iter_rows(named=True):
        series = (entry["basis"].removesuffix("_times_pue"), entry["site"])
        row = _row(entry, newest.get(series), paths.get(series), trust.get(series))
        place = (entry["site"], entry["resource"])
        if place not in rows or (rows[place]["used"] is None and row["used"] is not None):
            rows[place] = row
    return pl.DataFrame([{"issued": issued, "made": made, **row} for row in rows.values()], schema=OUTLOOK)


def _row(
    entry: dict[str, Any], newest: dict[str, Any] | None, path: pl.DataFrame | None, trust: dict[str, Any] | None
) -> dict[str, Any]:
    capacity, factor = entry["capacity"], entry["factor"]
    row: dict[str, Any] = {
        "site": entry["site"],
        "resource": entry["resource"],
        "unit": "W",
        "basis": entry["basis"],
        "capacity": capacity,
        "used": None,
        "horizon_hours": 0,
        "note": trust["note"] if trust else "No power was measured in the window.",
        "coverage": trust["coverage"] if trust else None,
        "completeness": trust["completeness"] if trust else None,
    }
    if newest is not None:
        used = newest["value"] * factor
        row |= {
            "used": used,
            "used_hour": newest["hour"],
            "headroom": capacity - used,
            "headroom_share": (capacity - used) / capacity if capacity > 0 else None,
        }
    if path is not None:
        p50, p90 = (path[name].to_numpy() * factor for name in ("p50", "p90"))
        first = {name: first_above(capacity, values) for name, values in (("p50", p50), ("p90", p90))}
        row |= {
            "peak_p50": float(p50.max()),
            "peak_p90": float(p90.max()),
            "peak_hour": path["hour"][int(p90.argmax())],
            "first_hour_p50": None if first["p50"] is None else path["hour"][first["p50"]],
            "first_hour_p90": None if first["p90"] is None else path["hour"][first["p90"]],
            "horizon_hours": path.height,
        }
    return row


@dg.asset(
    name="capacity_outlook",
    deps=["forecasts", "forecast_scores", "demand_1h", "capacity", "sites", "fleet"],
    group_name="planning",
    kinds={"clickhouse", "polars"},
    description="Headroom of each site today, and the first hour in which P50 and P90 exceed its capacity.",
)
def capacity_outlook_asset(warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
    """From the newest issue."""
    window = newest_window(warehouse)
    if window is None:
        raise dg.Failure("demand_1h is empty: materialise it first.", allow_retries=False)
    rows = capacity_outlook(
        capacities(warehouse, window.issued),
        read_demand(warehouse, window),
        read_issue(warehouse, "forecasts", FORECASTS, window.issued),
        read_issue(warehouse, "forecast_scores", SCORES, window.issued),
        window.issued,
        datetime.now(UTC),
    )
    warehouse.replace_issue("capacity_outlook", window.issued, rows)
    return dg.MaterializeResult(
        metadata={
            "issued": window.issued.isoformat(),
            "sites_measured": rows.filter(pl.col("used").is_not_null())["site"].n_unique(),
            "sites_exceeded_p50": rows.filter(pl.col("first_hour_p50").is_not_null())["site"].n_unique(),
            "sites_exceeded_p90": rows.filter(pl.col("first_hour_p90").is_not_null())["site"].n_unique(),
        }
    )


ASSETS = [capacity_outlook_asset]
