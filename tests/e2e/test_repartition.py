"""Topics get other partitions under live load: the next version, filled from the one before, on a real broker."""

import json
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import KafkaError
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import AdminClient

from dags.archive.kafka import KafkaLogs
from dags.archive.run import archive
from pipelines.feed.producer import Producer
from pipelines.local.processes import wait_until
from pipelines.repartition.run import FOLDER
from pipelines.status import NumbersReader
from pipelines.topics import create_topics
from pipelines.verify import verify
from schemas.errors import WattStreamError
from schemas.events import EVENT_TYPES, POWER, RATES, TOKENS
from schemas.settings import Settings
from schemas.versions import CLOCK, at, configurations, in_use
from streams.ledger import Halt
from streams.log import Logs
from streams.swaps import REPARTITIONED
from streams.takes import Log, Takes
from tests.e2e.parts import wattstream, worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]

BATCH = 500
AFTER = 4
NEXT = TOKENS.at(2).topic
STRAYS: list[tuple[bytes | None, bytes | None, list[tuple[str, str | bytes | None]]]] = [
    (b"gw", b"no event", []),
    (b"gw", None, [("content-type", b"application/json"), ("trace", b"a"), ("trace", None), ("empty", b"")]),
    (None, b"[7]", [("content-type", b"text/plain")]),
    (b"", b"", []),
]
"""Messages with all that a message may have or lack."""


@pytest.fixture(scope="module")
def settings(own_parts: Callable[..., Settings]) -> Settings:
    return own_parts("repartition", flush_seconds=0.2, group_timeout_seconds=2)


def repartition(settings: Settings, *words: str, failpoint: str = "") -> subprocess.CompletedProcess[bytes]:
    return wattstream(settings, "repartition", "--json", *words, failpoint=failpoint)


def requests(first: int, count: int) -> pl.DataFrame:
    """Requests of nine gateways; some a year late, and every twentieth as one that came before."""
    number = pl.int_range(first, first + count)
    same = number - number % 20 // 19
    start = datetime(2026, 1, 31, 23, 50, tzinfo=UTC)
    return pl.DataFrame({"id": [f"r{i - i % 20 // 19}" for i in range(first, first + count)]}).with_columns(
        time=(
            pl.lit(start)
            + pl.duration(milliseconds=100) * same
            - pl.when(same % 50 < 2).then(pl.duration(days=365)).otherwise(pl.duration())
        ).cast(pl.Datetime("ns", "UTC")),
        source=pl.format("gateway-{}", same % 9),
        gateway=pl.format("gateway-{}", same % 9),
        model=pl.lit("m"),
        input_tokens=same % 1009,
        duration_seconds=(same % 77).cast(pl.Float64) / 7,
    )


def readings(count: int) -> pl.DataFrame:
    number = pl.int_range(count)
    return pl.DataFrame({"meter": [f"m{i % 5}" for i in range(count)]}).with_columns(
        time=(pl.lit(datetime(2026, 2, 1, tzinfo=UTC)) + pl.duration(seconds=number)).cast(pl.Datetime("ns", "UTC")),
        site=pl.format("campus-{}", number % 7),
        role=pl.lit("rack"),
        watts=number.cast(pl.Float64) / 3,
        joules=(number * 5).cast(pl.Float64),
    )


def rows(client: Client, table: str) -> int:
    return client.query(f"SELECT count() FROM {table}").result_rows[0][0]


def sums(client: Client) -> list[tuple[Any, ...]]:
    """What readers see, wherever its messages are."""
    query = "SELECT minute, gateway, sum(requests), sum(input_tokens) FROM tokens_1m GROUP BY ALL ORDER BY ALL"
    return list(client.query(query).result_rows)


def messages(settings: Settings, topic: str) -> list[tuple[Any, ...]]:
    """Arrival, key, value and headers of each message of a topic, in the order of its partitions."""
    logs = KafkaLogs(settings)
    found = logs.topic(topic)
    assert found is not None
    return [
        (row["timestamp"], row["key"], row["value"], [tuple(header.values()) for header in row["headers"]])
        for partition, bounds in found.partitions.items()
        for batch in logs.read(topic, partition, bounds.start, bounds.end)
        for row in batch.to_pylist()
    ]


def by_key(found: list[tuple[Any, ...]]) -> dict[Any, list[tuple[Any, ...]]]:
    keys: dict[Any, list[tuple[Any, ...]]] = {}
    for message in found:
        keys.setdefault(message[1], []).append(message)
    return keys


