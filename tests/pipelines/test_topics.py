"""The topics on a real broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.processes import free_ports, wait_until
from pipelines.topics import ALL_TOPICS, create_topics
from schemas.errors import WattStreamError
from schemas.settings import Settings

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = Settings(home=tmp_path_factory.mktemp("topics"), port_base=free_ports(2), partitions=3)
    with EmbeddedKafka(settings.home, settings.port("kafka")):
        yield settings


def test_topics_are_created_once_with_their_partitions(settings: Settings) -> None:
    assert set(create_topics(settings)) <= set(ALL_TOPICS)
    assert create_topics(settings) == []
    topics = AdminClient(settings.kafka_client()).list_topics(timeout=10).topics
    assert {name: len(topics[name].partitions) for name in ALL_TOPICS} == dict.fromkeys(ALL_TOPICS, 3)


def test_arrival_time_is_the_brokers_whatever_the_producer_says(settings: Settings) -> None:
    create_topics(settings)
    producer = Producer(settings.kafka_client())
    producer.produce(ALL_TOPICS[0], b"{}", timestamp=1_000)
    assert producer.flush(60) == 0
    consumer = Consumer(settings.kafka_client(group_id="clock"))
    consumer.assign([TopicPartition(ALL_TOPICS[0], number, OFFSET_BEGINNING) for number in range(3)])
    message = consumer.poll(60)
    consumer.close()
    assert message is not None
    assert message.error() is None
    kind, milliseconds = message.timestamp()
    assert kind == 2  # LogAppendTime
    assert milliseconds > 1_000_000


def test_a_message_up_to_the_limit_is_taken_and_a_larger_one_refused(settings: Settings) -> None:
    create_topics(settings)
    limit = settings.message_max_bytes
    producer = Producer(settings.kafka_client(message_max_bytes=2 * limit))
    errors: list[KafkaError | None] = []
    for size in (limit - 1_000, limit + 1):
        producer.produce(ALL_TOPICS[0], b"x" * size, on_delivery=lambda error, _: errors.append(error))
        producer.flush(20)
    assert errors[0] is None
    assert errors[1] is not None
    assert errors[1].code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_a_topic_with_the_producers_clock_is_refused(settings: Settings) -> None:
    create_topics(settings)
    admin = AdminClient(settings.kafka_client())
    name = ALL_TOPICS[-1]
    admin.delete_topics([name])[name].result()
    admin.create_topics([NewTopic(name, 1, 1, config={"message.timestamp.type": "CreateTime"})])[name].result()
    wait_until(lambda: name in admin.list_topics(timeout=5).topics, 30, "the topic made anew is not there")
    with pytest.raises(WattStreamError, match=f"{name}.*LogAppendTime"):
        create_topics(settings)


def test_an_unreachable_broker_is_a_plain_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.topics._TIMEOUT_SECONDS", 1.0)
    with pytest.raises(WattStreamError, match="Is it running"):
        create_topics(Settings(home=tmp_path, port_base=free_ports(2)))
