"""What is appended to a rollup makes it say what the raw rows say, whatever it said before."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import BY_NAME
from schemas.sums import SUMS
from schemas.tables import ROLLUPS, expiry_of
from streams.mending import group_keys, mend
from streams.rollup import roll_up

START = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = [(name, table) for name, tables in ROLLUPS.items() for table in tables]
TOGETHER = {"_min": "min", "_max": "max"}


def events(name: str, numbers: list[int]) -> pl.DataFrame:
    """One event a number, few groups and minutes, some values missing."""
    rows = pl.DataFrame({"n": pl.Series(numbers, dtype=pl.Int64)})
    n = pl.col("n")
    columns: list[pl.Expr] = []
    for place, field in enumerate(BY_NAME[name].fields):
        if field.kind == "time":
            value = pl.lit(START).cast(pl.Datetime("ns", "UTC")) + pl.duration(seconds=n * 7 % 180, nanoseconds=n)
        elif field.kind == "text":
            value = pl.format("{}", n % (2 if place % 2 else 1))
        elif field.default is not None:
            value = n % 3 + 1
        elif field.kind == "real":
            value = pl.when(n % (place + 2) != 0).then(n * 0.37 + 0.001)
        else:
            value = pl.when(n % (place + 2) != 0).then(n * 3)
        columns.append(value.cast(field.polars).alias(field.column))
    return rows.select(
        *columns,
        pl.lit(0, pl.UInt16).alias("topic_partition"),
        n.alias("offset"),
        (pl.lit(START) + pl.duration(milliseconds=n)).cast(pl.Datetime("ms", "UTC")).alias("arrived"),
    )


def merged(table: str, parts: list[pl.DataFrame]) -> pl.DataFrame:
    """What a reader sees of rows appended to a rollup: each column put together as its type says."""
    rows = pl.concat([part.select(parts[0].columns) for part in parts], how="vertical_relaxed")
    keys = group_keys(rows)
    plain: list[pl.Expr] = [pl.col(name).sum() for name in SUMS[table]]
    plain += [pl.col(c).min() for c in rows.columns if c.endswith("_min")]
    plain += [pl.col(c).max() for c in rows.columns if c.endswith("_max")]
    plain += [pl.col(c).sort().first() for c in rows.columns if c == "joules_first"]
    plain += [pl.col(c).sort().last() for c in rows.columns if c == "joules_last"]
    found = rows.group_by(keys).agg(plain)
    for name in (c for c in rows.columns if c.endswith("_histogram")):
        pairs = rows.select(*keys, pl.col(name).alias("pair")).explode("pair").drop_nulls("pair").unnest("pair")
        counts = pairs.group_by(*keys, "bucket").agg(pl.col("count").sum()).filter(pl.col("count") != 0).sort("bucket")
        histogram = counts.group_by(keys, maintain_order=True).agg(pl.struct("bucket", "count").alias(name))
        found = found.join(histogram, on=keys, how="left")
    return found.select(rows.columns).sort(keys)


@pytest.mark.parametrize(("name", "table"), TABLES)
@given(
    numbers=st.lists(st.integers(0, 400), min_size=1, max_size=30, unique=True),
    there=st.lists(st.integers(0, 30), max_size=40),
)
@settings(deadline=None, max_examples=25)
def test_present_and_mending_together_are_the_expected_and_a_second_mending_is_empty(
    name: str, table: str, numbers: list[int], there: list[int]
) -> None:
    frame = events(name, numbers)
    expected = roll_up(name, frame)[table]
    some = [numbers[i % len(numbers)] for i in there]  # rows lost, and rows that were added up more than once
    present = merged(table, [roll_up(name, events(name, some))[table]]) if some else expected.clear()
    mending = mend(table, expected, present)
    assert mending.beyond == 0
    assert (mending.rows.get_column("upto") == -1).all()
    after = merged(table, [present, mending.rows.drop("upto")])
    wanted = merged(table, [expected])
    assert after.equals(wanted), (after, wanted)
    assert mend(table, expected, after).rows.is_empty()


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_samples_that_come_from_no_event_are_taken_away_and_their_extremes_told(name: str, table: str) -> None:
    expected = roll_up(name, events(name, [1, 2]))[table]
    present = merged(table, [roll_up(name, events(name, [1, 2, 399]))[table]])
    mending = mend(table, expected, present)
    after = merged(table, [present, mending.rows.drop("upto")])
    sums = list(SUMS[table])
    assert after.select(pl.col(sums).sum()).equals(expected.select(pl.col(sums).sum()))
    reaching = any(c.endswith(("watts_max", "utilization_max", "latency_seconds_max")) for c in expected.columns)
    assert (mending.beyond > 0) == reaching


@pytest.mark.parametrize(
    ("engine", "expiry"),
    [
        ("MergeTree ORDER BY time SETTINGS index_granularity = 8192", None),
        (
            "MergeTree ORDER BY time TTL toDateTime(arrived) + toIntervalDay(30) SETTINGS index_granularity = 8192",
            "toDateTime(arrived) + toIntervalDay(30)",
        ),
        ("MergeTree ORDER BY time TTL arrived + toIntervalDay(9) DELETE WHERE 1", "arrived + toIntervalDay(9)"),
    ],
)
def test_a_table_says_itself_when_its_rows_expire(engine: str, expiry: str | None) -> None:
    assert expiry_of(engine) == expiry
