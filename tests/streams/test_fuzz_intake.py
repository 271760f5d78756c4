"""Messages that are hardly valid, in each encoding: no crash, no hang, and each event of them a row or a reject.

``pytest tests/streams/test_fuzz_intake.py --fuzz-examples 100000 -rP`` is the long run; see docs/reliability.md.
"""

import io
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from hypothesis import strategies as st
from pyarrow import ipc

from schemas.envelope import CONTENT_TYPES, ENCODINGS, Encoding, encoding_of
from schemas.events import EVENT_TYPES, EventType
from streams.intake import decode
from streams.polled import Polled, Run
from streams.rejects import UNDECODABLE

FIXTURES = Path(__file__).parents[1] / "schemas" / "fixtures"
ARRIVED_MS = 4_102_444_800_000  # 2100: nothing in the fixtures is from the future

JSON_PIECES = [
    *rb"null { } [ ] , : \ NaN -Infinity 1e999 -0 0.5 12345678901234567890 9223372036854775808 true".split(),
    *(rb'"', rb"\ud800", rb"\u0000", rb'"2026-01-01T00:00:00Z"', rb'{"data":null}', rb'"data":{},', rb'"time":1,'),
    *(b"\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"\nnull\n", b"9" * 400, b"[" * 3000, b"]" * 3000, b'{"a":' * 3000),
]
ARROW_PIECES = [b"\xff\xff\xff\xff\0\0\0\0", b"\xff\xff\xff\xff", b"\0" * 64, b"ARROW1\0\0", b"\x10\0\0\0", b"UTC"]


def fixture(event_type: EventType, encoding: Encoding) -> bytes:
    return (FIXTURES / f"{event_type.name}.v1.{encoding}").read_bytes()


@cache
def seeds(event_type: EventType, encoding: Encoding) -> Sequence[bytes]:
    """The fixture of this version; Arrow also as other writers write it."""
    first = fixture(event_type, encoding)
    if encoding == "json":
        return [first, b"{}", b"null"]
    if encoding == "array":
        return [first, b"[]", b"[null]"]
    table = ipc.open_stream(first).read_all()
    dictionaries, views = table, table
    for number, field in enumerate(table.schema):
        if (
            pa.types.is_string(field.type)
            or pa.types.is_large_string(field.type)
            or pa.types.is_string_view(field.type)
        ):
            text = table.column(number).cast(pa.string())
            dictionaries = dictionaries.set_column(number, field.name, text.dictionary_encode())
            views = views.set_column(number, field.name, text.cast(pa.string_view()))
    nulls = pa.table({field.name: pa.nulls(3) for field in table.schema})
    return [
        first,
        *(stream(table, compression=name) for name in (None, "lz4", "zstd")),
        stream(dictionaries),
        stream(views),
        stream(nulls),
        stream(table.slice(0, 0)),
    ]


def stream(table: pa.Table, **options: object) -> bytes:
    out = io.BytesIO()
    with ipc.new_stream(out, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return out.getvalue()


def held(value: bytes, encoding: Encoding | None) -> Collection[int]:
    """How many events a message may count as, by another reading than the decoder's."""
    if encoding == "array":
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError:  # refused whole, or read by a reader that takes more
            return range(1, value.count(b",") + 2)
        return {len(found) if isinstance(found, list) else 1}
    if encoding == "arrow":
        try:
            return {1, ipc.open_stream(value).read_all().num_rows}  # 1: refused whole
        except (pa.ArrowException, OSError, ValueError, OverflowError):
            return {1}
    return {1}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_event_of_a_hardly_valid_message_is_a_row_or_a_reject_and_its_neighbour_is_read(
    fuzz: Callable[..., None], mutated: Callable[..., st.SearchStrategy[bytes]], encoding: Encoding
) -> None:
    pieces = ARROW_PIECES if encoding == "arrow" else JSON_PIECES
    messages = st.sampled_from(EVENT_TYPES).flatmap(
        lambda event_type: st.tuples(
            st.just(event_type),
            mutated(seeds(event_type, encoding), pieces),
            st.sampled_from([None, CONTENT_TYPES[encoding]]),
        )
    )

    def check(message: tuple[EventType, bytes, bytes | None]) -> None:
        event_type, value, content_type = message
        good = fixture(event_type, encoding)
        polled = Polled(
            run=Run(event_type.topic, 0, 0),
            expected=0,
            values=[value, good],
            keys=[None, None],
            content_types=[content_type, CONTENT_TYPES[encoding]],
            offsets=[0, 1],
            arrived=[ARRIVED_MS] * 2,
        )
        found = decode(event_type, polled)
        assert found.messages == 2
        assert UNDECODABLE not in found.rejects["reason"].to_list()
        positions = [*found.frame.select("offset", "place").rows(), *found.rejects.select("offset", "place").rows()]
        places = sorted(place for offset, place in positions if offset == 0)
        assert places == list(range(len(places)))
        assert len(places) in held(value, encoding_of(value, content_type) if value else None)
        neighbour = found.frame["offset"].to_list().count(1)
        assert neighbour + len(places) == len(positions)
        assert neighbour in held(good, encoding)

    fuzz(messages, check)
