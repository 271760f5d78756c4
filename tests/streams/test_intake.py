"""Whatever a topic holds, each event becomes a row or a dead letter, and which depends on its message alone."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pyarrow import ipc

from schemas.envelope import CONTENT_TYPES, ENCODINGS, Encoding, complete, encode
from schemas.events import EVENT_TYPES, POWER, TOKENS, UTILIZATION, EventType
from streams import arrow_intake, intake, json_intake
from streams.intake import Intake, decode, keyed
from streams.polled import Polled
from streams.rejects import TOO_LARGE, UNDECODABLE, UNKNOWN_TYPE, UNPARSABLE, WRONG_TYPE

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
array = st.lists(single, max_size=5).map(lambda values: b"[" + b",".join(values) + b"]")


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


batches = st.one_of(
    st.lists(st.integers(-2, 3), max_size=5).map(batch),
    st.lists(st.sampled_from([1.0, 1.5, float("nan"), None, 2.0**70]), max_size=5).map(
        lambda v: batch(v, pa.float64())
    ),
    st.lists(st.text(max_size=2), max_size=3).map(lambda v: batch(v, pa.string())),
)
messages = st.one_of(single, array, batches, st.none(), st.binary(max_size=30))


def assert_whole(found: Intake, polled: Polled) -> None:
    assert found.messages == len(polled.values)
    assert found.events == found.frame.height + found.rejects.height
    assert found.frame.columns[-2:] == ["offset", "arrived"] or {"offset", "place", "arrived"} <= set(
        found.frame.columns
    )
    for frame in (found.frame, found.rejects):
        assert frame.select("offset", "place").rows() == sorted(frame.select("offset", "place").rows())
    both = pl.concat([found.frame.select("offset", "place"), found.rejects.select("offset", "place")])
    assert both.is_unique().all()
    places = both.group_by("offset").agg(pl.col("place").sort()).rows()
    assert all(place == list(range(len(place))) for _, place in places), "each event of a message is there once"


@quick
@given(st.lists(messages, min_size=1, max_size=12), st.data())
def test_what_becomes_of_a_message_depends_on_it_alone(
    poll: Poll, values: list[bytes | None], data: st.DataObject
) -> None:
    declared = [data.draw(st.sampled_from([None, None, *CONTENT_TYPES.values(), b"text/plain"])) for _ in values]
    together = poll(TOKENS, values, content_types=declared)
    found = decode(TOKENS, together)
    assert_whole(found, together)
    assert not found.rejects["reason"].is_in([UNDECODABLE]).any()
    alone = [decode(TOKENS, intake._part(together, slice(i, i + 1))) for i in range(len(values))]
    assert_frame_equal(found.frame, pl.concat(a.frame for a in alone))
    assert_frame_equal(found.rejects, pl.concat(a.rejects for a in alone))


@quick
@given(st.lists(single, min_size=1, max_size=8))
def test_the_fast_and_the_slow_way_read_the_same(poll: Poll, values: list[bytes]) -> None:
    """One broken neighbour sends all of a piece down the slow way."""
    fast = decode(TOKENS, poll(TOKENS, values))
    slow = decode(TOKENS, poll(TOKENS, [*values, b"{broken}"]))
    assert_frame_equal(fast.frame, slow.frame)
    assert slow.rejects.height == fast.rejects.height + 1


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda t: t.name)
def test_what_was_encoded_comes_back(poll: Poll, event_type: EventType, encoding: Encoding) -> None:
    frame = sample(event_type, 200)
    found = decode(event_type, poll(event_type, encode(event_type, frame, encoding)))
    assert found.rejects.is_empty()
    assert_frame_equal(found.frame.select(frame.columns), frame)


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


BROKEN: list[tuple[str, bytes]] = [
    (UNPARSABLE, b"no json at all"),
    (UNPARSABLE, b'{"half": '),
    (UNPARSABLE, event().replace(b'"gw"', b'"\xff"')),
    (UNKNOWN_TYPE, event().replace(b"tokens.v1", b"tokens.v9")),
    (UNKNOWN_TYPE, event().replace(b'"1.0"', b'"0.3"')),
    (WRONG_TYPE, event(requests="two")),
    (WRONG_TYPE, event(requests=1.5)),
    ("gateway is missing", event(gateway="")),
    ("requests is below 1", event(requests=-1)),
    ("duration is not a finite number", raw("duration", "NaN").replace(b'"duration": 0.25', b'"x": 1')),
    ("gen_ai.usage.cache_read.input_tokens exceeds", event(**{"gen_ai.usage.cache_read.input_tokens": 8})),
    ("time is more than 300 s ahead", event().replace(b"2025-12-31T23:59", b"2026-01-01T00:06")),
    (WRONG_TYPE, event().replace(b"2025-12-31T23:59:00.5Z", b"yesterday")),
]


@pytest.mark.parametrize(
    ("reason", "broken"), BROKEN, ids=[reason[:20] + str(i) for i, (reason, _) in enumerate(BROKEN)]
)
def test_a_broken_event_is_a_dead_letter_with_its_bytes_and_takes_no_neighbour(
    poll: Poll, reason: str, broken: bytes
) -> None:
    good = [event(requests=i) for i in range(1, 301)]
    found = decode(TOKENS, poll(TOKENS, [*good[:150], broken, *good[150:]]))
    assert found.frame["requests"].to_list() == list(range(1, 301))
    (reject,) = found.rejects.rows(named=True)
    assert reject["reason"].startswith(reason)
    assert (reject["offset"], reject["place"], reject["payload"], reject["key"]) == (150, 0, broken, b"key")
    assert reject["detail"]


def test_an_array_loses_only_its_broken_elements(poll: Poll) -> None:
    elements = [
        event(requests=1),
        b"null",
        raw("x", "NaN"),
        raw("id", '"\\ud800"'),
        event(requests=-1),
        event(requests=2),
    ]
    found = decode(TOKENS, poll(TOKENS, [b"[" + b",".join(elements) + b"]"]))
    assert found.frame["place"].to_list() == [0, 2, 3, 5]
    assert found.rejects["place"].to_list() == [1, 4]
    assert json.loads(found.rejects["payload"][1])["data"]["requests"] == -1


@pytest.mark.parametrize(
    "values",
    [(b'[{"id":"', b'"}]'), (b'[]}{"b":[]', b"[]"), (b"[", b"]"), (b"[]}", b'{"b":[]'), (b'[]}{"b":[]', b'[{"x":"')],
)
def test_arrays_that_only_together_are_json_are_dead_letters_each(poll: Poll, values: tuple[bytes, bytes]) -> None:
    array_type = CONTENT_TYPES["array"]
    together = poll(TOKENS, [*values, b"[" + event() + b"]"], content_types=[array_type] * 3)
    found = decode(TOKENS, together)
    alone = [decode(TOKENS, intake._part(together, slice(i, i + 1))) for i in range(3)]
    assert_frame_equal(found.rejects, pl.concat(a.rejects for a in alone))
    assert found.frame["offset"].to_list() == [2]


def test_an_impossible_number_in_an_array_that_orjson_refuses_is_still_a_dead_letter(poll: Poll) -> None:
    element = event().replace(b'"duration": 0.25', b'"duration": NaN')
    found = decode(TOKENS, poll(TOKENS, [b"[" + element + b"," + event() + b"]"]))
    assert found.frame["place"].to_list() == [1]
    assert found.rejects["reason"].to_list() == ["duration is not a finite number"]
    assert b'"duration": NaN' in found.rejects["payload"][0]


@pytest.mark.parametrize(
    "nested", ["[" * 200_000 + "]" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000], ids=["[", "{"]
)
def test_nesting_too_deep_for_one_parser_is_read_or_refused_but_never_fatal(poll: Poll, nested: str) -> None:
    deep = raw("x", nested)
    values = [deep, b"[" + deep + b"]", b"[" + deep + b",5]", nested.encode(), event()]
    found = decode(TOKENS, poll(TOKENS, values))
    assert 4 in found.frame["offset"].to_list()
    assert found.events == 5


# Arrow ---------------------------------------------------------------------------------------------------------------

FINE: dict[str, object] = {"time": times(3), "source": ["s"] * 3, "id": ["a", "b", "c"], "gateway": ["g"] * 3}


@pytest.mark.parametrize(
    ("column", "values", "accepted", "reason"),
    [
        ("requests", pa.array([1, 2, 3], pa.uint8()), [1, 2, 3], None),
        ("requests", pa.array([1.0, 2.5, 3.0]), [1, 3], WRONG_TYPE),
        ("requests", pa.array([1, 2**63, 3], pa.uint64()), [1, 3], WRONG_TYPE),
        ("requests", pa.array([1.0, float("nan"), None]), [1, 1], WRONG_TYPE),
        ("requests", pa.array([None] * 3), [1, 1, 1], None),
        ("requests", pa.array(["1", "2", "3"]), None, WRONG_TYPE),
        ("requests", pa.array([[1]] * 3), None, WRONG_TYPE),
        ("requests", pa.array([{"a": 1}] * 3), None, WRONG_TYPE),
        ("requests", pa.array([True, False, True]), None, WRONG_TYPE),
        ("id", pa.array(["a", "b", "c"]).dictionary_encode(), [1, 1, 1], None),
        ("id", pa.array(["a", "b", "c"], pa.large_string()), [1, 1, 1], None),
        ("id", pa.array(["a", "b", "c"], pa.string_view()), [1, 1, 1], None),
        ("id", pa.array([1, 2, 3]), None, WRONG_TYPE),
        ("id", pa.array([b"\xff"] * 3), None, WRONG_TYPE),
        ("id", pa.array(["a", None, ""]), [1], "id is missing"),
        ("time", pa.array([1, 2, None], pa.timestamp("s")), [1, 1], "time is missing"),
        ("time", pa.array([1, 2**60, -(2**62)], pa.timestamp("s", "UTC")), [1], WRONG_TYPE),
        ("time", pa.array([1, 2, 3], pa.timestamp("ms", "Asia/Shanghai")), [1, 1, 1], None),
        ("time", pa.array(["2025-01-01T00:00:00Z"] * 3), None, WRONG_TYPE),
        ("another", pa.array([{"a": [1]}] * 3), [1, 1, 1], None),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_an_arrow_row_that_cannot_be_read_as_its_type_is_refused_alone_and_a_foreign_schema_whole(
    poll: Poll, column: str, values: pa.Array, accepted: list[int] | None, reason: str | None
) -> None:
    found = decode(TOKENS, poll(TOKENS, [arrow(FINE | {column: values}), batch([9])]))
    assert found.frame["requests"].to_list() == [*(accepted or []), 9]
    assert found.events == (2 if accepted is None else 4)
    assert found.rejects["reason"].unique().to_list() == ([reason] if reason else [])


def test_a_refused_row_among_text_views_and_nanoseconds_is_refused_alone(poll: Poll) -> None:
    """As our own producers write them: Arrow's take() knows no views, and Python no nanoseconds."""
    frame = sample(TOKENS, 5).with_columns(requests=pl.Series([1, -1, 2, 3, 0]))
    found = decode(TOKENS, poll(TOKENS, encode(TOKENS, frame, "arrow")))
    assert found.frame["place"].to_list() == [0, 2, 3]
    assert found.rejects["place"].to_list() == [1, 4]
    assert json.loads(found.rejects["payload"][0])["time"] == "2023-11-14 22:13:21.123456796"


