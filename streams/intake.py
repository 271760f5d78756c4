"""Bytes to a typed frame and rejects: what a poll brought, decoded in batches.

JSON goes through pyarrow's reader with an explicit schema (2 us an event, GIL released; orjson and dicts take 6). One
bad line fails a whole block, so a block that fails is cut into pieces, and the messages of a failing piece are read one
by one. That slow way defines what is accepted; the fast way only ever accepts the same.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as arrow_json
from pyarrow import ipc

from schemas.envelope import SPEC_VERSION, encoding_of
from schemas.events import EventType, Field
from streams.polled import Polled

# Larger blocks gain nothing; a piece is what is read message by message for the sake of one bad one.
BLOCK_BYTES = 4 << 20
PIECE_MESSAGES = 64

UNPARSABLE = "cannot be parsed"
UNKNOWN_TYPE = "is of unknown type"
WRONG_TYPE = "has a field of the wrong type"

REJECT_SCHEMA = pl.Schema(
    {
        "offset": pl.Int64(),
        "place": pl.UInt32(),
        "arrived": pl.Datetime("ms", "UTC"),
        "reason": pl.String(),
        "detail": pl.String(),
        "content_type": pl.String(),
        "key": pl.Binary(),
        "payload": pl.Binary(),
    }
)


@dataclass(frozen=True)
class Intake:
    """What a poll held: ``frame`` has the event type's columns and offset, place (Int64, UInt32), arrived (ms UTC)."""

    frame: pl.DataFrame
    rejects: pl.DataFrame
    messages: int

    @property
    def events(self) -> int:
        """Events found: accepted or not."""
        return self.frame.height + self.rejects.height


@dataclass(frozen=True)
class _Reject:
    message: int
    place: int
    reason: str
    detail: str
    payload: bytes


def decode(event_type: EventType, polled: Polled) -> Intake:
    """Every event of every message is either a row of the frame or a reject, in the order of (offset, place)."""
    groups: dict[str, list[int]] = {"json": [], "array": [], "arrow": []}
    rejects: list[_Reject] = []
    for index, (value, content_type) in enumerate(zip(polled.values, polled.content_types, strict=True)):
        encoding = encoding_of(value, content_type) if value else None
        if encoding is None:
            what = "the message is empty" if not value else f"content-type {content_type!r} says nothing we know"
            rejects.append(_Reject(index, 0, UNPARSABLE, what, value or b""))
        else:
            groups[encoding].append(index)
    frames: list[pl.DataFrame] = []
    if groups["json"]:
        frames.extend(_json_events(event_type, polled, groups["json"], rejects))
    for index in groups["array"]:
        frames.extend(_json_array(event_type, polled, index, rejects))
    if groups["arrow"]:
        frames.extend(_arrow_batches(event_type, polled, groups["arrow"], rejects))
    frame = _positioned(event_type, frames, polled)
    frame = _without_impossible(event_type, frame, polled, rejects)
    if len(frames) > 1:
        frame = frame.sort("offset", "place", maintain_order=True)
    return Intake(frame.drop("message"), _reject_frame(rejects, polled), len(polled.values))


