"""Hourly demand: power by site, requests and tokens by region and in all; a missing hour stays so and is marked."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl

from dags.clickhouse import Warehouse, text

TABLE = "demand_1h"

STALE = timedelta(hours=3)
"""Data that ends longer ago is not what a plan for today should stand on."""

LOOKBACK = timedelta(days=35)
"""History that plans stand on: five weeks hold each weekday five times, and few sites stay the same for longer."""

COMPLETE = 0.95
"""Meters heard over expected, below which an hour's sum says too little: it is partial, and has no value."""

REGIONS = 10
"""The regions with most output tokens get a series each."""

UNITS = {
    "utility_power": "W",
    "it_power": "W",
    "accelerator_power": "W",
    "requests": "{request}/h",
    "input_tokens": "{token}/h",
    "output_tokens": "{token}/h",
}
"""The metrics and their units: utility_power is what the feed's meters say, it_power what the IT meters say or else the
sum of the servers' mean power, accelerator_power (only where a site has neither) the sum over accelerators."""

SERIES = ("metric", "scope", "subject")
"""What names a series."""

_NEWEST = """
    SELECT toDateTime64(max(newest), 0, 'UTC') AS newest FROM (
        SELECT max(minute) AS newest FROM power_1m
        UNION ALL SELECT max(minute) FROM utilization_1m
        UNION ALL SELECT max(minute) FROM tokens_1m
    )
"""

# Which roles may be added up (they overlap otherwise): the feed's meters; the IT meters, or else all servers; or else
# all accelerators. Expected is who is registered for the whole hour; a meter that nobody registered, from its first
# to its last reading.
_POWER = """
WITH
    readings AS
    (
        SELECT hour, site, node, meter AS emitter, role, milliwatts / power_samples / 1e3 AS watts
        FROM power_1h
        WHERE role IN ('utility', 'it', 'node') AND power_samples > 0
            AND hour >= {start:DateTime('UTC')} AND hour < {stop:DateTime('UTC')}
        UNION ALL
        SELECT hour, site, node, device, 'accelerator', milliwatts / power_samples * (device_samples / samples) / 1e3
        FROM utilization_1h
        WHERE power_samples > 0 AND samples > 0
            AND hour >= {start:DateTime('UTC')} AND hour < {stop:DateTime('UTC')}
            AND site NOT IN (
                SELECT site FROM power_1h
                WHERE role IN ('it', 'node') AND power_samples > 0
                    AND hour >= {start:DateTime('UTC')} AND hour < {stop:DateTime('UTC')})
    ),
    meters AS
    (
        SELECT site, node, emitter, role, min(hour) AS first, max(hour) + INTERVAL 1 HOUR AS last
        FROM readings
        GROUP BY site, node, emitter, role
    ),
    registered AS
    (
        SELECT topic, site, node, emitter, since, argMax(e.until, e.registered) AS until,
            argMax(e.maintenance, e.registered) AS maintenance
        FROM emitters AS e
        WHERE topic IN ('power', 'utilization')
        GROUP BY topic, site, node, emitter, since
    ),
    spans AS
    (
        SELECT m.site AS site, m.role AS role, m.node AS node, m.emitter AS emitter, r.emitter != '' AS known,
            if(known, greatest(r.since, {start:DateTime('UTC')}), m.first) AS since,
            if(known, least(r.until, {stop:DateTime('UTC')}), m.last) AS until,
            r.maintenance AS maintenance
        FROM meters AS m
        LEFT JOIN registered AS r
            ON r.topic = if(m.role = 'accelerator', 'utilization', 'power')
            AND r.site = m.site AND r.node = m.node AND r.emitter = m.emitter
    ),
    expected AS
    (
        SELECT hour, site, role, uniqExact(node, emitter) AS expected
        FROM spans
        ARRAY JOIN range(
            toUInt32(toStartOfHour(since + INTERVAL 3599 SECOND)),
            toUInt32(until - INTERVAL 3599 SECOND),
            toUInt32(3600)) AS hour
        WHERE NOT maintenance
        GROUP BY hour, site, role
    ),
    heard AS
    (
        SELECT toUInt32(hour) AS hour, site, role, count() AS heard, sum(watts) AS watts
        FROM readings
        GROUP BY hour, site, role
    )
SELECT
    toDateTime64(toDateTime(hour, 'UTC'), 0, 'UTC') AS hour, site, role, watts, toInt64(heard) AS heard,
    toInt64(expected) AS expected
FROM expected
LEFT JOIN heard USING (hour, site, role)
ORDER BY site, role, hour
"""

