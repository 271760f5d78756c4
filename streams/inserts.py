# ruff: noqa: S608 (names are ours, types come from the server)
"""One insert of a frame: Arrow over HTTP, read by the server's input(), so that a condition can refuse it whole."""

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from clickhouse_connect.driver.client import Client
from pyarrow import ipc

SETTINGS = {
    # A block must stay whole: it becomes one part a month, which lands or does not.
    "max_block_size": 10_000_000,
    "min_insert_block_size_rows": 10_000_000,
    "min_insert_block_size_bytes": 0,
    "max_insert_threads": 1,
    "max_partitions_per_insert_block": 0,
    # Merging a rollup's rows before they are written cost 132 ms a flush, 34 without.
    "optimize_on_insert": 0,
    "async_insert": 0,
}

_AGGREGATE = re.compile(r"^SimpleAggregateFunction\(\w+, (.*)\)$")


class Inserts:
    """The inserts of one client, which knows the types of the tables' columns from the server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._types: dict[str, dict[str, str]] = {}

    def run(self, table: str, rows: "pl.DataFrame | Encoded", *, where: str = "1", tag: str = "") -> None:
        """Write all rows, or none if ``where`` throws. Never repeated: whoever calls looks what is there first.

        Columns go by name; those that the table has more get their defaults.

        :raises DatabaseError: with the server's code.
        """
        if not rows.height:
            return
        if isinstance(rows, pl.DataFrame):
            rows = encode(rows)
        types = self._of(table, rows.columns)
        columns = ", ".join(rows.columns)
        structure = ", ".join(f"{name} {types[name]}" for name in rows.columns).replace("'", "\\'")
        statement = (
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM input('{structure}') WHERE {where} "
            "FORMAT ArrowStream\n"
        ).encode()
        length = len(statement) + rows.body.nbytes
        self._client.raw_insert(
            table="",  # the statement comes first in the body
            insert_block=_in_parts(statement, rows.body),
            settings=SETTINGS | {"log_comment": tag},
            transport_settings={"Content-Length": str(length)},
        )

    def _of(self, table: str, columns: Sequence[str]) -> dict[str, str]:
        types = self._types
        if not types.get(table, {}).keys() >= set(columns):  # unknown, or a migration has added some since
            rows = self._client.query(
                "SELECT table, name, type FROM system.columns WHERE database = currentDatabase()"
            ).result_rows
            types = {}
            for of, name, kind in rows:  # of all tables: a flush writes to five
                types.setdefault(of, {})[name] = _AGGREGATE.sub(r"\1", kind)
            self._types = types
        return types[table]


def _in_parts(*parts: Any) -> Generator[bytes, None, None]:
    """A body of known length that is sent from where it is, and which no client can send twice."""
    yield from parts


@dataclass(frozen=True)
class Encoded:
    """Rows as the body of an insert."""

    columns: Sequence[str]
    height: int
    body: memoryview


def encode(rows: pl.DataFrame) -> Encoded:
    """The rows as one Arrow stream of one batch.

    ``identity_hi`` and ``identity_lo`` become ``identity``; a list of (key, value) structs becomes a map.
    """
    arrow = to_arrow(rows)
    return Encoded(arrow.column_names, rows.height, _stream(arrow))


def to_arrow(rows: pl.DataFrame) -> pa.Table:
    """The rows as ClickHouse reads them: one chunk, categories as dictionaries."""
    table = rows.drop("identity_hi", "identity_lo", strict=False).to_arrow(compat_level=pl.CompatLevel.oldest())
    columns: dict[str, Any] = {
        name: _map(column) if pa.types.is_large_list(column.type) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    if "identity_lo" in rows.columns:
        columns["identity"] = _digest(rows)
    return pa.table(columns).combine_chunks()


def _digest(rows: pl.DataFrame) -> pa.Array:
    """The 16 bytes of xxh3-128's canonical form: big-endian, high half first."""
    halves = np.empty((rows.height, 2), dtype=">u8")
    halves[:, 0] = rows.get_column("identity_hi").to_numpy()
    halves[:, 1] = rows.get_column("identity_lo").to_numpy()
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), rows.height, [None, pa.py_buffer(halves.tobytes())])


def _map(column: pa.ChunkedArray) -> pa.Array:
    lists: Any = column.combine_chunks()
    if lists.null_count:  # no samples: an empty map
        lists = lists.fill_null([])
    pairs = lists.flatten()
    # Not pa.array(): of a numpy array it asks pandas, whose import takes 2 s of the first flush.
    offsets: Any = pc.subtract(lists.offsets, lists.offsets[0]).cast(pa.int32())
    return pa.MapArray.from_arrays(offsets, pairs.field(0), pairs.field(1))


def _stream(table: pa.Table) -> memoryview:
    """Sized first: a buffer that grows while it is written holds a flush's largest frame once more.

    No bytes: those would be a copy of it, which took 0.18 s a million rows.
    """
    size = pa.MockOutputStream()
    with ipc.new_stream(size, table.schema) as writer:
        writer.write_table(table)
    body = pa.allocate_buffer(size.size())
    with pa.FixedSizeBufferWriter(body) as out, ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return memoryview(body)