def _positioned(event_type: EventType, frames: list[pl.DataFrame], polled: Polled) -> pl.DataFrame:
    """The frames as one, with the position and arrival of each row's message."""
    schema = pl.Schema({**event_type.frame_schema, "message": pl.UInt32(), "place": pl.UInt32()})
    frame = pl.concat(frames) if frames else schema.to_frame()
    messages = pl.DataFrame(
        {
            "offset": pl.Series(polled.offsets, dtype=pl.Int64),
            "arrived": pl.Series(polled.arrived, dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")),
        }
    )
    return frame.hstack(messages[frame.get_column("message")])


def _without_impossible(
    event_type: EventType, frame: pl.DataFrame, polled: Polled, rejects: list[_Reject]
) -> pl.DataFrame:
    rules = event_type.impossible
    bad = frame.select(pl.any_horizontal(rule.fill_null(value=False) for _, rule in rules).alias("bad")).to_series()
    if not bad.any():
        return frame
    first = pl.coalesce(pl.when(rule.fill_null(value=False)).then(pl.lit(reason)) for reason, rule in rules)
    broken = frame.filter(bad).with_columns(reason=first)
    for row in broken.iter_rows(named=True):
        payload = _payload(polled, row["message"], row["place"])
        detail = json.dumps({c: row[c] for c in event_type.columns if row[c] is not None}, default=str)
        rejects.append(_Reject(row["message"], row["place"], row["reason"], detail, payload))
    return frame.filter(~bad)


def _payload(polled: Polled, message: int, place: int) -> bytes:
    """The event's own bytes: of a single event its message, of an array or Arrow batch that element, as JSON."""
    value = polled.values[message] or b""
    encoding = encoding_of(value, polled.content_types[message])
    if encoding == "json":
        return value
    if encoding == "array":
        return orjson.dumps(orjson.loads(value)[place])
    row = ipc.open_stream(value).read_all().slice(place, 1).to_pylist()[0]
    return json.dumps(row, default=str).encode()


def _reject_frame(rejects: list[_Reject], polled: Polled) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "offset": [polled.offsets[r.message] for r in rejects],
            "place": [r.place for r in rejects],
            "arrived": pl.Series([polled.arrived[r.message] for r in rejects], dtype=pl.Int64),
            "reason": [r.reason for r in rejects],
            "detail": [r.detail for r in rejects],
            "content_type": [(polled.content_types[r.message] or b"").decode(errors="replace") for r in rejects],
            "key": [polled.keys[r.message] or b"" for r in rejects],
            "payload": [r.payload for r in rejects],
        },
        schema=REJECT_SCHEMA,
        strict=False,
    ).sort("offset", "place")


# JSON ------------------------------------------------------------------------------------------------------------


def _event_schema(event_type: EventType) -> pa.Schema:
    """A CloudEvent; times stay text here, since casting a column of them is thirty times faster than reading them."""
    data = pa.struct(
        [(field.attribute, pa.string() if field.kind == "time" else field.arrow) for field in event_type.payload]
    )
    context = [(name, pa.string()) for name in ("specversion", "type", "source", "id", "time")]
    return pa.schema([*context, ("data", data)])