def test_a_refused_row_of_a_batch_is_told_as_json(poll: Poll) -> None:
    found = decode(TOKENS, poll(TOKENS, [batch([1, -1, 2, -3])]))
    assert [json.loads(p)["requests"] for p in found.rejects["payload"]] == [-1, -3]
    assert found.rejects["place"].to_list() == [1, 3]


@pytest.mark.parametrize("kind", ["no columns", "foreign columns", "twice", "no rows", "truncated", "no batch"])
def test_odd_streams(poll: Poll, kind: str) -> None:
    whole = batch([1, 2])
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["id", "id"])
    out = io.BytesIO()
    with ipc.new_stream(out, twice.schema) as writer:
        writer.write_table(twice)
    value, rows, rejects = {
        "no columns": (arrow({}), 0, 1),
        "foreign columns": (arrow({"x": [1]}), 0, 1),
        "twice": (out.getvalue(), 0, 1),
        "no rows": (batch([], pa.int64()), 0, 0),
        "truncated": (whole[: len(whole) // 2], 0, 1),
        "no batch": (whole[:8], 0, 1),
    }[kind]
    found = decode(TOKENS, poll(TOKENS, [value, event()]))
    assert (found.frame.height, found.rejects.height) == (rows + 1, rejects)


def views(text: str, count: int) -> pa.Array:
    """``count`` views of one text."""
    view = np.array([(len(text), 0, 0, 0)] * count, "<i4")
    view[:, 1] = int.from_bytes(text[:4].encode(), "little")
    return pa.Array.from_buffers(
        pa.string_view(), count, [None, pa.py_buffer(view.tobytes()), pa.py_buffer(text.encode())]
    )


@pytest.mark.parametrize("kind", ["zeros", "nulls", "dictionary", "views", "dictionaries", "many views"])
def test_what_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(poll: Poll, kind: str) -> None:
    long = "x" * 1_000_000
    indices = pa.array(np.zeros(1000, np.int8))
    value = {
        "zeros": lambda: arrow({"id": pa.array([long] * 300)}, compression="zstd"),
        "nulls": lambda: arrow({"requests": pa.nulls(5_000_000)}),
        "views": lambda: arrow({"id": views(long, 1000)}),
        "many views": lambda: arrow({name: views(long[:200_000], 1000) for name in ("id", "gateway")}),
        "dictionaries": lambda: arrow(
            {
                name: pa.DictionaryArray.from_arrays(indices, pa.array([long[:200_000]]))
                for name in ("id", "gateway", "tenant")
            }
        ),
        "dictionary": lambda: arrow({"id": pa.DictionaryArray.from_arrays(indices, pa.array([long]))}),
    }[kind]()
    assert len(value) < 8 << 20
    found = decode(TOKENS, poll(TOKENS, [value, event()]))
    assert found.rejects["reason"].to_list() == [TOO_LARGE]
    assert found.frame.height == 1


def test_messages_that_are_each_within_the_limit_are_not_held_together(
    poll: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    frames = arrow_intake._frames

    def seen(event_type: Any, polled: Any, run: Any, rejects: Any) -> Any:
        held.append(sum(table.nbytes for _, table in run))
        return frames(event_type, polled, run, rejects)

    monkeypatch.setattr(arrow_intake, "_frames", seen)
    monkeypatch.setattr(arrow_intake, "MAX_BYTES", 1 << 20)
    indices = pa.array(np.zeros(3, np.int8))
    value = arrow(FINE | {"gateway": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 100_000]))})
    found = decode(TOKENS, poll(TOKENS, [value] * 4))
    assert found.events == 12
    assert len(held) == 2
    assert max(held) <= 1 << 20


