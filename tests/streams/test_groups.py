"""One number for a row's minute, partition and keys: the same for two rows where all of these are the same."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from streams.groups import LIMIT, group_numbers

START = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = ("site", "model")
rows = st.lists(
    st.tuples(st.integers(-300, 300), st.integers(0, 3), st.sampled_from(["", "a", "b"]), st.sampled_from(["a", "c"])),
    max_size=30,
)


def frame(found: list[tuple[int, int, str, str]], text: pl.DataType | type[pl.DataType]) -> pl.DataFrame:
    schema = {"time": pl.Int64, "topic_partition": pl.UInt16, "site": pl.String, "model": pl.String}
    made = pl.DataFrame(found, schema=schema, orient="row").with_columns(pl.col(KEYS).cast(text))
    time = pl.lit(START) + pl.duration(seconds=pl.col("time"))
    return made.with_columns(time.cast(pl.Datetime("ns", "UTC")).alias("time"))


@given(rows, st.sampled_from([pl.String, pl.Categorical]))
def test_rows_are_numbered_alike_where_minute_partition_and_keys_are(
    found: list[tuple[int, int, str, str]], text: type[pl.DataType]
) -> None:
    numbers = group_numbers(frame(found, text), KEYS).to_list()
    groups = [(second // 60, *rest) for second, *rest in found]
    assert len(set(zip(numbers, groups, strict=True))) == len(set(numbers)) == len(set(groups))


def test_numbers_stay_below_their_limit_however_much_there_is_of_each_key() -> None:
    """Two million minutes by 2,000 values of each of six keys would be 10^26 groups; there are as many as rows."""
    count, names = 2_000, [f"key {number}" for number in range(6)]
    random = np.random.default_rng(1)
    values = {name: pl.Series(random.permutation(count)).cast(pl.String) for name in names}
    times = [START + timedelta(minutes=int(minute)) for minute in random.integers(0, 2_000_000, count)]
    once = pl.DataFrame({"time": pl.Series(times, dtype=pl.Datetime("ns", "UTC"))} | values).with_columns(
        topic_partition=pl.lit(0, pl.UInt16)
    )
    numbers = group_numbers(pl.concat([once, once]), names)
    assert 0 <= int(numbers.to_numpy().min()) <= int(numbers.to_numpy().max()) < LIMIT
    assert numbers[:count].n_unique() == count
    assert numbers[:count].to_list() == numbers[count:].to_list()
