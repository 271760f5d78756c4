"""What must be appended to a rollup so that it says what the raw rows say: pure Polars, no Kafka, no ClickHouse.

A difference is signed and appended, so that readers never see a hole, and taken anew from what is there, so that
mending twice adds nothing.
"""

from dataclasses import dataclass

import polars as pl

from schemas.sums import SUMS

UPTO_OF_MENDING = -1
"""In a row that mends: below every offset, so that no start of a partition takes it for a flush."""

_BUCKET = pl.Struct({"bucket": pl.Int16(), "count": pl.Int64()})


@dataclass(frozen=True)
class Mending:
    """``rows`` to append to the rollup; ``beyond``: groups with an extreme that nothing appended can narrow."""

    rows: pl.DataFrame
    beyond: int


def mend(table: str, expected: pl.DataFrame, present: pl.DataFrame) -> Mending:
    """Expected minus present, by group.

    ``expected`` is what ``roll_up`` makes of the raw rows, ``present`` the table's rows read with GROUP BY, in the same
    columns and types; both of the same minutes and partition. ``rows`` has these columns and ``upto``.
    """
    columns = expected.columns
    keys = group_keys(expected)
    sums = list(SUMS[table])
    lows = [c for c in columns if c.endswith("_min") and c != "arrived_min"]
    highs = [c for c in columns if c.endswith("_max")]
    readings = [c for c in columns if c.startswith("joules_")]
    histograms = [c for c in columns if c.endswith("_histogram")]
    both = expected.join(present, on=keys, how="full", coalesce=True, suffix="_there", nulls_equal=True)
    for name in histograms:
        both = both.drop(name, f"{name}_there").join(
            _histogram_difference(keys, name, expected, present), on=keys, how="left"
        )
    wider, narrower = pl.lit(value=False), pl.lit(value=False)
    for name in lows + highs:
        lower = name in lows
        out, inside = _compared(pl.col(name), pl.col(f"{name}_there"), lower=lower)
        wider, narrower = wider | out, narrower | inside
    for name in readings:
        lower = name == "joules_first"
        ours, theirs = (pl.col(column).struct[0].fill_null(_never(lower)) for column in (name, f"{name}_there"))
        out, inside = _compared(ours, theirs, lower=lower)
        wider, narrower = wider | out, narrower | inside
    differences = [(pl.col(c).fill_null(0) - pl.col(f"{c}_there").fill_null(0)).alias(c) for c in sums]
    changed = pl.any_horizontal(d != 0 for d in differences) | wider
    for name in histograms:
        changed |= pl.col(name).list.len() > 0
    never = {name: _no_reading(lower=name == "joules_first") for name in readings}
    rows = both.filter(changed).select(
        *keys,
        *differences,
        *lows,
        *highs,
        *(pl.when(pl.col(c).is_null()).then(never[c]).otherwise(pl.col(c)).alias(c) for c in readings),
        *histograms,
        pl.min_horizontal("arrived_min", "arrived_min_there").alias("arrived_min"),
        pl.lit(UPTO_OF_MENDING, pl.Int64).alias("upto"),
    )
    return Mending(rows.select(*columns, "upto"), both.filter(narrower).height)


def group_keys(rollup: pl.DataFrame) -> list[str]:
    """What a rollup's rows are grouped by: minute, partition, and every text column."""
    return ["minute", "topic_partition", *(c for c, kind in rollup.schema.items() if kind == pl.String())]


def _compared(ours: pl.Expr, theirs: pl.Expr, *, lower: bool) -> tuple[pl.Expr, pl.Expr]:
    """(ours reaches further out than what is there, what is there reaches further out than ours)."""
    out = ours.is_not_null() & theirs.is_null()
    inside = ours.is_null() & theirs.is_not_null()
    further = (ours < theirs, theirs < ours) if lower else (ours > theirs, theirs > ours)
    return out | further[0].fill_null(value=False), inside | further[1].fill_null(value=False)


def _never(lower: bool) -> pl.Expr:
    return pl.lit(2**63 - 1 if lower else 0, pl.Int64).cast(pl.Datetime("ns", "UTC"))


def _no_reading(*, lower: bool) -> pl.Expr:
    return pl.struct(_never(lower).alias("time"), pl.lit(0.0).alias("joules"))


def _histogram_difference(keys: list[str], name: str, expected: pl.DataFrame, present: pl.DataFrame) -> pl.DataFrame:
    def counted(rows: pl.DataFrame, sign: int) -> pl.DataFrame:
        exploded = (
            rows.select(*keys, pl.col(name).cast(pl.List(_BUCKET)).alias("pair")).explode("pair").drop_nulls("pair")
        )
        return exploded.select(
            *keys, pl.col("pair").struct.field("bucket"), pl.col("pair").struct.field("count") * sign
        )

    return (
        pl.concat([counted(expected, 1), counted(present, -1)])
        .group_by(*keys, "bucket")
        .agg(pl.col("count").sum())
        .filter(pl.col("count") != 0)
        .sort("bucket")
        .group_by(keys)
        .agg(pl.struct("bucket", "count").alias(name))
    )
