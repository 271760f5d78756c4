"""The worker on a real broker and engine: what is sent is there, whatever it is; it starts and stops as it should."""

import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import polars as pl
import psutil
import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer as KafkaProducer

from dags.archive.kafka import KafkaLogs
from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.parts import EmbeddedClickHouse, SettingsPart
from pipelines.local.processes import free_ports, processes_of, stop, sweep, wait_until
from pipelines.migrate import migrate
from pipelines.topics import create_topics
from pipelines.verify import verify
from schemas.envelope import CONTENT_TYPE, CONTENT_TYPES, ENCODINGS, encode
from schemas.events import EVENT_TYPES, TOKENS
from schemas.settings import Settings
from streams.log import Logs
from tests import headers
from tests.e2e.parts import worker
from tests.patience import quickest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

START = datetime(2026, 1, 1, tzinfo=UTC)


def requests(first: int, count: int, source: str = "gw") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "time": pl.datetime_range(START, START.replace(hour=23), "1s", eager=True)[:count].dt.cast_time_unit("ns"),
            "id": [f"r{i}" for i in range(first, first + count)],
            "input_tokens": [7] * count,
        }
    ).with_columns(source=pl.lit(source), gateway=pl.lit(source))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("worker")
    made = Settings(home=home, port_base=free_ports(20), flush_seconds=0.2, group_timeout_seconds=2)
    yield made
    sweep(home)


@pytest.fixture(scope="module")
def kafka(settings: Settings) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(settings.home, settings.port("kafka"), settings.port("controller")) as broker:
        create_topics(settings)
        yield broker


@pytest.fixture(scope="module")
def clickhouse(settings: Settings) -> Iterator[EmbeddedClickHouse]:
    with EmbeddedClickHouse(settings.home, settings.port("clickhouse")) as engine:
        migrate(settings)
        yield engine


@pytest.fixture
def viewer(settings: Settings, clickhouse: EmbeddedClickHouse) -> Iterator[Client]:
    client = settings.clickhouse_client("viewer")
    yield client
    client.close()


@pytest.fixture
def send(settings: Settings, kafka: EmbeddedKafka) -> Callable[..., None]:
    def send(values: list[bytes], content_type: bytes | None = None, compression: str = "none") -> None:
        config = {"compression.type": compression, "linger.ms": 50, "partitioner": "murmur2_random"}
        producer = KafkaProducer(settings.kafka_client() | config)
        for value in values:
            headers = [(CONTENT_TYPE, content_type)] if content_type else []
            producer.produce(TOKENS.topic, value, key=b"gw", headers=headers)
        assert producer.flush(20) == 0

    return send


def count(viewer: Client, source: str) -> tuple[int, int]:
    """Rows of raw, and samples of the rollup."""
    parameters = {"source": source}
    raw = viewer.query("SELECT count() FROM tokens WHERE source = {source:String}", parameters=parameters)
    rollup = viewer.query("SELECT sum(samples) FROM tokens_1m WHERE gateway = {source:String}", parameters=parameters)
    return raw.result_rows[0][0], rollup.result_rows[0][0]


def wait_for(viewer: Client, source: str, rows: int, seconds: float = 60) -> None:
    wait_until(lambda: count(viewer, source) == (rows, rows), seconds, f"{source}: {rows} rows did not come", 0.2)


def test_every_encoding_and_compression_arrives_and_broken_messages_are_dead_letters(
    settings: Settings, send: Callable[..., None], viewer: Client
) -> None:
    with worker(settings) as part:
        for encoding in ENCODINGS:
            send(encode(TOKENS, requests(0, 100, encoding), encoding), CONTENT_TYPES[encoding])
        for compression in ("gzip", "lz4", "snappy", "zstd"):
            send(encode(TOKENS, requests(0, 100, compression), "json"), compression=compression)
        send([b"no event", b"{}", b"\xff\xff\xff\xff", b"[5]"])
        for source in (*ENCODINGS, "gzip", "lz4", "snappy", "zstd"):
            wait_for(viewer, source, 100)
        ledger = (
            "SELECT sum(messages), sum(events), sum(rows), sum(duplicates), sum(rejects) FROM ingest_ranges "
            "WHERE topic = 'wattstream.tokens.v1'"
        )
        wait_until(  # the ledger is written last
            lambda: viewer.query(ledger).result_rows == [(100 + 2 + 400 + 4, 704, 700, 0, 4)], 20, "not in the ledger"
        )
        assert viewer.query("SELECT count() FROM deadletters").result_rows == [(4,)]
        assert part.process is not None
        assert "pandas" not in Path(f"/proc/{part.process.pid}/maps").read_text(), "1.3 s of the first flush"


