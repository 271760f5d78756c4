"""The shape of what an event costs, not its speed: inserts and parts a flush, no Python for each event of a batch."""

import gc
import re
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from schemas.envelope import CONTENT_TYPES, ENCODINGS, Encoding, encode
from schemas.events import TOKENS
from schemas.settings import Settings
from streams.dedupe import Seen
from streams.flush import Flush, Portion, Prepared
from streams.intake import keyed
from streams.ledger import Claim, Ledger, Position
from streams.polled import Polled
from streams.takes import Log, Takes

Poll = Callable[..., Polled]
MESSAGES = 4
START = datetime(2025, 12, 31, 23, 0, tzinfo=UTC)
MINUTES = 10


def usage(events: int, first: int = 0) -> pl.DataFrame:
    """Requests of ten minutes, of five models."""
    number = np.arange(first, first + events)
    return pl.DataFrame(
        {
            "time": [START + timedelta(seconds=60 * MINUTES * i / events) for i in range(events)],
            "source": ["gateway"] * events,
            "id": [str(n) for n in number],
            "gateway": ["gateway"] * events,
            "site": ["site"] * events,
            "model": [f"model-{n % 5}" for n in number],
            "input_tokens": number,
            "output_tokens": number,
            "duration_seconds": number / events,
        }
    )


def batches(poll: Poll, encoding: Encoding, events: int, *, partition: int = 0, first: int = 0) -> Polled:
    """That many events in four messages."""
    rows = events // MESSAGES
    values = [encode(TOKENS, usage(rows, first + m * rows), encoding)[0] for m in range(MESSAGES)]
    return poll(TOKENS, values, content_types=[CONTENT_TYPES[encoding]] * MESSAGES, partition=partition)


class NothingBefore:
    """In the place of a ledger whose tables hold no identities yet."""

    def identities(self, minutes: Any, before: Any) -> pl.DataFrame:
        names = {"topic_partition": pl.UInt16, "minute": pl.Int64}
        return pl.DataFrame(schema=names | {"identity_hi": pl.UInt64, "identity_lo": pl.UInt64})


def prepared(polled: Polled) -> Prepared:
    """All of a flush but its inserts, with dedupe, of one poll."""
    there = pl.DataFrame(schema={"offset": pl.Int64, "place": pl.UInt32})
    position = Position(Claim(TOKENS.topic, "topic-id", 0, 1, uuid.UUID(int=0)), 0, there, there)
    flush = Flush(TOKENS, cast(Ledger, NothingBefore()), Seen(1 << 28), lambda rejects: None)
    return flush.prepare([portion(position, polled)], lambda: None)


def portion(position: Position, polled: Polled) -> Portion:
    return Portion(position, position.base, polled.last, [keyed(TOKENS, polled)], polled.arrived[-1])


def instructions(run: Callable[[], object]) -> int:
    """Bytecodes of Python that a call executes in this thread, in all that it calls."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("encoding", ["array", "arrow"])
def test_no_python_runs_for_each_event_of_a_batch(poll: Poll, encoding: Encoding) -> None:
    counts: list[int] = []
    for events in (400, 400, 8_000):  # the first fills caches
        polled = batches(poll, encoding, events)
        found: list[Prepared] = []
        counts.append(instructions(lambda polled=polled, found=found: found.append(prepared(polled))))
        assert found[0].ranges[0].rows == found[0].ranges[0].events == events
    assert counts[1] > 1000, "nothing was counted"
    assert counts[2] < 1.02 * counts[1]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_decoded_event_is_no_python_object(poll: Poll, encoding: Encoding) -> None:
    """Single ones too: a worker holds some hundred thousand of them."""
    events = 8_000
    if encoding == "json":
        polled = poll(TOKENS, encode(TOKENS, usage(events), encoding))
    else:
        polled = batches(poll, encoding, events)
    keyed(TOKENS, polled)  # fills caches
    gc.collect()
    before = sys.getallocatedblocks()
    intake = keyed(TOKENS, polled)
    gc.collect()
    assert intake.frame.height == events
    assert sys.getallocatedblocks() - before < events / 1000 * 20


@pytest.mark.e2e
def test_a_flush_is_one_insert_a_table_of_one_part_and_one_of_its_ranges(
    poll: Poll, tables: Settings, new_partition: Callable[[], int]
) -> None:
    """However many partitions, polls and events are in it: an insert costs 9 to 20 ms, a part its merges."""
    statements: list[str] = []

    def connect() -> Client:
        client = tables.clickhouse_client("writer")
        insert = client.raw_insert

        def counted(*, insert_block: Any, **named: Any) -> Any:
            statement, data = insert_block
            statements.append(bytes(statement).decode())
            return insert(insert_block=iter((statement, data)), **named)  # pyright: ignore[reportArgumentType]

        client.raw_insert = counted
        return client

    ledger, takes = Ledger(connect, TOKENS), Takes(connect, TOKENS, worker=uuid.uuid4())
    numbers = new_partition(), new_partition()
    taken = takes.take(dict.fromkeys(numbers, Log("topic-id", 0, 10**6)), timeout_seconds=10)
    positions = [position for position in taken.values() if isinstance(position, Position)]
    portions = [
        portion(at, batches(poll, "arrow", 8_000, partition=at.claim.partition, first=n * 8_000))
        for n, at in enumerate(positions)
    ]
    flush = Flush(TOKENS, ledger, None, lambda rejects: None)
    before, _ = parts(tables), statements.clear()
    flush.write(flush.prepare(portions, lambda: None))
    inserts = [re.findall(r"INSERT INTO (\w+)", statement) for statement in statements]
    assert inserts == [["tokens"], ["tokens_1m"], ["usage_1m"], ["ingest_ranges"]]
    assert sorted(table for table, _ in parts(tables) - before) == ["ingest_ranges", "tokens", "tokens_1m", "usage_1m"]


def parts(settings: Settings) -> set[tuple[str, str]]:
    """What inserts have made, merged or not."""
    rows = (
        settings.clickhouse_client("writer")
        .query("SELECT table, name FROM system.parts WHERE database = 'wattstream' AND level = 0")
        .result_rows
    )
    return {(table, name) for table, name in rows}
