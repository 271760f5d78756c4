"""What the producer library promises, on a real broker."""

import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest
from confluent_kafka import Consumer, TopicPartition

from pipelines.feed.manifest import Tally, sendings
from pipelines.feed.producer import Producer
from schemas.envelope import CONTENT_TYPES, ENCODINGS, Encoding
from schemas.errors import WattStreamError
from schemas.events import POWER, TOKENS
from schemas.identity import checksum, with_identity
from schemas.settings import Settings

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("broker")]


def readings(sites: int, rows: int) -> pl.DataFrame:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "time": pl.datetime_range(start, start.replace(minute=59), "1s", eager=True)[:rows].dt.cast_time_unit("ns"),
            "site": [f"site-{i % sites}" for i in range(rows)],
            "meter": ["utility"] * rows,
            "role": ["utility"] * rows,
            "watts": [float(i) for i in range(rows)],
        }
    )


def log(settings: Settings, topic: str, first: dict[int, int], last: dict[int, int]) -> list:
    consumer = Consumer(settings.kafka_client(group_id="test", auto_offset_reset="earliest"))
    consumer.assign([TopicPartition(topic, p, first[p]) for p in first])
    messages, wanted = [], {p: last[p] for p in first}
    while wanted:
        message = consumer.poll(60)
        assert message is not None
        assert message.error() is None
        messages.append(message)
        if message.offset() >= wanted.get(message.partition(), -1):
            wanted.pop(message.partition(), None)
    consumer.close()
    return messages


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_sending_is_in_the_log_as_its_manifest_says(stack_settings: Settings, encoding: Encoding) -> None:
    frame = readings(5, 2500)
    with Producer(stack_settings, f"log-{encoding}") as producer:
        assert producer.send(POWER, frame, encoding, rows_per_message=200) == 2500
        producer.flush(30)
        spans = producer.spans
    (sending,) = [s for s in sendings(stack_settings.home) if s.file.name.startswith(f"log-{encoding}-")]
    assert sending.unknown == Tally(0, 0)
    assert sending.acknowledged == Tally(2500, checksum(with_identity(POWER, frame.with_columns(node=pl.lit("")))))
    found = {place: (span.first, span.last) for place, span in spans.items()}
    assert found == {(POWER.topic, part.partition): (part.first, part.last) for part in sending.parts}
    assert all(abs(time.time() * 1000 - span.first_arrived) < 60_000 for span in spans.values())
    messages = log(
        stack_settings,
        POWER.topic,
        {part.partition: part.first for part in sending.parts},
        {part.partition: part.last for part in sending.parts},
    )
    assert len(messages) == sum(part.messages for part in sending.parts) == (2500 if encoding == "json" else 15)
    partitions = defaultdict(set)
    for message in messages:
        assert dict(message.headers()) == {"content-type": CONTENT_TYPES[encoding]}
        partitions[message.key()].add(message.partition())
    assert set(partitions) == {f"site-{i}".encode() for i in range(5)}
    assert all(len(found) == 1 for found in partitions.values())


def test_a_missing_topic_is_told_before_anything_is_sent(stack_settings: Settings) -> None:
    with Producer(stack_settings, "topics") as producer:
        producer.require([POWER, TOKENS])
        with pytest.raises(WattStreamError, match=r"has no topic wattstream\.nothing\.v1: run wattstream migrate"):
            producer.require([POWER, replace(POWER, name="nothing")])


def test_a_batch_over_the_limit_is_split_by_rows_and_nothing_is_lost(stack_settings: Settings) -> None:
    small = stack_settings.model_copy(update={"message_max_bytes": 64 * 1024})
    frame = pl.DataFrame({"id": [f"{i}-{'x' * 900}" for i in range(1000)]}).with_columns(
        time=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)), source=pl.lit("split"), gateway=pl.lit("g")
    )
    with Producer(small, "split") as producer:
        producer.send(TOKENS, frame, "array", rows_per_message=1000)
    (sending,) = [s for s in sendings(stack_settings.home) if s.file.name.startswith("split-")]
    (part,) = sending.parts
    assert part.events == 1000
    assert part.messages == 32  # 1.3 MB of JSON halved five times


def test_the_key_lands_where_kafkas_own_partitioner_puts_it(stack_settings: Settings) -> None:
    """The worker's clients hash with murmur2; 'site-0' is checked against aiokafka's own partitioner."""
    from aiokafka.partitioner import DefaultPartitioner

    with Producer(stack_settings, "murmur") as producer:
        for site in range(8):
            producer.send(POWER, readings(1, 1).with_columns(site=pl.lit(f"s{site}")))
        producer.flush(30)
    every = list(range(stack_settings.partitions))
    for sending in sendings(stack_settings.home):
        if sending.file.name.startswith("murmur-"):
            (key,) = sending.keys
            assert sending.parts[0].partition == DefaultPartitioner()(key.encode(), every, every)
