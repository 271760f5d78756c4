"""The numbers of `wattstream status` against a real log and a real ledger."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.parts import EmbeddedClickHouse
from pipelines.local.processes import free_ports, wait_until
from pipelines.migrate import migrate
from pipelines.status import Numbers, NumbersReader, report
from pipelines.topics import ALL_TOPICS, create_topics, wait_for_leaders
from schemas.settings import Settings, load

pytestmark = pytest.mark.e2e
TOPIC = "wattstream.capacity.v1"


@pytest.fixture(scope="module")
def stack_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker and engine of this module's own: freshness and lag are of all topics, whoever sent to them."""
    settings = load(home=tmp_path_factory.mktemp("status"), port_base=free_ports(20))
    settings.password("writer")
    engine = EmbeddedClickHouse(settings.home, settings.port("clickhouse"))
    with EmbeddedKafka(settings.home, settings.port("kafka")), engine:
        create_topics(settings)
        migrate(settings)
        yield settings


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Kafka may take longer to answer than a user is kept waiting, and so may a test to look."""
    monkeypatch.setattr("pipelines.status._TIMEOUT_SECONDS", 30.0)
    monkeypatch.setattr("pipelines.status.RATE_SECONDS", 100)


@pytest.fixture
def settings(stack_parts: Settings) -> Settings:
    """The topic made anew: what other tests sent doesn't count."""
    admin = AdminClient(stack_parts.kafka_client())
    admin.delete_topics([TOPIC])[TOPIC].result()
    wait_until(lambda: TOPIC not in admin.list_topics(timeout=30).topics, 60, "the topic is not gone")
    admin.create_topics([NewTopic(TOPIC, 2, 1, config={"message.timestamp.type": "LogAppendTime"})])[TOPIC].result()
    wait_until(lambda: TOPIC in admin.list_topics(timeout=30).topics, 60, "the topic made anew is not there")
    wait_for_leaders(stack_parts.kafka_client(), (TopicPartition(TOPIC, number) for number in range(2)))
    return stack_parts


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Client]:
    client = settings.clickhouse_client("writer")
    client.command(f"ALTER TABLE ingest_ranges DELETE WHERE topic = '{TOPIC}' SETTINGS mutations_sync = 1")
    yield client
    client.command(f"ALTER TABLE ingest_ranges DELETE WHERE topic = '{TOPIC}' SETTINGS mutations_sync = 1")
    client.close()


def send(settings: Settings, count: int) -> None:
    producer = Producer(settings.kafka_client())
    for _ in range(count):
        producer.produce(TOPIC, b"{}", partition=0)
    assert producer.flush(20) == 0


def close_range(
    ledger: Client, last: int, messages: int, events: int, first: int = 0, ago: timedelta = timedelta(0)
) -> None:
    done = datetime.now(UTC) - ago
    columns = ["topic", "topic_id", "topic_partition", "first", "last", "messages", "events", "rows", "done"]
    ledger.insert("ingest_ranges", [[TOPIC, "a", 0, first, last, messages, events, events, done]], column_names=columns)


def read(settings: Settings) -> Numbers:
    with NumbersReader(settings) as reader:
        return reader.read()


def test_nothing_waits_when_nothing_was_sent(settings: Settings, ledger: Client) -> None:
    numbers = read(settings)
    assert numbers.lag[TOPIC] == 0
    assert set(numbers.lag) < set(ALL_TOPICS)


def test_lag_counts_what_the_ledger_has_not_closed(settings: Settings, ledger: Client) -> None:
    send(settings, 10)
    assert read(settings).lag[TOPIC] == 10
    close_range(ledger, last=6, messages=7, events=7)
    assert read(settings).lag[TOPIC] == 3
    close_range(ledger, last=9, messages=3, events=3)
    assert read(settings).lag[TOPIC] == 0


def test_freshness_is_the_age_of_the_oldest_record_that_waits(settings: Settings, ledger: Client) -> None:
    def timed_send() -> tuple[float, float]:
        before = time.time()
        send(settings, 5)
        return before, time.time()

    first = timed_send()
    while time.time() < first[1] + 1.5:  # the condition is the age itself
        time.sleep(0.05)
    second = timed_send()
    with NumbersReader(settings) as reader:

        def assert_age_since(sent: tuple[float, float]) -> None:
            """It came while it was sent, and its age is of while it was read, however long either took."""
            before = time.time()
            age = reader.read().freshness
            after = time.time()
            assert age is not None
            assert before - sent[1] - 0.01 <= age <= after - sent[0] + 0.01

        assert_age_since(first)
        close_range(ledger, last=4, messages=5, events=5)
        assert_age_since(second)


def test_rates_count_events_where_messages_hold_batches(settings: Settings, ledger: Client) -> None:
    send(settings, 10)
    close_range(ledger, last=9, messages=10, events=10_000)
    numbers = read(settings)
    assert numbers.events_in == pytest.approx(100, rel=0.2)  # 10 messages of 1,000 events in 100 s
    assert numbers.events_out == pytest.approx(100, rel=0.2)


def test_single_events_after_a_history_in_batches_count_one_each(settings: Settings, ledger: Client) -> None:
    send(settings, 20)
    close_range(ledger, last=9, messages=10, events=10_000, ago=timedelta(hours=1))
    close_range(ledger, first=10, last=19, messages=10, events=10)
    assert read(settings).events_in == pytest.approx(0.2, rel=0.2)  # 20 messages of one event in 100 s


def test_what_can_not_be_asked_is_unknown_and_not_zero(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"clickhouse": None, "kafka": settings.bootstrap, "port_base": 1024})
    numbers = read(elsewhere)
    assert (numbers.events_out, numbers.freshness, numbers.deadletters, numbers.lag) == (None, None, None, {})
    assert numbers.events_in is not None


def test_the_report_has_the_documented_keys_and_passwords_only_when_asked(settings: Settings) -> None:
    document = report(settings, Numbers())
    assert set(document) == {"parts", "events_per_s", "lag", "freshness_s", "deadletters", "completeness"}
    assert set(document["events_per_s"]) == {"in", "out"}
    with_secrets = report(settings, Numbers(), secrets=True)
    assert set(with_secrets["users"]) == {"writer", "planner", "viewer"}