def test_a_headers_name_that_is_not_utf8_is_read_by_worker_audit_verify_and_archive_alike(
    settings: Settings, kafka: EmbeddedKafka, viewer: Client
) -> None:
    sent = 300  # the interpreter calls what it has called some times another way
    values = encode(TOKENS, requests(0, sent, "odd"), "json")
    headers.send(settings.bootstrap, TOKENS.topic, 0, values, odd=range(1, sent, 2))
    with worker(settings):
        wait_for(viewer, "odd", sent)
    first, last = viewer.query("SELECT min(offset), max(offset) FROM tokens WHERE source = 'odd'").result_rows[0]
    audited = Logs(settings).read(TOKENS.topic, 0, first, last)
    assert (audited.values, audited.content_types) == (values, [b"application/json", None] * (sent // 2))
    (archived,) = KafkaLogs(settings).read(TOKENS.topic, 0, first, last + 1)
    assert [[pair["name"] for pair in found] for found in archived["headers"].to_pylist()] == [
        [CONTENT_TYPE],
        [],
    ] * (sent // 2)
    found = verify(settings, wait=False)
    assert (found.lost, found.twice, found.differences) == (0, 0, [])


def test_duplicates_are_dropped_also_after_a_restart(
    settings: Settings, send: Callable[..., None], viewer: Client
) -> None:
    values = encode(TOKENS, requests(0, 50, "again"), "json")
    with worker(settings):
        send(values * 2)
        wait_for(viewer, "again", 50)
    with worker(settings):
        send(values)
        send(encode(TOKENS, requests(50, 1, "again"), "json"))
        wait_for(viewer, "again", 51)


def test_it_waits_for_clickhouse_and_kafka_and_goes_on_when_they_are_back(
    settings: Settings,
    kafka: EmbeddedKafka,
    clickhouse: EmbeddedClickHouse,
    send: Callable[..., None],
) -> None:
    clickhouse.stop()
    with worker(settings) as part:
        send(encode(TOKENS, requests(0, 10, "waits"), "json"))
        assert part.process is not None
        clickhouse.start()
        viewer = settings.clickhouse_client("viewer")
        wait_for(viewer, "waits", 10, 60)
        kafka.kill()
        kafka.start()
        send(encode(TOKENS, requests(10, 10, "waits"), "json"))
        wait_for(viewer, "waits", 20)
        assert part.process.poll() is None


def health(part: SettingsPart) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(f"{part.url}/health", timeout=60, trust_env=False)
    return answer.status_code, answer.json()


def test_health_is_red_while_a_partition_stands_still_and_green_again_once_it_moves(
    settings: Settings, clickhouse: EmbeddedClickHouse, send: Callable[..., None], viewer: Client
) -> None:
    with worker(settings.model_copy(update={"standstill_seconds": 1.0})) as part:
        send(encode(TOKENS, requests(0, 10, "still"), "json"))
        wait_for(viewer, "still", 10)
        wait_until(lambda: all(p["lag"] == 0 for p in health(part)[1]["partitions"].values()), 60, "something waits")
        # A lag may be of before the sending: the log's end is asked every few seconds only.
        ((number, end),) = viewer.query(
            "SELECT topic_partition, max(offset) + 1 FROM tokens WHERE source = 'still' GROUP BY topic_partition"
        ).result_rows
        sent_to = f"{TOKENS.topic}/{number}"
        wait_until(lambda: health(part)[1]["partitions"][sent_to]["position"] == end, 60, "it is not written down")
        assert health(part)[0] == 200
        clickhouse.stop()
        send(encode(TOKENS, requests(10, 10, "still"), "json"))
        wait_until(lambda: health(part)[0] == 503, 60, "it stays green")
        document = health(part)[1]
        # All these events are of one partition; in the others nothing waits, and ClickHouse is away for them, too.
        (name,) = document["standing_still"]
        assert "10 offsets wait" in document["standing_still"][name]
        assert [p for p, found in document["partitions"].items() if found["lag"]] == [name]
        topic, _, partition = name.partition("/")
        text = httpx.get(f"{part.url}/metrics", timeout=60, trust_env=False).text
        assert f'wattstream_lag_records{{partition="{partition}",topic="{topic}"}} 10.0' in text
        clickhouse.start()
        wait_until(lambda: health(part)[0] == 200, 60, "it stays red")
        wait_for(viewer, "still", 20)
        assert document["halted"] == {}


@pytest.mark.timeout(600)
def test_it_stops_within_three_seconds_also_while_clickhouse_hangs(
    settings: Settings, clickhouse: EmbeddedClickHouse, send: Callable[..., None], viewer: Client
) -> None:
    sent = 0
    engine = clickhouse.process
    assert engine is not None

    def send_ten() -> None:
        nonlocal sent
        send(encode(TOKENS, requests(sent, 10, "stops"), "json"))
        sent += 10

    def stopping() -> float:
        part = worker(settings).start()
        assert part.process is not None
        send_ten()
        wait_for(viewer, "stops", sent)
        began = time.monotonic()
        assert stop(part.process, 60) == 0
        return time.monotonic() - began

    assert quickest(stopping, 3) < 3
    place = "SELECT DISTINCT topic_partition FROM tokens WHERE source = 'stops'"
    ((number,),) = viewer.query(place).result_rows
    taken = f"{TOKENS.topic}/{number}: taken at epoch".encode()

    def stopping_while_it_hangs() -> float:
        part = worker(settings)
        before = part.log.stat().st_size  # the log is that of all workers of this file
        part.start()
        assert part.process is not None
        wait_until(lambda: taken in part.log.read_bytes()[before:], 60, "it was not taken")
        engine.send_signal(signal.SIGSTOP)
        try:
            send_ten()
            time.sleep(1)  # so that a flush hangs in ClickHouse
            began = time.monotonic()
            stop(part.process, 60)
            return time.monotonic() - began
        finally:
            engine.send_signal(signal.SIGCONT)

    assert quickest(stopping_while_it_hangs, 3) < 3


def test_it_waits_for_a_kafka_that_is_not_there_and_says_so_once(settings: Settings) -> None:
    lonely = settings.model_copy(update={"port_base": free_ports(20), "home": settings.home / "lonely"})
    part = worker(lonely)
    part.prepare()
    process = part.launch()
    wait_until(lambda: "waiting" in part.log.read_text(), 60, "it says nothing")
    assert process.poll() is None
    stop(process, 10)
    text = part.log.read_text()
    assert "Traceback" not in text
    assert text.count(f"127.0.0.1:{lonely.port('kafka')}") == 1


def test_a_spare_that_nobody_tells_to_start_ends_with_who_made_it(settings: Settings) -> None:
    part = worker(settings)
    part.wait_argument = "--when-told"
    part.keep_spare()
    (spare,) = (process for process in processes_of(settings.home) if "--when-told" in process.cmdline())
    waiting = cast("Any", part)._spare.process
    waiting.stdin.close()
    assert waiting.wait(90) == 0
    assert not psutil.pid_exists(spare.pid)


def test_one_that_is_killed_has_what_it_had_as_soon_as_it_runs_again_and_others_are_left_alone(
    settings: Settings, kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse, viewer: Client
) -> None:
    """Last in this file: until a group time-out is over, Kafka keeps for both what they had."""
    patient = settings.model_copy(update={"group_timeout_seconds": 60.0})

    def standing(part: SettingsPart) -> set[str]:
        """Its partitions that it has taken."""
        partitions = health(part)[1]["partitions"]
        return {name for name, one in partitions.items() if one["position"] is not None}

    def claims(partitions: set[str]) -> int:
        query = (
            "SELECT count() FROM claims WHERE topic || '/' || toString(topic_partition) IN {partitions:Array(String)}"
        )
        return viewer.query(query, parameters={"partitions": sorted(partitions)}).result_rows[0][0]

    with worker(patient) as one, worker(patient, 2) as two:
        half = len(EVENT_TYPES)  # of two partitions each
        wait_until(lambda: len(standing(one)) == len(standing(two)) == half, 60, "they did not share the partitions")
        mine, others = standing(one), standing(two)
        before = claims(mine), claims(others)
        one.wait_argument = "--when-told"
        one.keep_spare()
        (spare,) = (p.pid for p in processes_of(settings.home) if "--when-told" in p.cmdline())
        one.kill()
        one.start()
        assert one.process is not None
        assert one.process.pid == spare
        wait_until(lambda: standing(one) == mine, 40, "it was not given what it had before the time-out")
        assert claims(mine) == before[0] + len(mine)
        assert (standing(two), claims(others)) == (others, before[1])
