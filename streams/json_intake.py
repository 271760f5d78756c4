"""JSON events, single and in arrays, to frames.

They go through pyarrow's reader with an explicit schema (2 us an event, GIL released; orjson and dicts take 6). One bad
event fails a whole block, so in a block that fails the bad ones are looked for, and read one by one. What an event
becomes depends on it alone, never on its neighbours, since a retake may see others beside it: it is accepted if the
reader takes it alone, or else if it is right by the book.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as arrow_json

from schemas.envelope import SPEC_VERSION
from schemas.events import EventType, Field
from streams.polled import Polled
from streams.rejects import TOO_LARGE, UNKNOWN_TYPE, UNPARSABLE, WRONG_TYPE, Rejects, as_json, elements

# What fails together and looks right in each is halved, down to a few.
FEW_MESSAGES = 4
_BLANK = b" \t\r\n"
# No array of events, which have 84 bytes at least, holds as many in 8 MiB; one of zeros had 4 million dead letters.
MAX_EVENTS = 100_000


def _whole(_: EventType, value: bytes) -> bool:
    """Whether it begins and ends as an object does: what was cut short doesn't. It costs 0.2 us."""
    text = value.strip(_BLANK)
    return text.startswith(b"{") and text.endswith(b"}")


def _plausible(event_type: EventType, value: bytes) -> bool:
    """Whether it is JSON and of the type: what most broken events aren't. It costs 2 us, and decides nothing."""
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return isinstance(event, dict) and event.get("type") == event_type.type


def _right_by_the_book(event_type: EventType, value: bytes) -> bool:
    """Whether there is a row of it; it costs 50 us, less than to find a few in a thousand by halving."""
    try:
        _row(event_type, _parsed(value), 0, 0)
    except _RefusedError:
        return False
    return True


Look = Callable[[EventType, bytes], bool]
_LOOKS: Sequence[Look] = (_whole, _plausible, _right_by_the_book)


def single_events(
    event_type: EventType, polled: Polled, indices: list[int], rejects: Rejects, looks: Sequence[Look] = _LOOKS
) -> Iterator[pl.DataFrame]:
    """Frames with the event type's columns, message and place, of messages that hold one event each.

    Where they can't be read together, those that don't look right are read one by one and the others together, with
    ever closer ``looks``; what even then fails is found by halving.
    """
    values = [polled.values[index] or b"" for index in indices]
    frame = _fast_events(event_type, values)
    if frame is not None:
        yield frame.with_columns(message=pl.Series(indices, dtype=pl.UInt32), place=pl.lit(0, pl.UInt32))
        return
    for number, right in enumerate(looks):
        suspects = {index for index, value in zip(indices, values, strict=True) if not right(event_type, value)}
        if suspects:
            yield from _one_by_one(event_type, polled, sorted(suspects), rejects)
            if others := [index for index in indices if index not in suspects]:
                yield from single_events(event_type, polled, others, rejects, looks[number + 1 :])
            return
    if len(indices) > FEW_MESSAGES:
        half = len(indices) // 2
        yield from single_events(event_type, polled, indices[:half], rejects, ())
        yield from single_events(event_type, polled, indices[half:], rejects, ())
    else:
        yield from _one_by_one(event_type, polled, indices, rejects)


def _one_by_one(event_type: EventType, polled: Polled, indices: list[int], rejects: Rejects) -> Iterator[pl.DataFrame]:
    rows: list[dict[str, Any]] = []
    for index in indices:
        value = polled.values[index] or b""
        try:
            rows.append(_row(event_type, _parsed(value), index, 0))
        except _RefusedError as refused:
            alone = _fast_events(event_type, [value])
            if alone is None:
                rejects.add(index, 0, refused.reason, refused.detail, value)
            else:
                yield alone.with_columns(message=pl.lit(index, pl.UInt32), place=pl.lit(0, pl.UInt32))
    if rows:
        yield _frame(event_type, rows)


def array_events(event_type: EventType, polled: Polled, indices: list[int], rejects: Rejects) -> Iterator[pl.DataFrame]:
    """The same of messages that hold an array each.

    They are read together, since a call of the reader costs as much as twenty events; one that fails is found by
    halving.
    """
    found = _fast_arrays(event_type, [polled.values[index] or b"" for index in indices])
    if found is not None:
        frame, counts = found
        starts = np.cumsum(counts) - counts
        yield frame.with_columns(
            message=pl.Series(np.repeat(np.array(indices, np.uint32), counts)),
            place=pl.Series((np.arange(frame.height) - np.repeat(starts, counts)).astype(np.uint32)),
        )
    elif len(indices) > 1:
        half = len(indices) // 2
        yield from array_events(event_type, polled, indices[:half], rejects)
        yield from array_events(event_type, polled, indices[half:], rejects)
    else:
        yield _array_by_the_book(event_type, polled.values[indices[0]] or b"", indices[0], rejects)


def _array_by_the_book(event_type: EventType, value: bytes, index: int, rejects: Rejects) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    try:
        events = elements(value)
    except ValueError as error:
        rejects.whole(index, UNPARSABLE, str(error))
        events = ()
    if len(events) > MAX_EVENTS:
        rejects.whole(index, TOO_LARGE, f"{len(events)} events; at most {MAX_EVENTS}")
        events = ()
    for place, event in enumerate(events):
        try:
            rows.append(_row(event_type, event, index, place))
        except _RefusedError as refused:
            rejects.add(index, place, refused.reason, refused.detail, as_json(event))
    return _frame(event_type, rows)


