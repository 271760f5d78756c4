"""What tests of intake share: messages of token events, whole and broken, and events of each type."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pyarrow import ipc

from schemas.envelope import complete
from schemas.events import TOKENS, EventType
from streams.polled import Polled

Poll = Callable[..., Polled]
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

GOOD = {
    "specversion": "1.0",
    "type": "wattstream.tokens.v1",
    "source": "gw",
    "id": "r1",
    "time": "2025-12-31T23:59:00.5Z",
    "data": {
        "gateway": "gw",
        "gen_ai.request.model": "模型",
        "requests": 2,
        "gen_ai.usage.input_tokens": 7,
        "duration": 0.25,
    },
}


def event(**data: object) -> bytes:
    return json.dumps(GOOD | {"data": GOOD["data"] | data}, ensure_ascii=False).encode()


def raw(field: str, text: str) -> bytes:
    """A good event with one more member of ``data``, spelled out."""
    return event().replace(b'"data": {', f'"data": {{"{field}": {text}, '.encode())


def arrow(columns: dict[str, object], **options: object) -> bytes:
    out = io.BytesIO()
    table = pa.table(columns)
    with ipc.new_stream(out, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return out.getvalue()


def times(count: int) -> pa.Array:
    return pa.array([datetime(2025, 12, 31, 23, 59, tzinfo=UTC)] * count, pa.timestamp("us", "UTC"))


def batch(requests: list[object], kind: pa.DataType | None = None) -> bytes:
    count = len(requests)
    columns = {"time": times(count), "source": ["s"] * count, "id": [f"r{i}" for i in range(count)]}
    return arrow(columns | {"gateway": ["g"] * count, "requests": pa.array(requests, kind)})


def sample(event_type: EventType, rows: int) -> pl.DataFrame:
    """Events with every field set in some of them and, where it may be, absent in others."""
    columns: dict[str, pl.Series] = {}
    for number, field in enumerate(event_type.fields):
        absent = [(i + 1) % (number + 2) == 0 and not field.required and field.default is None for i in range(rows)]
        if field.kind == "time":
            start = 1_700_000_000_123_456_789
            values = [None if a else start + i * 1_000_000_007 for i, a in enumerate(absent)]
            columns[field.column] = pl.Series(values, dtype=pl.Int64).cast(field.polars)
        elif field.kind == "text":
            columns[field.column] = pl.Series(["" if a else f'{field.column}"{i}\\é中' for i, a in enumerate(absent)])
        else:
            low = max(field.low or 0, 1)
            part = {part for part, _ in event_type.part_of}
            top = low if field.column in part else min(low + rows, field.high or rows)
            values = [None if a else min(low + i, top) for i, a in enumerate(absent)]
            columns[field.column] = pl.Series(values, dtype=pl.Float64).cast(field.polars)
    frame = complete(event_type, pl.DataFrame(columns))
    for part, whole in event_type.part_of:
        frame = frame.with_columns(pl.when(pl.col(whole).is_null()).then(None).otherwise(pl.col(part)).alias(part))
    return frame


# Values that JSON can say, right and wrong, also in ways that only some parsers take.
ODD = """NaN Infinity -Infinity 1e999 -1e999 12345678901234567890 9223372036854775807 -9223372036854775808 -0 0.0 -0.0
1.0 1.5 1e2 5e-324 0.1 9007199254740993 01 +1 .5 1. 0x10 true false null "5" "" "a\\u0000b" "\\ud800" "\\udc00"
"\\ud83d\\ude00" "\\u001f" [] [1] {} {"a":[null]} "2025-12-31T23:59:00Z" "2025-12-31T23:59:00+08:00" "2025-12-31"
"1500-01-01T00:00:00Z" "x //"""
DEEP = ("[" * 600 + "]" * 600, "[" * 3000 + "]" * 3000, '{"a":' * 40 + "1" + "}" * 40)
odd_values = st.sampled_from((*ODD.split(), "", "1 2", "1" * 400, *DEEP))
attributes = st.sampled_from([f.attribute for f in TOKENS.payload] + ["unknown", "time", "id"])
odd_events = st.lists(st.tuples(attributes, odd_values), min_size=1, max_size=3).map(
    lambda parts: event().replace(
        b'"data": {', b'"data": {' + b"".join(f'"{name}": {value}, '.encode() for name, value in parts)
    )
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
context_events = st.fixed_dictionaries(
    {},
    optional={
        "specversion": st.sampled_from(["1.0", "0.3", 1.0, None]),
        "type": st.sampled_from(["wattstream.tokens.v1", "wattstream.power.v1", "", None]),
        "source": st.text(max_size=3) | json_values,
        "id": st.text(max_size=3) | json_values,
        "time": st.sampled_from(["2025-12-31T23:59:00Z", "2026-12-31T23:59:00Z", "now", 5, None]),
        "data": json_values,
        "more": json_values,
    },
).map(lambda part: json.dumps(GOOD | part).encode())
whole_events = st.integers(0, 99).map(lambda i: event(requests=i))
single = st.one_of(whole_events, whole_events, odd_events, context_events, st.binary(max_size=20)).flatmap(
    lambda value: st.sampled_from(
        [value, value, value, b" " + value + b"\n", value + value, value + b"\nnull\n" + value, value[:-1]]
    )
)
