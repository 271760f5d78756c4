"""Dead letters: found, shown without harm to the terminal, and made into messages that a mended decoder takes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pyarrow import ipc

from pipelines.deadletters.letters import Choice, DeadLetters, Group, Letter, Position
from pipelines.deadletters.retry import NotRetryable, message_of
from pipelines.deadletters.view import letters_text, payload_text, printable
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, sweep
from pipelines.migrate import migrate
from schemas.envelope import CONTENT_TYPES, ENCODINGS, Encoding, encode
from schemas.errors import UsageError, WattStreamError
from schemas.events import POWER, TOKENS, EventType
from schemas.settings import Settings
from streams.intake import Intake, decode
from streams.polled import Polled, Run
from streams.rejects import UNDECODABLE, UNKNOWN_TYPE, UNPARSABLE, WRONG_TYPE

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
JSON, ARRAY, ARROW = (CONTENT_TYPES[encoding].decode() for encoding in ENCODINGS)


def polled(event_type: EventType, values: list[bytes], content_types: list[bytes | None]) -> Polled:
    return Polled(
        run=Run(event_type.topic, 0, 0),
        expected=0,
        values=list(values),
        keys=[b"key"] * len(values),
        content_types=content_types,
        offsets=list(range(len(values))),
        arrived=[int(NOW.timestamp() * 1000)] * len(values),
    )


def letter(payload: bytes, reason: str, content_type: str = "", place: int = 0, topic: str = TOKENS.topic) -> Letter:
    return Letter(Position(topic, 0, 0, place), NOW, reason, "", content_type, b"key", payload, None, None)


def letters(event_type: EventType, rejects: pl.DataFrame) -> list[Letter]:
    """As the table has them."""
    return [
        letter(row["payload"], row["reason"], row["content_type"], row["place"], event_type.topic)
        for row in rejects.iter_rows(named=True)
    ]


def is_json(value: bytes) -> bool:
    try:
        json.loads(value.decode())
    except ValueError:
        return False
    return True


def sent_again(event_type: EventType, rejects: pl.DataFrame) -> Intake:
    messages = [message_of(one) for one in letters(event_type, rejects)]
    return decode(event_type, polled(event_type, [value for value, _ in messages], [kind for _, kind in messages]))


def stricter(event_type: EventType, column: str) -> EventType:
    """An older decoder, which refused events without this field."""
    fields = tuple(replace(field, required=field.required or field.column == column) for field in event_type.fields)
    return replace(event_type, fields=fields)


REQUESTS = pl.DataFrame(
    {
        "time": pl.Series([NOW - timedelta(seconds=i) for i in range(4)]).dt.cast_time_unit("ns"),
        "source": ["gw"] * 4,
        "id": [f"r{i}" for i in range(4)],
        "gateway": ["gw"] * 4,
        "provider": ["", "p", "", ""],
        "input_tokens": [999_999_999, 2, None, 4],
        "duration_seconds": [0.1, None, 1e-9, 3.5],
    }
).with_columns(pl.col("time") + pl.duration(nanoseconds=1))
READINGS = pl.DataFrame(
    {
        "time": pl.Series([NOW - timedelta(seconds=i) for i in range(4)]).dt.cast_time_unit("ns"),
        "source": ["c", "", "c", "c"],
        "site": ["s"] * 4,
        "meter": ["m\u00e9t\u00e8re"] * 4,
        "role": ["utility"] * 4,
        "watts": [1.5, 2.0, None, 4.0],
        "joules": [1, 2, 3, 4],
    }
)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "sniffed"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("event_type", "events", "column"), [(TOKENS, REQUESTS, "provider"), (POWER, READINGS, "watts")]
)
def test_what_newer_code_accepts_is_the_same_event_after_a_retry(
    event_type: EventType, events: pl.DataFrame, column: str, encoding: Encoding, declared: bool
) -> None:
    values = encode(event_type, events, encoding)
    messages = polled(event_type, values, [CONTENT_TYPES[encoding] if declared else None] * len(values))
    refused = decode(stricter(event_type, column), messages)
    assert 0 < refused.rejects.height < events.height
    again = sent_again(event_type, refused.rejects)
    assert again.rejects.is_empty()
    both = pl.concat([refused.frame, again.frame]).drop("offset", "place").sort(event_type.identity)
    assert_frame_equal(both, decode(event_type, messages).frame.drop("offset", "place").sort(event_type.identity))


@pytest.mark.parametrize("content_type", [None, *CONTENT_TYPES.values(), b"application/json", b"text/plain"])
@given(st.binary(min_size=1, max_size=40).filter(lambda value: not is_json(value)))
def test_a_message_that_is_no_json_is_sent_as_it_was(content_type: bytes | None, value: bytes) -> None:
    (one,) = letters(TOKENS, decode(TOKENS, polled(TOKENS, [value], [content_type])).rejects)
    assert message_of(one) == (value, content_type)


ANY_JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@given(ANY_JSON)
def test_an_element_that_is_no_event_is_never_sent_as_a_message_of_events(element: Any) -> None:
    event = json.loads(encode(TOKENS, REQUESTS[:1], "json")[0])
    value = json.dumps([event, element]).encode()
    rejects = decode(TOKENS, polled(TOKENS, [value], [CONTENT_TYPES["array"]])).rejects
    (one,) = letters(TOKENS, rejects)
    assert one.position.place == 1
    with pytest.raises(NotRetryable, match="no CloudEvent"):
        message_of(one)


def test_an_array_within_an_array_is_not_taken_for_a_message() -> None:
    event = json.loads(encode(TOKENS, REQUESTS[:1], "json")[0])
    value = json.dumps([event, [event]]).encode()
    (one,) = letters(TOKENS, decode(TOKENS, polled(TOKENS, [value], [None])).rejects)
    with pytest.raises(NotRetryable, match="no CloudEvent"):
        message_of(one)


@pytest.mark.parametrize(
    ("payload", "reason", "content_type"),
    [
        (b'[{"specversion": "1.0"}', UNPARSABLE, ARRAY),  # cut by its producer
        (b'[{"specversion": "1.0"}]', UNDECODABLE, ARRAY),
        (b'{"specversion": "1.0"}', UNPARSABLE, ARRAY),  # one event under the header of many
        (b"\xff\xff\xff\xff and no more", UNPARSABLE, ARROW),
        (b'{"a": 1}', UNPARSABLE, ARROW),
        (b'{"a": 1}', UNKNOWN_TYPE, JSON),
        (b'{"a": 1}', UNKNOWN_TYPE, ""),
        (b"[" * 100_000, "id is missing", ARRAY),  # nested so deep that the letter holds all of the message
        (b"no event", UNPARSABLE, "text/plain"),
        (b"5", UNPARSABLE, JSON),
    ],
)
def test_what_is_all_of_its_message_is_sent_as_it_was(payload: bytes, reason: str, content_type: str) -> None:
    assert message_of(letter(payload, reason, content_type)) == (payload, content_type.encode() or None)


@pytest.mark.parametrize("content_type", ["", JSON, ARRAY, ARROW])
def test_a_tombstone_is_not_sent_again(content_type: str) -> None:
    with pytest.raises(NotRetryable, match="empty"):
        message_of(letter(b"", UNPARSABLE, content_type))


def test_a_row_of_which_a_column_had_another_type_is_sent_with_its_values() -> None:
    out = pa.BufferOutputStream()
    table = pa.table({"time": [NOW], "source": ["gw"], "id": ["r"], "gateway": ["gw"], "requests": [1.5], "later": [7]})
    with ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    (one,) = letters(TOKENS, decode(TOKENS, polled(TOKENS, [out.getvalue().to_pybytes()], [None])).rejects)
    assert one.reason == WRONG_TYPE
    value, content_type = message_of(one)
    assert content_type == CONTENT_TYPES["json"]
    event = json.loads(value)
    assert (event["type"], event["id"], event["time"][:20]) == (TOKENS.topic, "r", "2026-05-01T12:00:00.")
    assert event["data"] == {"gateway": "gw", "requests": 1.5, "later": 7}


@pytest.mark.parametrize("text", ["tokens/0/12/3", "wattstream.tokens.v1/0/12/3"])
def test_a_position_is_read_as_it_is_shown(text: str) -> None:
    position = Position.parse(text)
    assert position == ("wattstream.tokens.v1", 0, 12, 3)
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize("text", ["", "tokens/0/12", "tokens/0/-1/0", "tokens/70000/1/0", "tokens/0/1/0/0", "t/0/1/0"])
def test_what_is_no_position_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"deadletters list|one of"):
        Position.parse(text)


@given(st.text())
def test_nothing_from_outside_steers_the_terminal(text: str) -> None:
    assert printable(text).isprintable()
    assert all(line.isprintable() for line in payload_text(text.encode(errors="surrogatepass")).split("\n"))


def test_a_payload_is_indented_json_or_a_dump() -> None:
    assert payload_text(b'{"a":{"b":"\xc3\xa9"}}') == '{\n  "a": {\n    "b": "é"\n  }\n}'
    assert payload_text(b"no \xff\n") == "00000000  6e 6f 20 ff 0a                                   no .."
    assert payload_text(b"\x00" * 5000).endswith("904 bytes more: --raw writes them all")
    assert payload_text(b"") == "(empty)"


def test_only_reason_and_detail_are_cut_to_the_terminal() -> None:
    one = replace(letter(b"x", "a reason " * 5), detail="the detail " * 40, retried=NOW)
    group = Group(TOKENS.topic, one.reason, 3, 1, NOW, NOW)
    for width in (100, 200):
        lines = letters_text([group], [one], width).split("\n")
        assert all(len(line) <= width for line in lines)
        assert lines[-1].startswith("wattstream.tokens.v1/0/0/0  2026-05-01 12:00:00  yes")
        assert lines[-1].endswith("…")
    assert letters_text([group], [one], None).endswith(one.detail.strip())
    assert "\x1b" not in letters_text([group], [replace(one, detail="\x1b[2J")], 200)
    assert letters_text([], [], 80) == "No dead letters."


# On a real engine ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    made = Settings(home=tmp_path_factory.mktemp("letters"), port_base=free_ports(20))
    with EmbeddedClickHouse(made.home, made.port("clickhouse")):
        migrate(made)
        yield made
    sweep(made.home)


@pytest.fixture(scope="module")
def writer(settings: Settings) -> Iterator[Client]:
    client = settings.clickhouse_client("writer")
    client.command(
        "INSERT INTO deadletters SELECT 'wattstream.tokens.v1', number % 2, intDiv(number, 2), 0, "
        "fromUnixTimestamp64Milli(1767225600000 + number, 'UTC'), number < 300 ? 'early' : 'late', toString(number), "
        "'', unhex('ff'), concat(unhex('00ff'), toString(number)) FROM numbers(1000)"
    )
    yield client
    client.close()


def test_groups_and_the_newest_of_a_choice(settings: Settings, writer: Client) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=100)
    with DeadLetters(settings) as reader:
        assert [(group.reason, group.count) for group in reader.groups(Choice())] == [("late", 700), ("early", 300)]
        (group,) = reader.groups(Choice(TOKENS.topic, "early", since))
        assert (group.count, group.first) == (200, since)
        assert reader.groups(Choice(POWER.topic)) == []
        assert [one.detail for one in reader.newest(Choice(reason="early"), 3)] == ["299", "298", "297"]
        assert [one.detail for one in reader.newest(Choice(reason="' OR 1 --"), 3)] == []


def test_one_is_shown_with_its_bytes_and_a_missing_one_is_told(settings: Settings, writer: Client) -> None:
    with DeadLetters(settings) as reader:
        one = reader.one(Position(TOKENS.topic, 1, 10, 0))
        assert (one.key, one.payload, one.retried) == (b"\xff", b"\x00\xff21", None)
        with pytest.raises(WattStreamError, match=r"tokens\.v1/1/10/1: `wattstream deadletters list`"):
            reader.one(Position(TOKENS.topic, 1, 10, 1))
        with pytest.raises(WattStreamError, match=r"at wattstream\.tokens\.v1/9/9/9:"):
            reader.at([Position(TOKENS.topic, 1, 10, 0), Position(TOKENS.topic, 9, 9, 9)])


def test_every_selected_one_comes_once_with_its_payload(settings: Settings, writer: Client) -> None:
    with DeadLetters(settings) as reader:
        selected = reader.selected(Choice(reason="late"))
        batches = list(reader.with_payloads(selected))
        assert all(len({one.position.partition for one in batch}) == 1 for batch in batches)
        assert sorted(int(one.payload[2:]) for batch in batches for one in batch) == list(range(300, 1000))
        few = reader.at([Position(TOKENS.topic, 0, offset, 0) for offset in range(450)])
        assert few.height == 450


def test_what_is_written_down_is_told_by_the_letter_and_its_group(settings: Settings, writer: Client) -> None:
    where = Position(TOKENS.topic, 0, 5, 0)
    with DeadLetters(settings, "writer") as letters_of_writer:
        one = letters_of_writer.one(where)
        letters_of_writer.record([(one, NOW, 77), (one, NOW + timedelta(hours=1), 78)])
    with DeadLetters(settings) as reader:
        again = reader.one(where)
        assert (again.retried, again.new_offset) == (NOW + timedelta(hours=1), 78)
        (group,) = reader.groups(Choice(reason="early"))
        assert (group.count, group.retried) == (300, 1)
        assert reader.at([where]).get_column("retries").to_list() == [2]
        with pytest.raises(WattStreamError, match="Not enough privileges"):
            reader.record([(one, NOW, 79)])


def test_a_topic_made_anew_has_letters_of_its_own_at_the_same_positions(settings: Settings, writer: Client) -> None:
    writer.command(
        "INSERT INTO deadletters SELECT 'wattstream.power.v1', 0, 7, 0, fromUnixTimestamp64Milli(number, 'UTC'), 'r', "
        "toString(number), '', '', 'x' FROM numbers(2)"
    )
    where = Position(POWER.topic, 0, 7, 0)
    with DeadLetters(settings, "writer") as reader:
        older = next(one for one in reader.newest(Choice(POWER.topic), 9) if one.detail == "0")
        reader.record([(older, NOW, 1)])
        newer = reader.one(where)
        assert (newer.detail, newer.retried) == ("1", None)
        assert reader.at([where]).sort("arrived_ms").get_column("retries").to_list() == [1, 0]
