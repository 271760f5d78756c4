# ruff: noqa: S608 (names are ours or the server's, values are bound by the server)
"""Two databases table by table: every row of the raw tables, every aggregate of the rollups, bit for bit.

Judged is what both hold up to the same offset of each partition. A rollup's row doesn't say which offsets it is of: a
minute that has events past that offset, in either database, is still moving and left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
from clickhouse_connect.driver.client import Client

from schemas.events import EVENT_TYPES, EventType, name_of
from schemas.progress import Progress
from schemas.settings import DATABASE
from schemas.tables import ROLLUPS

_SHOWN = 5
_POSITION = ("topic_partition", "offset")
_HERE = (
    "offset < transform(topic_partition, {partitions:Array(UInt16)}, {ends:Array(Int64)}, toInt64(0)) "
    "AND has({partitions:Array(UInt16)}, topic_partition)"
)
_MINUTE = "toStartOfMinute(toDateTime(time, 'UTC'))"


@dataclass(frozen=True)
class Comparison:
    """One table; ``rows`` of a rollup are its groups. ``differing`` are the first pieces that aren't the same."""

    table: str
    rows: int
    replayed: int
    same: bool
    moving: int = 0
    """Minutes, by partition, that were left out."""
    differing: list[str] = field(default_factory=list)


def compare(
    client: Client, replayed: str, ends: Mapping[tuple[str, int], int] | None, progress: Progress
) -> list[Comparison]:
    """Every raw table and rollup of ours with the one in the database ``replayed``, up to ``ends``.

    Without ``ends``: all there is, wherever in its log each has it. Then nothing may be written meanwhile.
    """
    tables = [(event_type, table) for event_type in EVENT_TYPES for table in _tables(event_type)]
    found: list[Comparison] = []
    for done, (event_type, table) in enumerate(tables):
        progress("comparing, tables", done, len(tables))
        pair = _Pair(client, replayed, event_type, None if ends is None else _of(event_type, ends))
        found.append(pair.of(table))
    progress("comparing, tables", len(tables), len(tables))
    return found


def _of(event_type: EventType, ends: Mapping[tuple[str, int], int]) -> dict[int, int]:
    return {partition: end for (topic, partition), end in ends.items() if name_of(topic) == event_type.name}


def _tables(event_type: EventType) -> Sequence[str]:
    return (event_type.name, *ROLLUPS.get(event_type.name, ()))


class _Pair:
    """The tables of one event type in both databases."""

    def __init__(self, client: Client, replayed: str, event_type: EventType, ends: Mapping[int, int] | None) -> None:
        self._client = client
        self._replayed = replayed
        self._type = event_type
        self._everything = ends is None
        self._parameters = {} if ends is None else {"partitions": list(ends), "ends": list(ends.values())}
        self._partition = "toUInt16(0) AS topic_partition" if ends is None else "topic_partition"

    def of(self, table: str) -> Comparison:
        """The pieces of both, by partition and day (of a raw table) or minute (of a rollup)."""
        raw = table == self._type.name
        ours, theirs = (self._raw(db, table) if raw else self._rollup(db, table) for db in (DATABASE, self._replayed))
        moving = pl.DataFrame(schema={"topic_partition": pl.UInt16, "piece": pl.String})
        if (
            not raw and not self._everything
        ):  # after the rollups: raw rows are written first, so that none that counts there is missed
            moving = pl.concat(self._moving(db) for db in (DATABASE, self._replayed)).unique()
            ours, theirs = (one.join(moving, on=moving.columns, how="anti") for one in (ours, theirs))
        both = ours.join(theirs, on=["topic_partition", "piece"], how="full", coalesce=True, suffix="_there")
        off = both.filter(
            pl.col("hash").ne_missing(pl.col("hash_there")) | pl.col("rows").ne_missing(pl.col("rows_there"))
        ).sort("topic_partition", "piece")
        return Comparison(
            table,
            int(ours["rows"].sum()),
            int(theirs["rows"].sum()),
            off.is_empty(),
            moving.height,
            [
                f"partition {row['topic_partition']}, {row['piece']}: {row['rows'] or 0} rows, replayed "
                f"{row['rows_there'] or 0}" + (", of other content" if row["rows"] == row["rows_there"] else "")
                for row in off.head(_SHOWN).iter_rows(named=True)
            ],
        )

    def _raw(self, database: str, table: str) -> pl.DataFrame:
        columns = ", ".join(name for name, _ in self._columns(table))
        where = "1" if self._everything else _HERE
        return self._query(
            f"SELECT {self._partition}, toString(toDate(time, 'UTC')) AS piece, count() AS rows, "
            f"sum(cityHash64(formatRow('RowBinary', {columns}))) AS hash FROM {database}.{table} WHERE {where} "
            "GROUP BY topic_partition, piece"
        )

    def _rollup(self, database: str, table: str) -> pl.DataFrame:
        """Aggregated as readers do: how many rows hold a group is the merges' business."""
        columns = [(name, function) for name, function in self._columns(table) if name != "upto"]
        keys = ", ".join(name for name, function in columns if not function)
        values = ", ".join(f"{function}({name}) AS {name}_" for name, function in columns if function)
        named = ", ".join(f"{name}_" if function else name for name, function in columns)
        where = "1" if self._everything else "has({partitions:Array(UInt16)}, topic_partition)"
        return self._query(
            f"SELECT {self._partition}, toString(minute) AS piece, count() AS rows, "
            f"sum(cityHash64(formatRow('RowBinary', {named}))) AS hash "
            f"FROM (SELECT {keys}, {values} FROM {database}.{table} GROUP BY {keys}) "
            f"WHERE {where} GROUP BY topic_partition, piece"
        )

    def _moving(self, database: str) -> pl.DataFrame:
        return self._query(
            f"SELECT DISTINCT topic_partition, toString({_MINUTE}) AS piece FROM {database}.{self._type.name} "
            f"WHERE NOT ({_HERE})"
        )

    def _columns(self, table: str) -> list[tuple[str, str]]:
        """(name, the function that aggregates it), in the table's order."""
        rows = self._client.query(
            "SELECT name, extract(type, '^SimpleAggregateFunction\\\\((\\\\w+),') FROM system.columns "
            "WHERE database = {database:String} AND table = {table:String} ORDER BY position",
            parameters={"database": DATABASE, "table": table},
        ).result_rows
        return [(name, function) for name, function in rows if not (self._everything and name in _POSITION)]

    def _query(self, sql: str) -> pl.DataFrame:
        found = self._client.query_arrow(sql, parameters=self._parameters, use_strings=True)
        return pl.DataFrame(pl.from_arrow(found))
