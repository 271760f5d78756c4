"""What was written as version 1 is read for ever, in each encoding."""

import json
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from schemas.envelope import CONTENT_TYPES, ENCODINGS, Encoding, encode, encoding_of
from schemas.events import BY_NAME, EVENT_TYPES, TOKENS, EventType
from streams.intake import decode
from streams.polled import Polled, Run

FIXTURES = Path(__file__).parent / "fixtures"
ARRIVED_MS = 1_767_225_600_000


def read(event_type: EventType, value: bytes) -> pl.DataFrame:
    polled = Polled(Run(event_type.topic, 0, 0), 0, [value], [b"key"], [None], [0], [ARRIVED_MS])
    found = decode(event_type, polled)
    assert found.rejects.is_empty(), found.rejects["detail"].to_list()
    return found.frame.select(list(event_type.columns))


def expected(name: str) -> pl.DataFrame:
    """The fixture's events by column, times as nanoseconds since 1970; columns that came later are left out."""
    rows = json.loads((FIXTURES / f"{name}.v1.expected.json").read_text())
    event_type = BY_NAME[name]
    schema = {c: pl.Int64() if event_type.columns[c].kind == "time" else event_type.columns[c].polars for c in rows[0]}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.col(c).cast(event_type.columns[c].polars) for c in frame.columns)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", [t.name for t in EVENT_TYPES])
def test_a_message_of_version_1_is_read_as_it_was_meant(name: str, encoding: Encoding) -> None:
    value = (FIXTURES / f"{name}.v1.{encoding}").read_bytes()
    wanted = expected(name)
    found = read(BY_NAME[name], value).select(wanted.columns)
    assert_frame_equal(found, wanted.head(1) if encoding == "json" else wanted)


def test_a_field_of_later_is_ignored_and_an_absent_one_is_null_or_its_default() -> None:
    event = json.loads((FIXTURES / "tokens.v1.json").read_bytes())
    event["data"] |= {"of.later": {"nested": [1]}}
    event["traceparent"] = "00-1"
    del event["data"]["requests"], event["data"]["duration"]
    row = read(TOKENS, json.dumps(event).encode()).row(0, named=True)
    assert (row["requests"], row["duration_seconds"]) == (1, None)


@pytest.mark.parametrize(
    ("value", "content_type", "encoding"),
    [
        (b"{}", None, "json"),
        (b" \n[]", None, "array"),
        (b"\xff\xff\xff\xff\x10", None, "arrow"),
        (b"{}", b"application/json; charset=utf-8", "json"),
        (b"[]", b"application/json", "array"),
        (b"{}", b"Application/CloudEvents+JSON; charset=utf-8", "json"),
        (b"x", CONTENT_TYPES["arrow"], "arrow"),
        (b"{}", b"text/plain", None),
        (b"nothing", None, None),
        (b"", None, None),
    ],
)
def test_the_header_says_the_encoding_else_the_first_bytes(
    value: bytes, content_type: bytes | None, encoding: str | None
) -> None:
    assert encoding_of(value, content_type) == encoding


def test_no_events_make_no_message() -> None:
    assert all(encode(TOKENS, TOKENS.frame_schema.to_frame(), encoding) == [] for encoding in ENCODINGS)