def _read_json(text: bytes, schema: pa.Schema) -> pa.Table:
    text.decode()  # pyarrow would let bytes that are no UTF-8 through
    return arrow_json.read_json(
        io.BytesIO(text),
        read_options=arrow_json.ReadOptions(block_size=max(BLOCK_BYTES, 1), use_threads=False),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _json_events(
    event_type: EventType, polled: Polled, indices: list[int], rejects: list[_Reject]
) -> Iterator[pl.DataFrame]:
    values = [polled.values[index] or b"" for index in indices]
    frame = _fast_events(event_type, values)
    if frame is not None:
        yield frame.with_columns(message=pl.Series(indices, dtype=pl.UInt32), place=pl.lit(0, pl.UInt32))
    elif len(indices) > PIECE_MESSAGES:
        for start in range(0, len(indices), PIECE_MESSAGES):
            yield from _json_events(event_type, polled, indices[start : start + PIECE_MESSAGES], rejects)
    else:
        rows: list[dict[str, Any]] = []
        for index, value in zip(indices, values, strict=True):
            try:
                event = orjson.loads(value)
            except orjson.JSONDecodeError as error:
                rejects.append(_Reject(index, 0, UNPARSABLE, str(error), value))
                continue
            _slow_event(event_type, event, index, 0, rows, rejects, value)
        yield _rows(event_type, rows)


def _fast_events(event_type: EventType, values: list[bytes]) -> pl.DataFrame | None:
    """All of them, or None where any is not plainly one good event.

    Each value begins with { and ends with }, and there are as many rows as values: so each value is one row.
    """
    column = pl.Series(values, dtype=pl.Binary)
    if not (column.bin.starts_with(b"{") & column.bin.ends_with(b"}")).all():
        return None
    try:
        table = _read_json(b"\n".join(values), _event_schema(event_type))
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    return _fast_frame(event_type, table) if table.num_rows == len(values) else None


def _fast_frame(event_type: EventType, table: pa.Table) -> pl.DataFrame | None:
    for name, value in (("type", event_type.topic), ("specversion", SPEC_VERSION)):
        if not pc.all(pc.equal(table.column(name), value), skip_nulls=False).as_py():
            return None
    data = table.column("data").combine_chunks()
    columns: dict[str, Any] = {}
    for field in event_type.fields:
        if field in event_type.payload:
            column = pc.struct_field(data, field.attribute)
        else:
            column = table.column(field.attribute)
        if field.kind == "time":
            try:
                column = pc.cast(column, field.arrow)
            except pa.ArrowInvalid:
                return None
        columns[field.column] = column
    return _typed(event_type, pl.DataFrame(pl.from_arrow(pa.table(columns))))


def _typed(event_type: EventType, frame: pl.DataFrame) -> pl.DataFrame:
    """Absent text is empty, an absent count its default."""
    filled = [
        pl.col(f.column).fill_null("" if f.kind == "text" else f.default)
        for f in event_type.fields
        if f.kind == "text" or f.default is not None
    ]
    return frame.with_columns(filled)


def _json_array(event_type: EventType, polled: Polled, index: int, rejects: list[_Reject]) -> Iterator[pl.DataFrame]:
    value = polled.values[index] or b""
    schema = pa.schema([("b", pa.list_(pa.struct(list(_event_schema(event_type)))))])
    try:
        # A value that closes the bracket early would be more than one row, or no JSON.
        table = _read_json(b'{"b":' + value + b"}", schema)
        frame = None
        if table.num_rows == 1 and table.column("b").null_count == 0:
            events = table.column("b").combine_chunks().flatten()
            if events.null_count == 0:
                frame = _fast_frame(event_type, pa.Table.from_struct_array(events))
    except (pa.ArrowInvalid, UnicodeDecodeError):
        frame = None
    if frame is not None:
        yield frame.with_columns(message=pl.lit(index, pl.UInt32), place=pl.int_range(pl.len(), dtype=pl.UInt32))
        return
    try:
        elements = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        rejects.append(_Reject(index, 0, UNPARSABLE, str(error), value))
        return
    rows: list[dict[str, Any]] = []
    for place, event in enumerate(elements):
        _slow_event(event_type, event, index, place, rows, rejects, None)
    yield _rows(event_type, rows)


def _rows(event_type: EventType, rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema = pl.Schema({**event_type.frame_schema, "message": pl.UInt32(), "place": pl.UInt32()})
    return _typed(event_type, pl.DataFrame(rows, schema=schema))


def _slow_event(
    event_type: EventType,
    event: Any,
    index: int,
    place: int,
    rows: list[dict[str, Any]],
    rejects: list[_Reject],
    payload: bytes | None,
) -> None:
    """One event by the book: a row, or a reject that says why."""

    def reject(reason: str, detail: str) -> None:
        rejects.append(_Reject(index, place, reason, detail, payload or orjson.dumps(event)))

    if not isinstance(event, dict):
        return reject(UNPARSABLE, f"an event is a JSON object, this is {type(event).__name__}")
    if event.get("specversion") != SPEC_VERSION or event.get("type") != event_type.topic:
        found = f"specversion {event.get('specversion')!r}, type {event.get('type')!r}"
        return reject(UNKNOWN_TYPE, f"{found}; this topic takes {SPEC_VERSION!r}, {event_type.topic!r}")
    data = event.get("data")
    if data is not None and not isinstance(data, dict):
        return reject(WRONG_TYPE, f"data is {type(data).__name__}, not an object")
    row: dict[str, Any] = {"message": index, "place": place}
    for field in event_type.fields:
        value = (data or {}).get(field.attribute) if field in event_type.payload else event.get(field.attribute)
        try:
            row[field.column] = _slow_value(field, value)
        except ValueError as error:
            return reject(WRONG_TYPE, f"{field.attribute}: {error}")
    rows.append(row)
    return None


def _slow_value(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.kind == "text" and isinstance(value, str):
        return value
    if field.kind == "integer" and isinstance(value, int) and not isinstance(value, bool):
        if -(2**63) <= value < 2**63:
            return value
        raise ValueError(f"{value} does not fit into 64 bits")
    if field.kind == "real" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if field.kind == "time" and isinstance(value, str):
        try:
            nanoseconds = pa.scalar(value).cast(field.arrow).value
        except pa.ArrowInvalid:
            raise ValueError(f"{value!r} is no RFC 3339 time with a zone") from None
        return nanoseconds
    raise ValueError(f"{value!r} is no {field.kind}")


# Arrow -----------------------------------------------------------------------------------------------------------


def _arrow_batches(
    event_type: EventType, polled: Polled, indices: list[int], rejects: list[_Reject]
) -> Iterator[pl.DataFrame]:
    """Batches of one schema are taken together: typing a frame costs 50 us, whatever its length."""
    run: list[tuple[int, pa.Table]] = []
    for index in indices:
        value = polled.values[index] or b""
        try:
            table = ipc.open_stream(value).read_all()
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            rejects.append(_Reject(index, 0, UNPARSABLE, str(error)[:500], value))
            continue
        if run and not run[0][1].schema.equals(table.schema):
            yield from _arrow_frame(event_type, polled, run, rejects)
            run = []
        run.append((index, table))
    if run:
        yield from _arrow_frame(event_type, polled, run, rejects)


def _arrow_frame(
    event_type: EventType, polled: Polled, run: list[tuple[int, pa.Table]], rejects: list[_Reject]
) -> Iterator[pl.DataFrame]:
    counts = [table.num_rows for _, table in run]
    present = set(run[0][1].schema.names)
    wanted = [field for field in event_type.fields if field.attribute in present]
    try:
        tables = [table.select([field.attribute for field in wanted]) for _, table in run]
        raw = pl.DataFrame(pl.from_arrow(pa.concat_tables(tables)))
        frame = raw.select(
            (
                pl.col(f.attribute).cast(f.polars, strict=False) if f.attribute in present else pl.lit(None, f.polars)
            ).alias(f.column)
            for f in event_type.fields
        )
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        for index, _ in run:
            rejects.append(_Reject(index, 0, WRONG_TYPE, str(error)[:500], polled.values[index] or b""))
        return
    numbers = np.repeat(np.arange(len(run)), counts)
    starts = np.cumsum([0, *counts[:-1]])
    positions = pl.DataFrame(
        {
            "message": np.array([index for index, _ in run], dtype=np.uint32)[numbers],
            "place": (np.arange(len(numbers)) - starts[numbers]).astype(np.uint32),
        }
    )
    frame = frame.hstack(positions)
    lost = pl.Series([False]).new_from_index(0, frame.height)
    for field in wanted:
        lost |= frame.get_column(field.column).is_null() & raw.get_column(field.attribute).is_not_null()
    for index, place in frame.filter(lost).select("message", "place").iter_rows():
        names = ", ".join(
            f"{f.attribute} {raw.schema[f.attribute]}" for f in wanted if raw.schema[f.attribute] != f.polars
        )
        detail = f"cannot be read as its type: {names}"
        rejects.append(_Reject(index, place, WRONG_TYPE, detail, _payload(polled, index, place)))
    yield _typed(event_type, frame.filter(~lost))