def test_a_refused_row_is_told_without_what_unknown_columns_may_unpack_to(poll: Poll) -> None:
    unknown = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int8)), pa.array(["x" * 1_000_000]))
    nothing = pa.array([[None] * 3] * 2000, pa.list_(pa.null()))
    rows = {"id": pa.array([str(i) for i in range(2000)]), "requests": pa.array([-1] * 2000)}
    found = decode(TOKENS, poll(TOKENS, [arrow(rows | {"x": unknown, "y": nothing, "z": pa.array([1] * 2000)})]))
    assert found.rejects.height == 2000
    assert json.loads(found.rejects["payload"][7]) == {"id": "7", "requests": -1, "z": 1}


def test_an_array_of_more_than_any_array_of_events_holds_is_refused_whole(poll: Poll) -> None:
    value = b"[" + b"0," * json_intake.MAX_EVENTS + b"0]"
    found = decode(TOKENS, poll(TOKENS, [value], content_types=[CONTENT_TYPES["array"]]))
    assert found.rejects.select("reason", "payload").rows() == [(TOO_LARGE, value)]


def test_a_long_key_is_not_kept_for_each_of_many_broken_events(poll: Poll) -> None:
    polled = poll(TOKENS, [b"[0,0]"], content_types=[CONTENT_TYPES["array"]])
    polled.keys[0] = b"k" * 100_000
    assert [len(key) for key in decode(TOKENS, polled).rejects["key"]] == [1024] * 2