class Live:
    """Sends while it is told to; a sending that is refused goes again with a new producer, as a client's would."""

    def __init__(self, settings: Settings, meanwhile: Any) -> None:
        self._settings = settings
        self._meanwhile = meanwhile
        self.sent = 0
        self.refused = 0

    def send(self) -> None:
        try:
            with Producer(self._settings, "live") as producer:
                producer.send(TOKENS, requests(self.sent, BATCH), "json")
                producer.flush(20)
            self.sent += BATCH
        except WattStreamError:
            self.refused += 1

    @contextmanager
    def sending(self) -> Iterator[None]:
        with self._meanwhile(self.send, 0.3):
            yield


@pytest.fixture(scope="module")
def live(settings: Settings, meanwhile: Any) -> Live:
    """The log holds readings, requests, duplicates, late events and what can't be used."""
    with Producer(settings, "readings") as producer:
        producer.send(POWER, readings(3_000), "arrow", rows_per_message=50)
    raw = KafkaProducer(settings.kafka_client(partitioner="murmur2_random"))
    for key, value, headers in STRAYS:
        raw.produce(TOKENS.topic, value, key, headers=headers)
    assert raw.flush(20) == 0
    sending = Live(settings, meanwhile)
    for _ in range(10):
        sending.send()
    assert sending.refused == 0
    return sending


def test_without_a_number_it_asks_for_one(settings: Settings, live: Live) -> None:
    told = repartition(settings)
    assert told.returncode == 2
    assert b"--partitions" in told.stderr


def test_as_many_as_there_are_is_nothing_to_do(settings: Settings, live: Live) -> None:
    told = repartition(settings, "--partitions", "2")
    assert told.returncode == 0, told.stderr.decode()
    assert json.loads(told.stdout)["version"] == 1
    assert NEXT not in AdminClient(settings.kafka_client()).list_topics(timeout=10).topics


def test_what_was_begun_can_be_given_up(settings: Settings, live: Live) -> None:
    assert repartition(settings, "--partitions", "3", failpoint="after-close:kill").returncode == -signal.SIGKILL
    admin = AdminClient(settings.kafka_client())
    live.send()
    assert live.refused == 1
    assert in_use(settings) == 1
    assert b"3 partitions" in repartition(settings, "--partitions", "4").stderr
    assert repartition(settings, "--give-up").returncode == 0
    assert NEXT not in admin.list_topics(timeout=10).topics
    before = live.sent
    live.send()
    assert live.sent == before + BATCH


