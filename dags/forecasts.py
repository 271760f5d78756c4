"""Forecasts of every demand series, each with the baseline beside it and the backtest of both."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
import numpy as np
import polars as pl

from dags.clickhouse import Warehouse, text
from dags.demand import LOOKBACK, SERIES, Window
from dags.forecasting.outlook import Outlook, outlook

_DEMAND = """
    SELECT toDateTime64(hour, 0, 'UTC') AS hour, metric, scope, subject, unit, value, completeness, state
    FROM demand_1h
    WHERE hour >= {start:DateTime('UTC')} AND hour < {stop:DateTime('UTC')}
    ORDER BY metric, scope, subject, hour
"""

FORECASTS = pl.Schema(
    {
        "issued": pl.Datetime("ms", "UTC"),
        "made": pl.Datetime("ms", "UTC"),
        "metric": pl.String(),
        "scope": pl.String(),
        "subject": pl.String(),
        "unit": pl.String(),
        "model": pl.String(),
        "chosen": pl.Boolean(),
        "hour": pl.Datetime("ms", "UTC"),
        "ahead_hours": pl.UInt16(),
        "p10": pl.Float64(),
        "p50": pl.Float64(),
        "p90": pl.Float64(),
    }
)
"""The columns of the table forecasts."""

SCORES = pl.Schema(
    {
        "issued": pl.Datetime("ms", "UTC"),
        "made": pl.Datetime("ms", "UTC"),
        "metric": pl.String(),
        "scope": pl.String(),
        "subject": pl.String(),
        "unit": pl.String(),
        "model": pl.String(),
        "chosen": pl.Boolean(),
        "baseline": pl.String(),
        "horizon_hours": pl.UInt16(),
        "origins": pl.UInt16(),
        "scored_hours": pl.UInt32(),
        "scored_share": pl.Float64(),
        "pinball": pl.Float64(),
        "wql": pl.Float64(),
        "skill": pl.Float64(),
        "coverage": pl.Float64(),
        "history_hours": pl.UInt32(),
        "completeness": pl.Float64(),
        "note": pl.String(),
    }
)
"""The columns of the table forecast_scores."""


@dataclass(frozen=True)
class Issue:
    """What was said at one time: rows of the tables forecasts and forecast_scores."""

    forecasts: pl.DataFrame
    scores: pl.DataFrame


def newest_window(warehouse: Warehouse) -> Window | None:
    """The window of the newest demand; None where there is none."""
    newest: datetime | None = warehouse.frame("SELECT toDateTime64(maxOrNull(hour), 0, 'UTC') AS hour FROM demand_1h")[
        "hour"
    ].item()
    if newest is None:
        return None
    issued = newest + timedelta(hours=1)
    return Window((issued - LOOKBACK).replace(hour=0), issued)


def read_demand(warehouse: Warehouse, window: Window) -> pl.DataFrame:
    """The rows of demand_1h in a window, in order of series and hour."""
    return warehouse.frame(_DEMAND, start=text(window.start), stop=text(window.issued))


def read_issue(warehouse: Warehouse, table: str, schema: pl.Schema, issued: datetime) -> pl.DataFrame:
    """The rows of one issue of a table, with these columns."""
    columns = ", ".join(
        f"toDateTime64({name}, 3, 'UTC') AS {name}" if isinstance(dtype, pl.Datetime) else name
        for name, dtype in schema.items()
    )
    sql = f"SELECT {columns} FROM {table} AS t WHERE t.issued = {{issued:DateTime('UTC')}} ORDER BY ALL"  # noqa: S608
    return warehouse.frame(sql, issued=text(issued)).cast(dict(schema))  # pyright: ignore[reportArgumentType]


def issue(
    demand: pl.DataFrame,
    issued: datetime,
    made: datetime,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Issue:
    """Forecast every series of ``demand`` (rows of demand_1h, each hour of a series once) from ``issued`` on."""
    series = demand.partition_by(*SERIES, as_dict=True, maintain_order=True)
    forecasts: list[pl.DataFrame] = []
    scores: list[dict[str, object]] = []
    for done, (key, rows) in enumerate(series.items(), 1):
        values = rows["value"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        seen = outlook(values)
        known = int(np.isfinite(values).sum())
        common: dict[str, object] = {
            "issued": issued,
            "made": made,
            **dict(zip(SERIES, key, strict=True)),
            "unit": rows["unit"][0],
        }
        stands_on = {"history_hours": len(values), "completeness": known / len(values), "note": seen.note}
        forecasts.extend(_forecast_rows(seen, common, issued))
        scores.extend(common | stands_on | score for score in _score_rows(seen))
        progress(done, len(series))
    return Issue(
        pl.concat([FORECASTS.to_frame(), *forecasts]),
        pl.DataFrame(scores, schema=SCORES).with_columns(pl.col(pl.Float64).fill_nan(None)),
    )


def _forecast_rows(seen: Outlook, common: dict[str, object], issued: datetime) -> list[pl.DataFrame]:
    frames: list[pl.DataFrame] = []
    for test in seen.tests:
        ahead = pl.Series("ahead_hours", range(1, len(test.bands) + 1))
        bands = pl.DataFrame(test.bands, schema=["p10", "p50", "p90"])
        columns = bands.with_columns(ahead).with_columns(
            [pl.lit(value).alias(name) for name, value in common.items()],
            model=pl.lit(test.model),
            chosen=pl.lit(test.model == seen.chosen),
            hour=pl.lit(issued) + pl.duration(hours=pl.col("ahead_hours").cast(pl.Int64) - 1),
        )
        frames.append(columns.select(pl.col(name).cast(dtype) for name, dtype in FORECASTS.items()))
    return frames


def _score_rows(seen: Outlook) -> list[dict[str, object]]:
    if not seen.tests:
        return [
            {
                "model": "",
                "chosen": False,
                "baseline": "",
                "horizon_hours": 0,
                "origins": 0,
                "scored_hours": 0,
                "scored_share": 0.0,
            }
        ]
    return [
        {
            "model": test.model,
            "chosen": test.model == seen.chosen,
            "baseline": seen.baseline,
            "horizon_hours": score.horizon,
            "origins": score.origins,
            "scored_hours": score.hours,
            "scored_share": score.scored_share,
            "pinball": score.pinball,
            "wql": score.wql,
            "skill": seen.skill(test.model, place),
            "coverage": score.coverage,
        }
        for test in seen.tests
        for place, score in enumerate(test.scores)
    ]


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            "forecasts",
            deps=["demand_1h"],
            group_name="planning",
            kinds={"clickhouse", "statsforecast"},
            description="P10, P50 and P90 of every demand series up to a week ahead, the baseline beside the model.",
        ),
        dg.AssetSpec(
            "forecast_scores",
            deps=["demand_1h"],
            group_name="planning",
            kinds={"clickhouse"},
            description="The backtest of each forecast: loss, coverage and skill on held-out origins.",
        ),
    ]
)
def forecasts(
    context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
) -> Iterator[dg.MaterializeResult]:
    """Forecast from the newest demand and replace the issue of that hour."""
    window = newest_window(warehouse)
    if window is None:
        raise dg.Failure("demand_1h is empty: materialise it first.", allow_retries=False)

    def progress(done: int, total: int) -> None:
        if done % 25 == 0 or done == total:
            context.log.info(f"{done} of {total} series")

    made = issue(read_demand(warehouse, window), window.issued, datetime.now(UTC), progress)
    warehouse.replace_issue("forecasts", window.issued, made.forecasts)
    warehouse.replace_issue("forecast_scores", window.issued, made.scores)
    chosen = made.scores.filter("chosen").sort("horizon_hours").group_by(*SERIES).first()
    issued = window.issued.isoformat()
    yield dg.MaterializeResult(asset_key="forecasts", metadata={"issued": issued, "rows": made.forecasts.height})
    yield dg.MaterializeResult(
        asset_key="forecast_scores",
        metadata={
            "issued": issued,
            "series": made.scores.select(SERIES).unique().height,
            "forecast": chosen.height,
            "better_than_baseline": chosen.filter(pl.col("model") != pl.col("baseline")).height,
            "median_coverage_a_day_ahead": _median(chosen["coverage"]),
        },
    )


@dg.asset_check(asset="forecasts", description="P10 <= P50 <= P90 and all of them finite numbers.")
def quantiles_ordered(warehouse: dg.ResourceParam[Warehouse]) -> dg.AssetCheckResult:
    """Over all issues kept."""
    wrong = warehouse.frame(
        "SELECT count() AS wrong FROM forecasts WHERE NOT (p10 <= p50 AND p50 <= p90 AND isFinite(p90 - p10))"
    )["wrong"].item()
    return dg.AssetCheckResult(passed=wrong == 0, metadata={"rows_out_of_order": int(wrong)})


@dg.asset_check(
    asset="forecast_scores", description="Of the newest issue, the band holds 10 to 99 % of held-out hours."
)
def coverage_plausible(warehouse: dg.ResourceParam[Warehouse]) -> dg.AssetCheckResult:
    """A series that never varies has no loss and is left out."""
    off = warehouse.frame("""
        SELECT metric || ' ' || subject AS series, coverage FROM forecast_scores
        WHERE issued = (SELECT max(issued) FROM forecast_scores) AND chosen AND pinball > 0
            AND NOT (coverage BETWEEN 0.1 AND 0.99)
    """)
    return dg.AssetCheckResult(
        passed=off.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"series_off": off.height, "series": ", ".join(off["series"].head(20)) or "none"},
    )


def _median(values: pl.Series) -> float:
    median = values.median()
    return float(median) if isinstance(median, int | float) else float("nan")


ASSETS = [forecasts]
CHECKS = [quantiles_ordered, coverage_plausible]
