"""Arrow IPC streams to frames: a row that can't be read as its type is refused alone, a foreign schema whole."""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from schemas.events import BY_NAME, EventType, Field
from streams.polled import Polled
from streams.rejects import TOO_LARGE, UNPARSABLE, WRONG_TYPE, Rejects, as_json

# A message of a few kilobytes can unpack to gigabytes, and a worker that dies of it would die of it again.
MAX_ROWS = 1_000_000
MAX_BYTES = 256 << 20

# Handing the columns of a small batch to threads costs more than unpacking them (38 us of 215).
_ONE_THREAD = ipc.IpcReadOptions(use_threads=False)

_NAMES = frozenset(field.attribute for event_type in BY_NAME.values() for field in event_type.fields)

_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


class _RefusedError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def batch_events(event_type: EventType, polled: Polled, indices: list[int], rejects: Rejects) -> Iterator[pl.DataFrame]:
    """Frames with the event type's columns, message and place.

    Messages of one schema are taken together: typing a frame costs 50 us, whatever its length.
    """
    run: list[tuple[int, pa.Table]] = []
    held = 0
    for index in indices:
        try:
            table = _wanted(event_type, _table(polled.values[index] or b""))
        except _RefusedError as refused:
            rejects.whole(index, refused.reason, refused.detail)
            continue
        rows = sum(table.num_rows for _, table in run) + table.num_rows
        held += table.nbytes
        if run and (rows > MAX_ROWS or held > MAX_BYTES or not run[0][1].schema.equals(table.schema)):
            yield from _frames(event_type, polled, run, rejects)
            run, held = [], table.nbytes
        run.append((index, table))
    if run:
        yield from _frames(event_type, polled, run, rejects)


def rows_as_json(value: bytes, places: Sequence[int]) -> list[bytes]:
    """Rows of an Arrow stream that was read before, each as JSON.

    Without columns of unknown names that may unpack to more than they are: nobody has looked how much that is.
    """
    table = ipc.open_stream(value).read_all()
    table = table.select([n for n, field in enumerate(table.schema) if field.name in _NAMES or _bounded(field.type)])
    rows = pa.concat_tables([table.slice(place, 1) for place in places])  # take() knows no string views
    for number, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):  # Python has no nanoseconds, and no year 40,000
            rows = rows.set_column(
                number,
                field.name,
                rows.column(number).cast(pa.int64()).cast(pa.timestamp(field.type.unit)).cast(pa.string()),
            )
    return [as_json(row) for row in rows.to_pylist()]


def _bounded(kind: pa.DataType) -> bool:
    plain = pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return plain or pa.types.is_null(kind)


def _table(value: bytes) -> pa.Table:
    try:
        rows, size = _unpacked(value)
        if rows > MAX_ROWS or size > MAX_BYTES:
            raise _RefusedError(TOO_LARGE, f"{rows} rows, {size} bytes; at most {MAX_ROWS} rows, {MAX_BYTES} bytes")
        table = ipc.open_stream(value, options=_ONE_THREAD).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, OverflowError, struct.error) as error:
        raise _RefusedError(UNPARSABLE, str(error)) from None
    return table


def _wanted(event_type: EventType, table: pa.Table) -> pa.Table:
    """The columns that the event type knows, text plain; :raises _RefusedError: where one's type can't be read."""
    known = _known(event_type.name, table.schema)
    table = table.select(known)
    dictionaries = [number for number, kind in enumerate(table.schema.types) if pa.types.is_dictionary(kind)]
    size = sum(_plain_bytes(table.column(number)) for number in dictionaries)
    if size > MAX_BYTES:
        raise _RefusedError(TOO_LARGE, f"its text may unpack to {size} bytes; at most {MAX_BYTES}")
    for number in dictionaries:
        table = table.set_column(number, table.column_names[number], pc.cast(table.column(number), pa.large_string()))
    return table


@lru_cache(256)
def _known(name: str, schema: pa.Schema) -> list[int]:
    """Which columns they are; a producer's schema is the same in each of its messages."""
    known: list[int] = []
    for field in BY_NAME[name].fields:
        found = schema.get_all_field_indices(field.attribute)
        if len(found) > 1:
            raise _RefusedError(WRONG_TYPE, f"{field.attribute} is there {len(found)} times")
        if found and not _readable(field, schema.field(found[0]).type):
            raise _RefusedError(WRONG_TYPE, f"{field.attribute} is {schema.field(found[0]).type}, not {field.arrow}")
        known += found
    if not known:
        raise _RefusedError(WRONG_TYPE, f"has no column of {name}")
    return known