_TOKENS = """
SELECT
    toDateTime64(hour, 0, 'UTC') AS hour,
    grouping(region) AS network,
    region,
    toFloat64(sum(t.requests)) AS requests,
    toFloat64(sum(t.input_tokens)) AS input_tokens,
    toFloat64(sum(t.output_tokens)) AS output_tokens,
    1 - sum(t.unknown_requests) / sum(t.requests) AS known
FROM tokens_1h AS t
WHERE hour >= {start:DateTime('UTC')} AND hour < {stop:DateTime('UTC')}
GROUP BY GROUPING SETS ((hour), (hour, region))
HAVING sum(t.requests) > 0
"""

_FIRST = """
    SELECT toDateTime64(min(minute), 0, 'UTC') AS first FROM tokens_1m WHERE minute >= {start:DateTime('UTC')}
"""


@dataclass(frozen=True)
class Window:
    """The hours that a plan stands on: ``start`` (of a day) to ``issued``, exclusive, the first one forecast."""

    start: datetime
    issued: datetime

    @property
    def days(self) -> list[date]:
        """Every day that it touches."""
        last = (self.issued - timedelta(microseconds=1)).date()
        return [self.start.date() + timedelta(days=n) for n in range((last - self.start.date()).days + 1)]


def window(warehouse: Warehouse, now: datetime) -> Window | None:
    """Up to the last whole hour of data, which in a stack that imported a trace may be long ago; None without data."""
    newest: datetime | None = warehouse.frame(_NEWEST)["newest"].item()
    if newest is None or newest.year < 1971:
        return None
    issued = min(newest, now).replace(minute=0, second=0, microsecond=0)
    return Window((issued - LOOKBACK).replace(hour=0), issued)


def demand(warehouse: Warehouse, window: Window) -> pl.DataFrame:
    """Rows as in the table demand_1h: every hour of every series from its first on, in order."""
    bounds = {"start": text(window.start), "stop": text(window.issued)}
    rows = [_power(warehouse.frame(_POWER, **bounds)), _tokens(warehouse, bounds)]
    return _gaps_marked(pl.concat(rows), window)


def _power(readings: pl.DataFrame) -> pl.DataFrame:
    """One IT series a site: its own meters say more than its servers, and those more than their accelerators."""
    metered = readings.filter(pl.col("role") == "it", pl.col("heard") > 0)["site"].unique()
    names = {"utility": "utility_power", "it": "it_power", "node": "it_power", "accelerator": "accelerator_power"}
    complete = pl.min_horizontal(pl.col("heard") / pl.col("expected"), 1.0)
    return readings.filter((pl.col("role") != "node") | ~pl.col("site").is_in(metered.implode())).select(
        "hour",
        pl.col("role").replace_strict(names, return_dtype=pl.String).alias("metric"),
        pl.lit("site").alias("scope"),
        pl.col("site").alias("subject"),
        pl.when(complete >= COMPLETE).then("watts").alias("value"),
        complete.alias("completeness"),
        pl.when(complete >= COMPLETE)
        .then(pl.lit("measured"))
        .when(pl.col("heard") > 0)
        .then(pl.lit("partial"))
        .otherwise(pl.lit("missing"))
        .alias("state"),
    )


