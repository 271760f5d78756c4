"""Verify reads the log by itself, and finds what doesn't add up."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.verify_log import identify
from schemas.envelope import CONTENT_TYPES, ENCODINGS, Encoding, encode
from schemas.events import EVENT_TYPES, POWER, TOKENS, EventType
from schemas.identity import with_identity

NANOSECONDS = st.integers(0, 4 * 10**18)
TEXT = st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"]), max_size=12)


def frame_of(event_type: EventType, times: list[int], text: str) -> pl.DataFrame:
    columns = {}
    for field in event_type.fields:
        if field.kind == "time":
            values = pl.Series(times, dtype=pl.Int64)
        elif field.kind == "text":
            values = pl.Series([f"{text}{i}" if i % 3 else text for i in range(len(times))])
        else:
            values = pl.Series([1] * len(times))
        columns[field.column] = values.cast(field.polars)
    return pl.DataFrame(columns)


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda t: t.name)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("named", [True, False], ids=["header", "sniffed"])
@given(times=st.lists(NANOSECONDS, min_size=1, max_size=8), text=TEXT)
@settings(deadline=None, max_examples=10)
def test_identities_are_those_of_the_contract_in_every_encoding(
    event_type: EventType, encoding: Encoding, named: bool, times: list[int], text: str
) -> None:
    frame = frame_of(event_type, times, text)
    messages = encode(event_type, frame, encoding)
    found = identify(event_type, messages, [CONTENT_TYPES[encoding] if named else None] * len(messages))
    wanted = with_identity(event_type, frame)
    assert found.get_column("identity_hi").equals(wanted.get_column("identity_hi"))
    assert found.get_column("identity_lo").equals(wanted.get_column("identity_lo"))
    assert found.get_column("minute").to_list() == [time // 60_000_000_000 for time in times]
    places = [0] * len(times) if encoding == "json" else list(range(len(times)))
    assert found.get_column("place").to_list() == places


@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        (b"", None),
        (b"{", None),
        (b"[1, 2", None),
        (b"text", None),
        (b"\xff\xff\xff\xffno arrow", None),
        (b"{}", b"text/plain"),
        (b"[]", CONTENT_TYPES["json"]),
        (b"{}", CONTENT_TYPES["array"]),
        (b"{}", CONTENT_TYPES["arrow"]),
    ],
)
def test_a_message_that_cannot_be_read_is_one_event_without_identity(value: bytes, content_type: bytes | None) -> None:
    found = identify(POWER, [value], [content_type])
    assert found.select("message", "place", "identity_hi", "identity_lo").rows() == [(0, 0, None, None)]


def test_each_element_of_an_array_keeps_its_place_also_beside_broken_ones() -> None:
    good = encode(TOKENS, frame_of(TOKENS, [0], "a"), "json")[0]
    found = identify(TOKENS, [b"[7," + good + b',{"data":3}]', good], [None, None])
    assert found.select("message", "place").rows() == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert found.get_column("identity_hi").is_not_null().to_list() == [False, True, False, True]


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T08:00:00+08:00", "2026-01-01T00:00:00Z", "2026-01-01T00:00Z", "2026-01-01T00:00:00.000000000Z"],
)
def test_one_time_is_one_identity_however_it_is_written(text: str) -> None:
    def hashed(time: str) -> tuple[int, int]:
        event = f'{{"time":"{time}","data":{{"site":"s","meter":"m"}}}}'.encode()
        return identify(POWER, [event], [None]).select("identity_hi", "identity_lo").row(0)

    assert hashed(text) == hashed("2026-01-01T00:00:00+00:00")
