"""A field of later: today's code reads past it, and code that knows it finds it when it reads the log again."""

import io
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import orjson
import polars as pl
import pytest
from clickhouse_connect.driver.client import Client
from pyarrow import ipc

from pipelines.migrate import migrate
from schemas import events
from schemas.envelope import ENCODINGS, Encoding, encode
from schemas.events import TOKENS, EventType, Field
from schemas.settings import Settings
from streams import arrow_intake
from streams.flush import Flush, Portion
from streams.intake import decode, keyed
from streams.ledger import Ledger, Position
from streams.polled import Polled
from streams.takes import Log, Takes

pytestmark = pytest.mark.e2e

LATER = replace(
    TOKENS,
    fields=(
        *TOKENS.fields,
        Field("cached_seconds", "cached", "real", "s", "Of later.", low=0, high=1e7),
        Field("tier", "service.tier", "text", "", "Of later."),
    ),
)
OFFSETS = len(ENCODINGS)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The code of a later version: it knows two fields more."""
    with monkeypatch.context() as patched:
        patched.setitem(events.BY_NAME, "tokens", LATER)
        arrow_intake._known.cache_clear()
        yield
    arrow_intake._known.cache_clear()


def message(encoding: Encoding) -> bytes:
    """As a producer of later sends it, one event a message."""
    frame = pl.DataFrame(
        {
            "time": pl.Series([1_760_000_000_123_456_789]).cast(pl.Datetime("ns", "UTC")),
            "source": "s",
            "id": encoding,
            "gateway": "g",
            "input_tokens": 7,
            "cached_seconds": 1.25,
            "tier": "批量",
        }
    )
    return encode(LATER, frame, encoding)[0]


MESSAGES = [message(encoding) for encoding in ENCODINGS]


def test_the_messages_do_carry_the_field() -> None:
    single, array, arrow = MESSAGES
    assert [orjson.loads(single)["data"]["cached"], orjson.loads(array)[0]["data"]["cached"]] == [1.25, 1.25]
    assert "cached" in ipc.open_stream(io.BytesIO(arrow)).schema.names


@pytest.mark.parametrize("broken", [False, True], ids=["fast", "by the book"])
def test_todays_code_reads_past_a_field_of_later(poll: Callable[..., Polled], broken: bool) -> None:
    found = decode(TOKENS, poll(TOKENS, [*MESSAGES, *([b"{", b"[5]"] if broken else [])]))
    assert found.rejects.height == (2 if broken else 0)
    assert found.frame["id"].to_list() == list(ENCODINGS)
    assert found.frame["input_tokens"].to_list() == [7] * OFFSETS
    assert not {"cached_seconds", "tier"} & set(found.frame.columns)


def write(event_type: EventType, client: Client, number: int, polled: Polled) -> None:
    """What a worker does with the whole log."""
    takes = Takes(lambda: client, event_type, worker=uuid.uuid4())
    position = takes.take({number: Log("topic-id", 0, OFFSETS)}, timeout_seconds=20)[number]
    assert isinstance(position, Position)
    flush = Flush(event_type, Ledger(lambda: client, event_type), None, lambda _: None)
    portion = Portion(position, 0, OFFSETS - 1, [keyed(event_type, polled)], 0)
    flush.write(flush.prepare([portion], lambda: None))


def test_a_field_that_old_code_ignored_is_there_when_new_code_reads_the_log_again(
    tables: Settings, poll: Callable[..., Polled], new_partition: Callable[[], int], request: pytest.FixtureRequest
) -> None:
    number = new_partition()
    polled = poll(TOKENS, MESSAGES, partition=number)
    old = tables.clickhouse_client("writer")
    write(TOKENS, old, number, polled)
    migrate(tables, database="wattstream_later")
    new = tables.clickhouse_client("writer", database="wattstream_later")
    new.command(
        "ALTER TABLE tokens ADD COLUMN cached_seconds Nullable(Float64), ADD COLUMN tier LowCardinality(String)"
    )
    older = new_partition()
    write(TOKENS, new, older, poll(TOKENS, MESSAGES, partition=older))  # rolled back: old code on the new tables
    request.getfixturevalue("later")
    write(LATER, new, number, polled)
    shared = "* EXCEPT (cached_seconds, tier, topic_partition)"
    of = "FROM tokens WHERE topic_partition = {} ORDER BY offset"
    rows = old.query(f"SELECT * EXCEPT topic_partition {of.format(number)}").result_rows
    assert len(rows) == OFFSETS
    assert new.query(f"SELECT {shared} {of.format(number)}").result_rows == rows
    assert new.query(f"SELECT {shared} {of.format(older)}").result_rows == rows
    fields = f"SELECT cached_seconds, tier {of}"
    assert new.query(fields.format(number)).result_rows == [(1.25, "批量")] * OFFSETS
    assert new.query(fields.format(older)).result_rows == [(None, "")] * OFFSETS
    new.command("DROP DATABASE wattstream_later SYNC")
