"""The embedded broker: what was acknowledged is there again after every kind of end."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipelines.chaos.small_disk import small_disk
from pipelines.local import processes
from pipelines.local.kafka import EmbeddedKafka
from pipelines.local.processes import free_ports
from schemas.errors import WattStreamError

pytestmark = pytest.mark.e2e
QUIET = {"log_level": 0}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    broker = EmbeddedKafka(tmp_path, free_ports(2))
    yield broker
    broker.stop()


def send(broker: EmbeddedKafka, count: int) -> None:
    failed: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all"} | QUIET)
    for _ in range(count):
        producer.produce("t", b"x" * 100, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(30) == 0
    assert failed == []


def stored(broker: EmbeddedKafka) -> int:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "count"} | QUIET)
    end = consumer.get_watermark_offsets(TopicPartition("t", 0), timeout=20)[1]
    consumer.close()
    return end


def test_acknowledged_messages_survive_a_stop_a_kill_and_other_ports(broker: EmbeddedKafka) -> None:
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap} | QUIET)
    admin.create_topics([NewTopic("t", 1, 1)])["t"].result()
    send(broker, 100)
    broker.stop()
    broker.start()
    assert stored(broker) == 100
    send(broker, 100)
    broker.kill()
    broker.start()
    assert stored(broker) == 200
    broker.stop()
    moved = EmbeddedKafka(broker.home, free_ports(2))
    with moved:
        assert stored(moved) == 200


def test_a_format_that_was_cut_short_is_done_again(broker: EmbeddedKafka) -> None:
    (broker.home / "kafka" / "data").mkdir(parents=True)
    (broker.home / "kafka" / "data" / "bootstrap.checkpoint").write_bytes(b"half")
    broker.start()
    assert broker.answers()


def test_an_unknown_topic_is_not_made_by_asking_for_it(broker: EmbeddedKafka) -> None:
    broker.start()
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.timeout.ms": 3000} | QUIET)
    errors: list[KafkaError] = []
    producer.produce("misspelt", b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(10)
    assert errors[0] is not None
    topics = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10).topics
    assert "misspelt" not in topics


def test_a_port_that_is_taken_is_refused(broker: EmbeddedKafka) -> None:
    broker.start()
    with pytest.raises(WattStreamError, match=rf"{broker.port}.*is taken by kafka \(pid"):
        EmbeddedKafka(broker.home / "second", broker.port, free_ports(1)).start()


@pytest.mark.timeout(120)
def test_it_is_not_started_on_a_full_disk_and_has_everything_once_there_is_room(monkeypatch) -> None:
    with ExitStack() as opened:
        try:
            disk = opened.enter_context(small_disk())
        except WattStreamError as error:
            pytest.skip(str(error))
        broker = opened.enter_context(EmbeddedKafka(disk.folder, free_ports(2)))
        admin = AdminClient({"bootstrap.servers": broker.bootstrap} | QUIET)
        admin.create_topics([NewTopic("t", 1)])["t"].result(20)
        send(broker, 100)
        disk.fill()
        monkeypatch.setattr(processes, "ROOM_SECONDS", 0.5)
        assert broker.process is not None
        broker.process.kill()
        broker.process.wait()
        with pytest.raises(WattStreamError, match="Make room for 64 MiB"):
            broker.start()
        disk.free()
        broker.start()
        assert stored(broker) == 100