# The fast way --------------------------------------------------------------------------------------------------------


def _event_schema(event_type: EventType) -> pa.Schema:
    """A CloudEvent; times stay text here, since casting a column of them is thirty times faster than reading them."""
    data = pa.struct(
        [(field.attribute, pa.string() if field.kind == "time" else field.arrow) for field in event_type.payload]
    )
    context = [(name, pa.string()) for name in ("specversion", "type", "source", "id", "time")]
    return pa.schema([*context, ("data", data)])


def _read_json(text: bytes, schema: pa.Schema) -> pa.Table:
    """The rows of a text that begins with ``{``.

    In one block: of a block that begins with ``null`` the reader makes no row and the process dies (SIGSEGV).
    """
    text.decode()  # pyarrow would let bytes that are no UTF-8 through
    return arrow_json.read_json(
        io.BytesIO(text),
        read_options=arrow_json.ReadOptions(block_size=len(text) + 1, use_threads=False),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _fast_events(event_type: EventType, values: list[bytes]) -> pl.DataFrame | None:
    """All of them, or None where any is not plainly one good event.

    Each value begins with { and ends with }, which joined by a newline can't be inside of anything, so each gives one
    row at least; and there are as many rows as values: so each gives one.
    """
    column = pl.Series(values, dtype=pl.Binary)
    if not (column.bin.starts_with(b"{") & column.bin.ends_with(b"}")).all():
        values = [value.strip(_BLANK) for value in values]
        if not all(value.startswith(b"{") and value.endswith(b"}") for value in values):
            return None
    try:
        table = _read_json(b"\n".join(values), _event_schema(event_type))
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    return _fast_frame(event_type, table) if table.num_rows == len(values) else None


def _fast_arrays(event_type: EventType, values: list[bytes]) -> tuple[pl.DataFrame, "np.ndarray[Any, Any]"] | None:
    """The events of all of them and how many each holds, or None where any is not plainly an array of good events.

    A value that closes the bracket early would be more than one row, or no JSON; and as in `_fast_events` each gives
    one row at least.
    """
    schema = pa.schema([("b", pa.list_(pa.struct(list(_event_schema(event_type)))))])
    try:
        table = _read_json(b"\n".join(b'{"b":' + value + b"}" for value in values), schema)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if table.num_rows != len(values) or table.column("b").null_count:
        return None
    lists: Any = table.column("b").combine_chunks()
    events = lists.flatten()
    if events.null_count:
        return None
    frame = _fast_frame(event_type, pa.Table.from_struct_array(events))
    return None if frame is None else (frame, np.diff(np.asarray(lists.offsets)))


def _fast_frame(event_type: EventType, table: pa.Table) -> pl.DataFrame | None:
    for name, value in (("type", event_type.type), ("specversion", SPEC_VERSION)):
        if not pc.all(pc.equal(table.column(name), pa.scalar(value)), skip_nulls=False).as_py():
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
    return pl.DataFrame(pl.from_arrow(pa.table(columns)))


# By the book ---------------------------------------------------------------------------------------------------------


class _RefusedError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def _parsed(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise _RefusedError(UNPARSABLE, str(error)) from None


def _row(event_type: EventType, event: Any, index: int, place: int) -> dict[str, Any]:
    """The row of one event; :raises _RefusedError: saying why there is none."""
    if not isinstance(event, dict):
        raise _RefusedError(UNPARSABLE, f"an event is a JSON object, this is {type(event).__name__}")
    if event.get("specversion") != SPEC_VERSION or event.get("type") != event_type.type:
        found = f"specversion {event.get('specversion')!r}, type {event.get('type')!r}"
        raise _RefusedError(UNKNOWN_TYPE, f"{found}; this topic takes {SPEC_VERSION!r}, {event_type.type!r}")
    data = event.get("data")
    if data is not None and not isinstance(data, dict):
        raise _RefusedError(WRONG_TYPE, f"data is {type(data).__name__}, not an object")
    row: dict[str, Any] = {"message": index, "place": place}
    for field in event_type.fields:
        value = (data or {}).get(field.attribute) if field in event_type.payload else event.get(field.attribute)
        try:
            row[field.column] = _value(field, value)
        except (ValueError, OverflowError) as error:
            raise _RefusedError(WRONG_TYPE, f"{field.attribute}: {error}") from None
    return row


def _value(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.kind == "text" and isinstance(value, str):
        value.encode()  # a lone surrogate is no character
        return value
    if field.kind == "integer" and isinstance(value, int) and not isinstance(value, bool):
        if -(2**63) <= value < 2**63:
            return value
        raise ValueError(f"{value:.6g} does not fit into 64 bits")
    if field.kind == "real" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if field.kind == "time" and isinstance(value, str):
        value.encode()
        try:
            moment: Any = pa.scalar(value).cast(field.arrow)
        except pa.ArrowInvalid:
            raise ValueError(f"{value!r} is no RFC 3339 time with a zone") from None
        return moment.value
    raise ValueError(f"{value!r} is no {field.kind}")


def _frame(event_type: EventType, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={**event_type.frame_schema, "message": pl.UInt32(), "place": pl.UInt32()})
