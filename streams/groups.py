"""One number for the minute and the keys that events are grouped by.

Grouping by eight columns hashes and compares eight columns: 0.87 s a million events for the two rollups of tokens, 0.4
by one integer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

# Numbers stay below it, so that one of 2,048 can be put beside each in 63 bits.
LIMIT = 2**52
_MINUTE_NANOSECONDS = 60_000_000_000


def group_numbers(frame: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    """A number for each row (Int64, named ``group``): equal where minute, topic partition and all keys are.

    Keys are text or categories. They say nothing of another frame's groups.
    """
    if frame.is_empty():
        return pl.Series("group", [], dtype=pl.Int64)
    minutes = frame.get_column("time").to_physical().to_numpy() // _MINUTE_NANOSECONDS
    numbers, count = minutes - minutes.min(), int(minutes.max() - minutes.min()) + 1
    for key in ("topic_partition", *keys):
        values, of = _counted_up(_codes(frame.get_column(key)))
        if count * of > LIMIT:
            distinct, numbers = np.unique(numbers, return_inverse=True)
            count = len(distinct)
        numbers, count = numbers * of + values, count * of
    return pl.Series("group", numbers, dtype=pl.Int64)


def _codes(column: pl.Series) -> NDArray[Any]:
    return (column.cast(pl.Categorical).to_physical() if column.dtype == pl.String else column.to_physical()).to_numpy()


def _counted_up(codes: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    """The codes as numbers from 0 on without gaps, and how many there are: a category's code counts all text ever."""
    there = np.zeros(int(codes.max()) + 1, np.bool_)
    there[codes] = True
    number = np.cumsum(there) - 1
    return number[codes], int(number[-1]) + 1
