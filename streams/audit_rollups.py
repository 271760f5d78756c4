# ruff: noqa: S608 (names are ours, values are bound by the server)
"""Minutes added up again: the rollups of one partition against its raw rows, and mended by the difference.

A minute's sums are compared in the server; only one that differs is read, rolled up again and mended (mending.py). A
minute whose first arrivals have expired from raw is never recomputed.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from schemas.sums import SUMS, of_raw, of_rollup
from streams.audit_raw import Difference, Look, RawAudit
from streams.mending import mend
from streams.rollup import roll_up

# Raw rows that are rolled up again at once.
MENDED_ROWS = 500_000


class RollupAudit:
    """Holds the rollups of a partition against its raw rows.

    ``left``: (partition, rollup) that a mending did not mend; told, and left alone until the worker starts again.
    """

    def __init__(self, look: Look, left: set[tuple[int, str]]) -> None:
        self._look = look
        self._raw = RawAudit(look)
        self._left = left
        self._type = look.event_type

    def next_hour(self, rollups: Sequence[str], hour: int) -> int | None:
        """The first hour (since 1970) from ``hour`` on that raw or one of its rollups has anything of."""
        found = [
            self._look.client.query(
                f"SELECT intDiv(toUnixTimestamp(min({column})), 3600), count() FROM {table} "
                f"WHERE topic_partition = {{partition:UInt16}} AND {column} >= toDateTime({{since:Int64}}, 'UTC')",
                parameters={"partition": self._look.partition, "since": hour * 3600},
            ).result_rows[0]
            for table, column in [(self._type.name, "time"), *((table, "minute") for table in rollups)]
        ]
        return min((start for start, count in found if count), default=None)

    def minutes(self, table: str, minutes: Sequence[int]) -> list[Difference]:
        """Compare these minutes of a rollup with raw, and mend those that differ: once all of raw is known to be right.

        A rollup mended from raw rows of which one is missing would lack it too, until both are mended.
        """
        if not minutes or self._screen(table, minutes).is_empty():
            return []
        found = self._raw.all()
        differing = self._screen(table, minutes)
        if (self._look.partition, table) in self._left or not all(difference.mended for difference in found):
            self._left.add((self._look.partition, table))
            detail = "left alone: an earlier mending failed, or raw rows differ from the ledger"
            return [*found, self._difference(table, differing, detail, mended=False)]
        chunks = differing.with_columns(chunk=pl.col("samples_sum").cum_sum() // MENDED_ROWS).partition_by("chunk")
        return [*found, *(self._mend_minutes(table, chunk) for chunk in chunks)]

    def _screen(self, table: str, minutes: Sequence[int]) -> pl.DataFrame:
        """The minutes whose sums differ, with their samples by raw and by rollup; none that has begun to expire."""
        arrived = re.sub(r"\barrived\b", "min(arrived_min)", self._look.expiry or "")
        expired = f"({arrived}) <= now()" if arrived else "false"
        raw = self._select(of_raw(table), self._type.name, "time", minutes, "GROUP BY m")
        rollup = self._select(f"{of_rollup(table)}, {expired} AS expired", table, "minute", minutes, "GROUP BY m")
        sums = [f"{name}_sum" for name in SUMS[table]]
        both = raw.join(rollup, on="m", how="full", coalesce=True, suffix="_there")
        differs = pl.any_horizontal(pl.col(c).fill_null(0) != pl.col(f"{c}_there").fill_null(0) for c in sums)
        return (
            both.filter(differs, ~pl.col("expired").cast(pl.Boolean).fill_null(value=False))
            .select("m", pl.col("samples_sum", "samples_sum_there").fill_null(0))
            .sort("m")
        )

    def _mend_minutes(self, table: str, differing: pl.DataFrame) -> Difference:
        minutes = differing.get_column("m").to_list()
        columns = self._event_columns
        raw = self._select(", ".join(columns), self._type.name, "time", minutes)
        expected = roll_up(self._type.name, raw.select(list(columns)).cast(pl.Schema(columns)))[table]
        keys, values = self._rollup_columns(table)
        present = self._select(f"{keys}, {values}", table, "minute", minutes, f"GROUP BY m, {keys}")
        mending = mend(table, expected, _typed(present, expected.schema))
        self._look.ledger.insert([self._look.claim], table, mending.rows)
        detail = f"{mending.rows.height} groups"
        if mending.beyond:
            detail += f"; {mending.beyond} extremes reach further than any row there is"
        mended = self._screen(table, minutes).is_empty()
        if not mended:  # something here is not understood: whatever it is, don't do it every minute
            self._left.add((self._look.partition, table))
        return self._difference(table, differing, detail, mended=mended)

    def _difference(self, table: str, differing: pl.DataFrame, detail: str, *, mended: bool) -> Difference:
        minutes = differing.get_column("m")
        span = " to ".join(datetime.fromtimestamp(minutes[i] * 60, tz=UTC).isoformat() for i in (0, -1))
        return Difference(
            self._look.partition,
            table,
            int(differing.get_column("samples_sum").sum()),
            int(differing.get_column("samples_sum_there").sum()),
            mended,
            f"{minutes.len()} minutes, {span}: {detail}",
        )

    def _select(self, what: str, table: str, time: str, minutes: Sequence[int], group: str = "") -> pl.DataFrame:
        """Of the partition's rows in these minutes (sorted, since 1970); ``m`` is the minute."""
        whole = minutes[-1] - minutes[0] + 1 == len(minutes)
        minute = f"toInt64(intDiv(toUnixTimestamp({time}), 60))"
        # A raw time needs a bound of its kind: looking in the index, ClickHouse takes `time < toDateTime(x)` for
        # `time <= x - 1` and passes over parts and granules that begin within the second before x (its issue 113993).
        bound = "fromUnixTimestamp64Second" if time == "time" else "toDateTime"
        table_rows = self._look.client.query_arrow(
            f"SELECT {minute} AS m, {what} FROM {table} WHERE topic_partition = {{partition:UInt16}} "
            + ("AND offset < {end:Int64} " if table == self._type.name else "")
            + f"AND {time} >= {bound}({{low:Int64}}, 'UTC') AND {time} < {bound}({{high:Int64}}, 'UTC') "
            + ("" if whole else "AND has({minutes:Array(Int64)}, m) ")
            + group,
            parameters={
                "partition": self._look.partition,
                "end": self._look.end,
                "low": minutes[0] * 60,
                "high": minutes[-1] * 60 + 60,
                "minutes": [] if whole else list(minutes),
            },
        )
        return pl.DataFrame(pl.from_arrow(table_rows))

    @property
    def _event_columns(self) -> dict[str, pl.DataType]:
        return {
            **self._type.frame_schema,
            "topic_partition": pl.UInt16(),
            "offset": pl.Int64(),
            "arrived": pl.Datetime("ms", "UTC"),
        }

    def _rollup_columns(self, table: str) -> tuple[str, str]:
        """(its keys, its other columns aggregated as the table itself would)."""
        rows = self._look.client.query(
            "SELECT name, extract(type, '^SimpleAggregateFunction\\\\((\\\\w+),') AS function, "
            "type LIKE '%Int128%' AS wide FROM system.columns "
            "WHERE database = currentDatabase() AND table = {table:String} AND name != 'upto'",
            parameters={"table": table},
        ).result_rows
        keys = ", ".join(name for name, function, _ in rows if not function)

        def sent(function: str, wide: bool) -> str:
            """As what Arrow can carry it: a map as pairs, and of 128 bits the lower half, which differences are of."""
            return "::Array(Tuple(Int16, Int64))" if function == "sumMap" else "::Int64" if wide else ""

        return keys, ", ".join(
            f"{function}({name}){sent(function, wide)} AS {name}" for name, function, wide in rows if function
        )


def _typed(rows: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """A rollup's rows as ClickHouse sends them (times of a minute as numbers, parts of a tuple without our names)."""
    columns: list[pl.Expr] = []
    for name, kind in schema.items():
        column = pl.col(name)
        if name == "minute":
            column = pl.col("m") * 60_000
        elif isinstance(kind, pl.Struct):
            column = column.struct.rename_fields([f.name for f in kind.fields])
        elif isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct):
            column = column.list.eval(pl.element().struct.rename_fields([f.name for f in kind.inner.fields]))
        columns.append(column.cast(kind).alias(name))
    return rows.select(columns)
