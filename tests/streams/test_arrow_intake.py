"""Events in batches of Arrow, however a client writes them: a row is refused alone, what unpacks to too much whole."""

import io
import json
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import ipc

from schemas.envelope import encode
from schemas.events import TOKENS
from streams import arrow_intake
from streams.intake import decode
from streams.rejects import TOO_LARGE, WRONG_TYPE
from tests.streams.messages import Poll, arrow, batch, event, sample, times

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
