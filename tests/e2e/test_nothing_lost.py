"""Broken events become dead letters and nothing else; broken tables are found, and mended without a hole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import polars as pl
import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Producer as KafkaProducer

from pipelines.feed.producer import Producer
from pipelines.local.processes import wait_until
from pipelines.verify import Report, verify
from schemas.envelope import CONTENT_TYPE, CONTENT_TYPES, Encoding, encode
from schemas.events import DEADLETTERS_TOPIC, POWER, TOKENS, UTILIZATION
from schemas.settings import Settings
from tests.e2e.parts import worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

START = datetime(2026, 1, 31, 23, 0, tzinfo=UTC)
GOOD = 100_000
KINDS = 10
EACH = 100


@pytest.fixture(scope="module")
def settings(own_parts: Callable[..., Settings]) -> Settings:
    return own_parts("accounts", flush_seconds=0.2, group_timeout_seconds=3, audit_seconds=1)


def number(client: Client, query: str) -> int:
    return client.query(query).result_rows[0][0]


def until_done(client: Client, topic: str, messages: int) -> None:
    done = f"SELECT sum(messages) FROM ingest_ranges WHERE topic = '{topic}'"
    wait_until(lambda: number(client, done) == messages, 120, f"{topic} was not read to its end", interval=0.5)


def good_requests(first: int, count: int) -> pl.DataFrame:
    return pl.DataFrame({"id": [f"r{i}" for i in range(first, first + count)]}).with_columns(
        time=(pl.lit(START) + pl.duration(milliseconds=50) * pl.int_range(first, first + count)).cast(
            pl.Datetime("ns", "UTC")
        ),
        source=pl.lit("gateway-a"),
        gateway=pl.lit("gateway-a"),
        input_tokens=pl.int_range(first, first + count) % 997,
        output_tokens=pl.lit(3, pl.Int64),
        duration_seconds=pl.lit(1.5),
    )


BREAKS = {
    "removed": "DELETE FROM power WHERE offset = 3 AND place = 11 AND topic_partition = 0",
    "doubled": "INSERT INTO power SELECT * FROM power WHERE offset = 4 AND place = 5 AND topic_partition = 0",
    "off by one": "INSERT INTO power_1m (minute, site, node, meter, role, topic_partition, samples, milliwatts, "
    "arrived_min, upto) SELECT minute, site, node, meter, role, topic_partition, 1, 1, arrived_min, upto FROM power_1m "
    "WHERE topic_partition = 0 ORDER BY minute, meter LIMIT 1",
}


def readings(count: int) -> pl.DataFrame:
    return pl.DataFrame({"meter": [f"m{i % 20}" for i in range(count)]}).with_columns(
        time=(pl.lit(START) + pl.duration(seconds=1) * (pl.int_range(count) // 20)).cast(pl.Datetime("ns", "UTC")),
        site=pl.lit("campus-a"),
        role=pl.lit("rack"),
        watts=(pl.int_range(count) % 991).cast(pl.Float64) + 0.25,
        joules=(pl.int_range(count) * 3).cast(pl.Float64),
    )


def test_what_breaks_in_the_tables_verify_finds_and_the_audit_mends_without_a_hole(
    settings: Settings, writer: Client, meanwhile: Any
) -> None:
    with Producer(settings, "readings") as producer:
        producer.send(POWER, readings(20_000), rows_per_message=500)
    ((_, partition),) = producer.spans
    with worker(settings):
        until_done(writer, POWER.topic, 40)
        assert verify(settings).holds
    right = state(writer)
    for name, statement in BREAKS.items():
        writer.command(statement.replace("topic_partition = 0", f"topic_partition = {partition}"))
        found = verify(settings, wait=False)
        assert not found.holds, name
    assert_told(found)
    broken = state(writer)
    assert broken == (right[0] - 1, 1, right[2] + 1, right[3] + 1)
    with watching(settings, meanwhile) as seen, worker(settings):
        wait_until(lambda: state(writer) == right, 90, "the audit did not mend the tables", interval=0.5)
        wait_for_audits(settings, 2)  # the mending one, and the next
        told = number(writer, "SELECT count() FROM audits")
        wait_for_audits(settings, 2)
    assert state(writer) == right
    assert verify(settings).holds
    assert number(writer, "SELECT count() FROM audits") == told
    assert number(writer, "SELECT countIf(NOT mended) FROM audits") == 0
    subjects = {row[0] for row in writer.query("SELECT DISTINCT subject FROM audits").result_rows}
    assert subjects == {"power", "power_1m"}
    assert len(seen) > 10
    for was, now, should in zip(broken, map(set, zip(*seen, strict=True)), right, strict=True):
        assert min(was, should) <= min(now)
        assert max(now) <= max(was, should)


def test_a_sum_wider_than_64_bits_is_audited_and_mended_too(settings: Settings, writer: Client) -> None:
    """200,000 devices of 128 GiB, 400 times in a minute: 1.1e19 bytes."""
    samples = pl.DataFrame({"device": [f"d{i}" for i in range(400)]}).with_columns(
        time=pl.lit(START).cast(pl.Datetime("ns", "UTC")),
        site=pl.lit("campus-a"),
        node=pl.lit("pod"),
        devices=pl.lit(200_000),
        memory_used_bytes=pl.lit(2**37),
        memory_limit_bytes=pl.lit(2**37),
    )
    memory = "SELECT sum(memory_used_bytes) FROM utilization_1m"
    with Producer(settings, "devices") as producer:
        producer.send(UTILIZATION, samples)
    with worker(settings):
        until_done(writer, UTILIZATION.topic, 1)
        right = number(writer, memory)
        assert right == 400 * 200_000 * 2**37 > 2**63
        assert verify(settings).holds
    writer.command(  # with no worker, which might mend it before it is seen
        "INSERT INTO utilization_1m (minute, site, node, device, topic_partition, memory_used_bytes, upto) "
        "SELECT minute, site, node, device, topic_partition, 7, upto FROM utilization_1m LIMIT 1"
    )
    assert number(writer, memory) == right + 7
    with worker(settings):
        wait_until(lambda: number(writer, memory) == right, 90, "the audit did not mend it", interval=0.5)


def assert_told(found: Report) -> None:
    counted = found.by_topic[POWER.topic]
    assert counted.lost == 1  # the removed row
    assert counted.twice == 2  # the doubled row, and the sample too many in the rollup
    told = " ".join(found.differences)
    assert "neither in power nor dead letters" in told
    assert "repeat identities" in told
    assert "power_1m 2026-01" in told


def state(client: Client) -> tuple[int, int, int, int]:
    """What readers see: distinct rows, rows twice, samples and milliwatts."""
    row = client.query(
        "SELECT (SELECT uniqExact(topic_partition, offset, place) FROM power), "
        "(SELECT count() - uniqExact(topic_partition, offset, place) FROM power), "
        "(SELECT sum(samples) FROM power_1m), (SELECT sum(milliwatts) FROM power_1m)"
    ).result_rows[0]
    return row[0], row[1], row[2], row[3]


@contextmanager
def watching(settings: Settings, meanwhile: Any) -> Iterator[list[tuple[int, int, int, int]]]:
    """A reader that asks again and again."""
    seen: list[tuple[int, int, int, int]] = []
    client = settings.clickhouse_client("viewer")
    with meanwhile(lambda: seen.append(state(client)), 0.05):
        yield seen
    client.close()


def wait_for_audits(settings: Settings, count: int) -> None:
    audits = audits_of(settings)
    wait_until(lambda: audits_of(settings) >= audits + count, 60, "the audit did not go on", interval=0.5)


def audits_of(settings: Settings) -> float:
    text = httpx.get(f"http://127.0.0.1:{settings.port('worker')}/metrics", timeout=60, trust_env=False).text
    lines = (line for line in text.splitlines() if line.startswith("wattstream_audits_total"))
    return next(float(line.split()[-1]) for line in lines if f'"{POWER.topic}"' in line)


IMPOSSIBLE = {
    "negative tokens": pl.lit(-1, pl.Int64).alias("input_tokens"),
    "a part that exceeds the whole": pl.lit(10**6, pl.Int64).alias("cache_read_tokens"),
    "no gateway": pl.lit("").alias("gateway"),
    "from the future": pl.lit(datetime.now(UTC) + timedelta(days=2)).cast(pl.Datetime("ns", "UTC")).alias("time"),
}
"""Events that any encoding can carry and that can't be."""


