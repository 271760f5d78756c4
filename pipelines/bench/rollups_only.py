"""The worker without its raw rows, to see their share of the cost: `python -m pipelines.bench.rollups_only`.

For the bench alone. What an unfinished flush of before has landed is found among the raw rows, so nothing is exactly
once here, and an audit would find every row missing: it runs with WATTSTREAM_AUDIT_SECONDS of a day.
"""

from collections.abc import Sequence

import polars as pl

from streams import app, flush

_without = flush._without


def _nothing_of_raw(rows: pl.DataFrame, portions: Sequence[flush.Portion], which: str) -> pl.DataFrame:
    """An insert of no rows is none."""
    return rows.clear() if which == "present" else _without(rows, portions, which)


if __name__ == "__main__":
    flush._without = _nothing_of_raw
    app.main()