def _tokens(warehouse: Warehouse, bounds: dict[str, str]) -> pl.DataFrame:
    """Requests and tokens of the network, output tokens of the largest regions; not the hour that data begins in."""
    usage = warehouse.frame(_TOKENS, **bounds)
    first: datetime | None = warehouse.frame(_FIRST, start=bounds["start"])["first"].item()
    if first is not None:
        usage = usage.filter(pl.col("hour") >= first)
    largest = (
        usage.filter(pl.col("network") == 0, pl.col("region") != "")
        .group_by("region")
        .agg(pl.col("output_tokens").sum())
        .top_k(REGIONS, by="output_tokens")["region"]
    )
    network = usage.filter(pl.col("network") == 1).with_columns(scope=pl.lit("network"), subject=pl.lit(""))
    regions = (
        usage.filter(pl.col("network") == 0, pl.col("region").is_in(largest.implode()))
        .with_columns(scope=pl.lit("region"), subject="region")
        .select(pl.exclude("requests", "input_tokens"))
    )
    index = ["hour", "scope", "subject", "known"]
    rows = pl.concat(
        [
            network.unpivot(["requests", "input_tokens", "output_tokens"], index=index, variable_name="metric"),
            regions.unpivot(["output_tokens"], index=index, variable_name="metric"),
        ]
    )
    return rows.select(
        "hour",
        "metric",
        "scope",
        "subject",
        "value",
        pl.col("known").alias("completeness"),
        pl.lit("measured").alias("state"),
    )


def _gaps_marked(rows: pl.DataFrame, window: Window) -> pl.DataFrame:
    """A row for every hour of a series from its first to the end of the window; the added ones have no value."""
    grid = (
        rows.group_by(SERIES)
        .agg(pl.col("hour").min().alias("first"))
        .with_columns(
            pl.datetime_ranges("first", window.issued, "1h", closed="left", time_unit="ms", time_zone="UTC").alias(
                "hour"
            )
        )
        .explode("hour")
        .drop("first")
    )
    return (
        grid.join(rows, on=[*SERIES, "hour"], how="left")
        .with_columns(
            pl.col("metric").replace_strict(UNITS, return_dtype=pl.String).alias("unit"),
            pl.col("state").fill_null("missing"),
        )
        .select("hour", *SERIES, "unit", "value", "completeness", "state")
        .sort(*SERIES, "hour")
    )


@dg.asset(
    name=TABLE,
    deps=["power_1h", "utilization_1h", "tokens_1h", "emitters"],
    group_name="planning",
    kinds={"clickhouse", "polars"},
    description="Hourly demand of power, requests and tokens; gaps are marked, never filled.",
)
def demand_1h(warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
    """Build and replace every day of the window."""
    span = window(warehouse, datetime.now(UTC))
    if span is None:
        raise dg.Failure(
            "There is nothing to plan from: no power, utilization or token event has been stored yet. "
            "Start the simulator (wattstream up), or import a trace (wattstream import).",
            allow_retries=False,
        )
    rows = demand(warehouse, span)
    warehouse.replace_days(TABLE, span.days, rows)
    states = dict(rows["state"].value_counts().iter_rows())
    return dg.MaterializeResult(
        metadata={"issued": span.issued.isoformat(), "series": rows.select(SERIES).unique().height, **states}
    )


@dg.asset_check(asset=TABLE, description=f"The data reaches up to {STALE} ago.")
def fresh(warehouse: dg.ResourceParam[Warehouse]) -> dg.AssetCheckResult:
    """Late by how much."""
    newest: datetime | None = warehouse.frame(_NEWEST)["newest"].item()
    late = datetime.now(UTC) - newest if newest else None
    return dg.AssetCheckResult(
        passed=late is not None and late <= STALE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"newest_minute": str(newest), "seconds_late": late.total_seconds() if late else -1},
    )


ASSETS = [demand_1h]
CHECKS = [fresh]