@pytest.mark.parametrize(
    ("event_type", "values"),
    [
        (TOKENS, {"requests": 10**12, "duration_seconds": 1e7}),
        (TOKENS, {"requests": 10**12, "first_token_seconds": 1e7}),
        (UTILIZATION, {"devices": 10**6, "memory_used_bytes": 10**15}),
        (UTILIZATION, {"devices": 10**6, "memory_limit_bytes": 10**15}),
    ],
)
def test_a_count_times_what_each_has_beyond_what_sums_can_hold_is_refused(
    poll: Poll, event_type: EventType, values: dict[str, float]
) -> None:
    first = pl.int_range(pl.len()) == 0
    frame = sample(event_type, 2).with_columns(
        pl.when(first).then(pl.lit(value)).otherwise(name).cast(event_type.columns[name].polars).alias(name)
        for name, value in values.items()
    )
    found = decode(event_type, poll(event_type, encode(event_type, frame, "json")))
    assert found.rejects["offset"].to_list() == [0]
    assert "is above" in found.rejects["reason"][0]


# Poison --------------------------------------------------------------------------------------------------------------


WAYS: dict[Encoding, str] = {"json": "single_events", "array": "array_events", "arrow": "batch_events"}


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a bug"),
        MemoryError("too much"),
        pa.ArrowMemoryError("too much"),
        RecursionError(),
        OverflowError(),
        pl.exceptions.PanicException("native"),
        pl.exceptions.ComputeError("cannot"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_message_that_makes_the_decoder_raise_is_a_dead_letter(
    poll: Poll, monkeypatch: pytest.MonkeyPatch, encoding: Encoding, error: BaseException
) -> None:
    """Wherever that is: where its encoding is read, or where its events get their identities."""
    read, values = getattr(intake, WAYS[encoding]), encode(TOKENS, sample(TOKENS, 30), encoding)
    good = values if encoding == "json" else values * 30
    poison = values[0] + b" "

    def brittle(event_type: EventType, polled: Polled, indices: list[int], rejects: object) -> object:
        if any(polled.values[index] == poison for index in indices):
            raise error
        return read(event_type, polled, indices, rejects)

    monkeypatch.setattr(intake, WAYS[encoding], brittle)
    polled = poll(TOKENS, [*good[:11], poison, *good[11:]], content_types=[CONTENT_TYPES[encoding]] * 31)
    found = keyed(TOKENS, polled)
    assert_whole(found, polled)
    assert found.frame["offset"].unique().to_list() == [*range(11), *range(12, 31)]
    ((reason, offset, payload),) = found.rejects.select("reason", "offset", "payload").rows()
    assert (reason, offset, payload) == (UNDECODABLE, 11, poison)


@pytest.mark.parametrize("error", [ValueError("a bug"), pl.exceptions.PanicException("native")], ids=repr)
def test_a_message_whose_events_can_be_given_no_identity_is_a_dead_letter(
    poll: Poll, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    identify = intake.with_identity

    def brittle(event_type: EventType, frame: pl.DataFrame) -> pl.DataFrame:
        if frame["requests"].is_in([13]).any():
            raise error
        return identify(event_type, frame)

    monkeypatch.setattr(intake, "with_identity", brittle)
    polled = poll(TOKENS, [event(requests=i) for i in range(1, 30)])
    found = keyed(TOKENS, polled)
    assert_whole(found, polled)
    assert 13 not in found.frame["requests"].to_list()
    assert found.rejects.select("reason", "offset", "payload").rows() == [(UNDECODABLE, 12, event(requests=13))]
    assert {"identity_hi", "identity_lo"} <= set(found.frame.columns)


def test_a_thousand_refused_rows_of_one_batch_do_not_read_it_a_thousand_times(poll: Poll) -> None:
    """Quadratic, these took minutes."""
    rows = 20_000
    value = b"[" + b",".join([event(requests=-1)] * rows) + b"]"
    found = decode(TOKENS, poll(TOKENS, [value, batch([-1] * rows)]))
    assert found.rejects.height == 2 * rows


BLOCK_OF_NULLS = """
import sys
sys.path.insert(0, sys.argv[1])
from streams.intake import decode
from streams.polled import Polled, Run
from schemas.events import POWER
value = b"{}" + b" " * (4 << 20) + b"\\n" + b"null\\n" * 900_000 + b"{}"
found = decode(POWER, Polled(Run(POWER.topic, 0, 0), 0, [value, b"{}"], [None] * 2, [None] * 2, [0, 1], [0, 0]))
print(found.rejects["offset"].to_list())
"""


def test_a_block_of_nothing_but_null_does_not_kill_the_process() -> None:
    """It does where pyarrow's reader is let cut such a text into blocks."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_OF_NULLS, os.getcwd()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[0, 1]"), done.stderr[-2000:]


def test_an_event_from_before_1970_is_a_dead_letter(poll: Poll) -> None:
    when = [datetime(1969, 12, 31, 23, 59, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]
    frame = pl.DataFrame({"time": when, "site": "s", "meter": "m", "role": "it", "watts": 1.0})
    for encoding in ENCODINGS:
        found = decode(POWER, poll(POWER, encode(POWER, complete(POWER, frame), encoding)))
        assert found.frame.height == 1
        assert found.rejects.get_column("reason").to_list() == ["time is before 1970"]