def bad_ids(kind: str, count: int) -> pl.DataFrame:
    return good_requests(0, count).with_columns(id=pl.format("{} {}", pl.lit(kind), pl.int_range(count)))


def broken_rows() -> pl.DataFrame:
    """In Arrow batches: 34 of each impossible kind, and 100 that are not a number."""
    kinds = [bad_ids(f"arrow {kind}", 34).with_columns(change) for kind, change in IMPOSSIBLE.items()]
    kinds.append(bad_ids("arrow nan", EACH).with_columns(duration_seconds=pl.lit(float("nan"))))
    return pl.concat(kinds, how="diagonal")


def broken_events(encoding: Encoding) -> list[bytes]:
    """One JSON text an event, of single events or elements of arrays."""
    texts: list[bytes] = []
    for kind, change in IMPOSSIBLE.items():
        texts += encode(TOKENS, bad_ids(f"{encoding} {kind}", 33).with_columns(change), "json")

    def changed(kind: str, **members: object) -> list[bytes]:
        events = [orjson.loads(text) for text in encode(TOKENS, bad_ids(f"{encoding} {kind}", EACH // 2), "json")]
        data = members.pop("data", {})
        return [orjson.dumps(e | members | {"data": e["data"] | data}) for e in events]  # type: ignore[operator]

    texts += changed("type", type="wattstream.unheard.v1")
    texts += changed("text", data={"gen_ai.usage.input_tokens": "many"})
    texts += changed("time", time="yesterday")
    if encoding == "json":
        texts += [text[:-20] for text in encode(TOKENS, bad_ids("torn", EACH), "json")]
    else:
        texts += [b"%d" % number for number in range(EACH)]
    return texts


def send_all(settings: Settings) -> int:
    """Good ones in three encodings, the broken ones in their midst; how many messages."""
    sent = 0
    producer = KafkaProducer(settings.kafka_client(linger_ms=20))

    def send(value: bytes, encoding: Encoding) -> None:
        nonlocal sent
        sent += 1
        headers = {CONTENT_TYPE: CONTENT_TYPES[encoding]}
        producer.produce(TOKENS.topic, value, b"gateway-a", headers=headers)
        producer.poll(0)

    singles = encode(TOKENS, good_requests(0, 20_000), "json")
    for place, text in enumerate(broken_events("json")):
        singles.insert(7 + place * 31, text)
    for text in singles:
        send(text, "json")
    elements = encode(TOKENS, good_requests(20_000, 40_000), "json")
    for place, text in enumerate(broken_events("array")):
        elements.insert(3 + place * 17, text)
    for start in range(0, len(elements), 500):
        send(b"[" + b",".join(elements[start : start + 500]) + b"]", "array")
    rows = pl.concat([good_requests(60_000, 40_000), broken_rows()], how="diagonal").sample(
        fraction=1, shuffle=True, seed=1
    )
    for batch in rows.iter_slices(1000):
        send(encode(TOKENS, batch, "arrow")[0], "arrow")
    assert producer.flush(30) == 0
    return sent


def test_a_thousand_broken_events_among_good_ones_are_dead_letters_with_a_reason(
    settings: Settings, writer: Client
) -> None:
    messages = send_all(settings)
    with worker(settings):
        until_done(writer, TOKENS.topic, messages)
        report = verify(settings)
    assert report.holds, report.differences
    assert report.pending == 0
    counted = report.by_topic[TOKENS.topic]
    assert (counted.rows, counted.rejects, counted.events) == (GOOD, KINDS * EACH, GOOD + KINDS * EACH)
    assert number(writer, "SELECT uniqExact(identity) FROM tokens") == GOOD
    assert number(writer, "SELECT sum(samples) FROM tokens_1m") == GOOD
    dead = writer.query("SELECT reason, count() FROM deadletters GROUP BY reason").result_rows
    assert sum(count for _, count in dead) == KINDS * EACH
    assert all(reason for reason, _ in dead)
    assert len(dead) >= 8
    assert number(writer, "SELECT countIf(empty(payload)) FROM deadletters") == 0
    assert sum(1 for reason in dead_letters(settings) if reason) == KINDS * EACH


def dead_letters(settings: Settings) -> Iterator[bytes]:
    """The reasons on the topic, each position once."""
    consumer = Consumer(settings.kafka_client(group_id="test", enable_auto_commit=False))
    seen: set[bytes] = set()
    for partition in range(settings.partitions):
        at = TopicPartition(DEADLETTERS_TOPIC, partition, 0)
        end = consumer.get_watermark_offsets(at)[1]
        consumer.assign([at])
        while end and consumer.position([at])[0].offset < end:
            for message in consumer.consume(1000, 1.0):
                key, headers = message.key(), dict(message.headers() or [])
                if isinstance(key, bytes) and key not in seen:
                    seen.add(key)
                    yield bytes(headers["reason"])
    consumer.close()


def test_what_is_sent_and_done_while_verify_reads_the_log_is_no_difference(settings: Settings, writer: Client) -> None:
    sent = 0
    done = f"SELECT sum(messages) FROM ingest_ranges WHERE topic = '{TOKENS.topic}'"
    with worker(settings), Producer(settings, "meanwhile") as producer:

        def send_more(step: str, at: int, total: int) -> None:
            nonlocal sent
            if sent == 1500:  # often enough: before, while and after its own partition is read
                return
            before = number(writer, done)
            producer.send(TOKENS, good_requests(200_000 + sent, 500), rows_per_message=100)
            producer.flush(30)
            sent += 500
            wait_until(lambda: number(writer, done) >= before + 5, 60, "what was sent meanwhile was not done")

        producer.send(POWER, readings(20))  # read before the tokens, which therefore get more meanwhile
        send_more("before", 0, 0)
        report = verify(settings, progress=send_more)
        assert sent >= 1000  # at least one sending came while it read
        assert report.holds, report.differences
        report = verify(settings)
    assert report.holds, report.differences
    assert report.by_topic[TOKENS.topic].rows >= sent