def test_with_tables_behind_the_log_it_says_so_and_opens_the_topics_again(
    settings: Settings, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.repartition.run._STALL_SECONDS", 2.0)
    from pipelines.repartition.run import Choices
    from pipelines.repartition.run import repartition as run

    with pytest.raises(WattStreamError, match="no worker has written"):
        run(settings, Choices(AFTER), say=lambda _: None, progress=lambda *_: None)
    before = live.sent
    live.send()
    assert live.sent == before + BATCH


def test_partitions_are_changed_under_live_load_and_killed_at_each_step(
    settings: Settings, writer: Client, live: Live
) -> None:
    with worker(settings) as old_worker:
        with live.sending():
            for point in ("while-copying", "before-close", "after-close", "after-exchange-tokens"):
                told = repartition(settings, "--partitions", str(AFTER), failpoint=f"{point}:kill")
                assert told.returncode == -signal.SIGKILL, (point, told.stderr.decode())
            assert in_use(settings) == 1
            assert repartition(settings, failpoint="after-take-into-use:kill").returncode == -signal.SIGKILL
            assert in_use(settings) == 2
            told = repartition(settings)
            assert told.returncode == 0, told.stderr.decode()
            assert json.loads(told.stdout)["partitions"] == AFTER
            refused, sent = live.refused, live.sent
            assert refused > 1
            wait_until(lambda: live.sent > sent, 30, "producers do not find the new topics", 0.1)
        process = old_worker.process
        assert process is not None
        wait_until(lambda: process.poll() is not None, 30, "the worker of the old topics goes on", 0.1)
    assert not (set(Logs(settings).version()[1]))


def test_each_message_is_there_as_it_was_and_when_it_arrived(settings: Settings, live: Live) -> None:
    for event_type in EVENT_TYPES:
        old = by_key(messages(settings, event_type.topic))
        new = by_key(messages(settings, event_type.at(2).topic))
        assert all(new[key][: len(sent)] == sent for key, sent in old.items())  # in order within each key
        if event_type is not TOKENS:
            assert sum(map(len, old.values())) == sum(map(len, new.values()))
    assert len(by_key(messages(settings, NEXT))[None]) == 1
    configured = configurations(AdminClient(settings.kafka_client()), [NEXT, TOKENS.topic])
    assert configured[NEXT][CLOCK] == "LogAppendTime"
    assert configured[NEXT]["retention.ms"] == configured[TOKENS.topic]["retention.ms"]
    assert configured[NEXT]["max.message.bytes"] == str(settings.message_max_bytes)


def test_the_old_topics_take_nothing_any_more(settings: Settings, live: Live) -> None:
    errors: list[KafkaError | None] = []
    raw = KafkaProducer(settings.kafka_client())
    raw.produce(TOKENS.topic, b"{}", b"k", on_delivery=lambda error, _: errors.append(error))
    raw.flush(20)
    assert errors[0] is not None
    assert errors[0].code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_a_worker_of_the_old_topics_takes_nothing_any_more(settings: Settings, live: Live) -> None:
    takes = Takes(lambda: settings.clickhouse_client("writer"), TOKENS, worker=uuid.uuid4())
    log = Logs(settings).of(TOKENS.topic, [0])[0]
    assert isinstance(log, Log)
    outcome = takes.take({0: replace(log, end=10**9)}, timeout_seconds=10)[0]
    assert isinstance(outcome, Halt)
    assert "the tables are of wattstream.tokens.v2" in str(outcome)


def test_events_of_before_are_known_again_though_their_partition_is_another(
    settings: Settings, writer: Client, live: Live
) -> None:
    with worker(settings):
        wait_until(lambda: verify(settings, wait=False).pending == 0, 60, "the new worker does not go on", 0.5)
        before = sums(writer)
        count = rows(writer, "tokens")
        assert count == live.sent * 19 // 20
        with Producer(settings, "again") as producer:
            producer.send(TOKENS, requests(0, live.sent), "array", rows_per_message=50)
            producer.send(POWER, readings(3_000), "arrow", rows_per_message=50)
        report = verify(settings)
        assert report.holds, report.differences
        assert report.pending == 0
        assert sums(writer) == before
        live.send()
        report = verify(settings)
    assert report.holds, report.differences
    assert report.pending == 0
    assert report.by_topic[NEXT].events == rows(writer, "tokens") + len(STRAYS)
    assert rows(writer, "tokens") == count + BATCH * 19 // 20
    assert rows(writer, "power") == 3_000
    partitions = writer.query("SELECT uniqExact(topic_partition) FROM tokens").result_rows[0][0]
    assert partitions > 2


def test_an_event_that_the_copy_lacks_is_found(settings: Settings, live: Live) -> None:
    """By `verify`, which reads the old log as long as there is one."""
    admin = AdminClient(settings.kafka_client())

    def limit(size: int) -> None:
        from pipelines.repartition.topics import LIMIT, _set

        _set(admin, {RATES.topic: {LIMIT: str(size)}})

    limit(settings.message_max_bytes)
    event = {"specversion": "1.0", "type": RATES.type, "source": "s", "id": "late", "time": "2026-02-01T00:00:00Z"}
    raw = KafkaProducer(settings.kafka_client())
    raw.produce(RATES.topic, json.dumps(event).encode(), b"m")
    assert raw.flush(20) == 0
    limit(0)
    report = verify(settings, wait=False)
    assert report.lost == 1
    assert "1 of its events are not in the version of the topic in use" in report.differences[0]


def test_everything_else_follows(settings: Settings, live: Live) -> None:
    assert create_topics(settings) == []
    with NumbersReader(settings) as reader:
        assert set(reader.read().lag) == {event_type.topic for event_type in at(2)}
    assert f"{NEXT}/3" in archive(settings, ["tokens"]).by_partition
    assert not any((settings.home / FOLDER).glob("*.tmp"))


def test_a_replay_is_of_the_new_topics_and_keeps_off_the_other_database(settings: Settings, live: Live) -> None:
    told = wattstream(settings, "replay", "--json")
    assert told.returncode == 0, told.stderr.decode()
    tables = {table["table"]: table for table in json.loads(told.stdout)["tables"]}
    assert tables["tokens"]["rows"] == tables["tokens"]["replayed"] > 0
    refused = wattstream(settings, "replay", "--json", "--into", REPARTITIONED)
    assert refused.returncode == 2