def _readable(field: Field, kind: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return True
    if field.kind == "text":
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if field.kind == "time":
        return pa.types.is_timestamp(kind)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _plain_bytes(column: Any) -> int:
    """What it may be without its dictionary, which may repeat one long text a million times for a few bytes each."""
    size = 0
    for chunk in column.chunks:
        texts = pc.cast(chunk.dictionary, pa.large_string())
        size += len(chunk) * (pc.max(pc.binary_length(texts)).as_py() or 0)
    return size


def _frames(
    event_type: EventType, polled: Polled, run: list[tuple[int, pa.Table]], rejects: Rejects
) -> Iterator[pl.DataFrame]:
    try:
        yield _frame(event_type, polled, run, rejects)
    except _RefusedError as refused:
        if len(run) == 1:
            rejects.whole(run[0][0], refused.reason, refused.detail)
        else:
            for part in run:
                yield from _frames(event_type, polled, [part], rejects)


def _frame(event_type: EventType, polled: Polled, run: list[tuple[int, pa.Table]], rejects: Rejects) -> pl.DataFrame:
    table = pa.concat_tables([table for _, table in run])
    counts = [table.num_rows for _, table in run]
    numbers = np.repeat(np.arange(len(run)), counts)
    starts = np.cumsum([0, *counts[:-1]])
    columns: dict[str, pl.Series] = {}
    lost = np.zeros(table.num_rows, np.bool_)
    size = 0
    for field in event_type.fields:
        if field.attribute in table.column_names:
            columns[field.column], failed = _column(field, table.column(field.attribute))
            lost |= failed
            if pa.types.is_string_view(
                table.schema.field(field.attribute).type
            ):  # these, too, may repeat one long text
                size += int(columns[field.column].str.len_bytes().sum())
                if size > MAX_BYTES:
                    raise _RefusedError(TOO_LARGE, f"its text unpacks to {size} bytes; at most {MAX_BYTES}")
        else:
            columns[field.column] = pl.Series([None], dtype=field.polars).new_from_index(0, table.num_rows)
    columns["message"] = pl.Series(np.array([index for index, _ in run], np.uint32)[numbers])
    columns["place"] = pl.Series((np.arange(len(numbers)) - starts[numbers]).astype(np.uint32))
    frame = pl.DataFrame(columns)
    if not lost.any():
        return frame
    foreign = [f for f in event_type.fields if f.attribute in table.column_names]
    names = ", ".join(
        f"{f.attribute} {kind}" for f in foreign if (kind := table.schema.field(f.attribute).type) != f.arrow
    )
    broken = frame.filter(lost).group_by("message", maintain_order=True).agg("place")
    for index, places in broken.iter_rows():
        for place, payload in zip(places, rows_as_json(polled.values[index] or b"", places), strict=True):
            rejects.add(index, place, WRONG_TYPE, f"cannot be read as its type: {names}", payload)
    return frame.filter(~pl.Series(lost))


def _column(field: Field, column: pa.ChunkedArray) -> tuple[pl.Series, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]:
    """The values in the field's own type, and which of them have none there."""
    none = np.zeros(len(column), np.bool_)
    if field.kind == "text" and not pa.types.is_null(column.type):
        return pl.Series(pl.from_arrow(column)), none
    if column.type == field.arrow:
        return pl.Series(pl.from_arrow(column)), none
    if pa.types.is_null(column.type):
        return pl.Series([None], dtype=field.polars).new_from_index(0, len(column)), none
    if field.kind == "time":
        factor = _NANOSECONDS[column.type.unit]
        ticks = pl.Series(pl.from_arrow(column.cast(pa.int64())))
        fits = ticks.is_between(-(2**63 // factor) + 1, 2**63 // factor - 1)
        value = ticks.set(~fits.fill_null(value=True), None) * factor
        return value.cast(field.polars), (~fits.fill_null(value=True)).to_numpy()
    raw = pl.Series(pl.from_arrow(column))
    value = raw.cast(field.polars, strict=False)
    failed = value.is_null() & raw.is_not_null()
    if field.kind == "integer" and raw.dtype.is_float():
        failed |= (value.cast(raw.dtype) != raw).fill_null(value=False)  # 1.5 is no count; NaN is caught above
    return value, failed.to_numpy()


# Sizes, before anything is unpacked ----------------------------------------------------------------------------------

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def _unpacked(stream: bytes) -> tuple[int, int]:
    """Rows and bytes that an IPC stream unpacks to, from its headers alone (Arrow's Message.fbs)."""
    rows = size = 0
    for message in ipc.MessageReader.open_stream(stream):
        header, body = message.metadata.to_pybytes(), message.body
        table = struct.unpack_from("<I", header)[0]
        kind = _field(header, table, 1)
        if kind is None or (kind := header[kind]) not in (_DICTIONARY_BATCH, _RECORD_BATCH):
            continue
        batch = _child(header, table, 2)
        if kind == _DICTIONARY_BATCH:
            batch = _child(header, batch, 1)
        else:
            at = _field(header, batch, 0)
            rows += struct.unpack_from("<q", header, at)[0] if at is not None else 0
        size += _batch_bytes(header, batch, memoryview(b"" if body is None else body))
    return rows, size


def _batch_bytes(header: bytes, batch: int, body: memoryview) -> int:
    buffers = _child(header, batch, 2)
    if _field(header, batch, 3) is None or not buffers:  # not compressed: as long as the body
        return len(body)
    size = 0
    for number in range(struct.unpack_from("<I", header, buffers)[0]):
        offset, length = struct.unpack_from("<qq", header, buffers + 4 + 16 * number)
        if length:
            unpacked = struct.unpack_from("<q", body, offset)[0]
            size += length if unpacked < 0 else unpacked  # -1: stored as it is
    return size


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Where a field of a flatbuffers table is; None where it is left out."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", buffer, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", buffer, vtable + 4 + 2 * number)[0]
    return table + offset if offset else None


def _child(buffer: bytes, table: int, number: int) -> int:
    """Where the table or vector is that a field points to; 0 where it is left out."""
    at = _field(buffer, table, number)
    return 0 if at is None else at + struct.unpack_from("<I", buffer, at)[0]
