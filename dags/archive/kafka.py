"""What the archive asks of Kafka: what a topic's logs hold and for how long, and their messages."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import pyarrow as pa
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from dags.archive.messages import Messages
from schemas.brokers import why
from schemas.envelope import headers_of
from schemas.errors import WattStreamError
from schemas.settings import Settings

_TIMEOUT_SECONDS = 10.0
_STALL_SECONDS = 30.0
_BATCH_BYTES = 4 * 1024 * 1024
_BATCH_MESSAGES = 16_384
_HELD_BYTES = 64 * 1024 * 1024
"""In the client's queue, and at most as much again in the messages of one call."""


@dataclass(frozen=True)
class Bounds:
    """A partition's log holds offsets from ``start`` up to, not including, ``end``; open transactions are past it."""

    start: int
    end: int


@dataclass(frozen=True)
class TopicLog:
    """A topic; ``retention_ms`` and ``retention_bytes`` (a partition) are None where nothing is deleted by them."""

    topic: str
    topic_id: str
    retention_ms: int | None
    retention_bytes: int | None
    partitions: dict[int, Bounds]


class KafkaLogs:
    """Reads committed messages; one connection for all topics."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(settings.kafka_client() | {"log_level": 0})  # errors are raised, not printed too

    def topic(self, topic: str) -> TopicLog | None:
        """The topic as it is now; None where there is none of that name.

        :raises WattStreamError: where Kafka doesn't tell.
        """
        try:
            described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT_SECONDS)
            try:
                description = described[topic].result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    return None
                raise
            resource = ConfigResource(ResourceType.TOPIC, topic)
            config = self._admin.describe_configs([resource], request_timeout=_TIMEOUT_SECONDS)[resource].result()
            partitions = [part.id for part in description.partitions]
            starts = self._offsets(topic, partitions, OffsetSpec.earliest())
            ends = self._offsets(topic, partitions, OffsetSpec.latest())
        except KafkaException as error:
            raise WattStreamError(
                f"Kafka at {self._settings.bootstrap} does not describe {topic}: {why(self._settings, error)}. "
                "Is it running (wattstream status)?"
            ) from error
        deletes = "delete" in config["cleanup.policy"].value

        def limit(name: str) -> int | None:
            value = int(config[name].value)
            return value if deletes and value >= 0 else None

        bounds = {p: Bounds(starts[p], max(starts[p], ends[p])) for p in sorted(partitions)}
        return TopicLog(topic, str(description.topic_id), limit("retention.ms"), limit("retention.bytes"), bounds)

    def ends_before(self, log: TopicLog, until: datetime) -> dict[int, int]:
        """By partition the offset of the first message that arrived at ``until`` or later, else the end."""
        spec = OffsetSpec.for_timestamp(int(until.timestamp() * 1000))
        try:
            found = self._offsets(log.topic, list(log.partitions), spec)
        except KafkaException as error:
            raise WattStreamError(f"Kafka does not say what of {log.topic} is before {until}: {error}") from error
        return {p: min(bounds.end, found[p]) if found[p] >= 0 else bounds.end for p, bounds in log.partitions.items()}

    def _offsets(self, topic: str, partitions: list[int], spec: Any) -> dict[int, int]:
        asked = {TopicPartition(topic, p): cast("OffsetSpec", spec) for p in partitions}
        answers = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_TIMEOUT_SECONDS
        )
        return {at.partition: future.result().offset for at, future in answers.items()}

    def arrival(self, topic: str, partition: int, first: int, end: int) -> int | None:
        """When the first message from offset ``first`` on arrived, milliseconds since 1970; None where there is none.

        :raises WattStreamError: where Kafka stops delivering.
        """
        for batch in self.read(topic, partition, first, end, at_once=1):
            return cast("int", batch.column("timestamp").cast(pa.int64())[0].as_py())
        return None

    def read(
        self, topic: str, partition: int, start: int, end: int, at_once: int = _BATCH_MESSAGES
    ) -> Iterator[pa.RecordBatch]:
        """All messages from offset ``start`` up to, not including, ``end``, about ``at_once`` in a batch.

        :raises WattStreamError: where offsets expired before they were read, or Kafka stops delivering.
        """
        consumer = Consumer(
            self._settings.kafka_client(
                group_id="archive",  # nothing is committed
                enable_auto_commit=False,
                enable_partition_eof=True,  # the last offsets may have no message
                auto_offset_reset="error",
                isolation_level="read_committed",
                check_crcs=True,
                queued_max_messages_kbytes=_HELD_BYTES // 1024,
            )
            | {"enable.auto.offset.store": False, "log_level": 0}
        )
        # A call gives as many messages as it is asked for, each perhaps as large as allowed. More at once is no faster:
        # 7 us of CPU a message with 8 or 4,096, but 1.0 GB of memory instead of 0.7 when messages are 7 MB.
        asked = max(1, min(at_once, _HELD_BYTES // self._settings.message_max_bytes))
        name = f"{topic}/{partition}"
        try:
            consumer.assign([TopicPartition(topic, partition, start)])
            messages, moved, ended = Messages(), time.monotonic(), False
            while not ended:
                for message in consumer.consume(asked, 0.2):
                    error, offset = message.error(), message.offset() or 0
                    if error and error.code() != KafkaError._PARTITION_EOF:
                        raise WattStreamError(f"{name} can't be read from offset {start}: {error.str()}")
                    moved = time.monotonic()
                    if error or offset >= end:
                        ended = offset >= end
                        continue
                    headers = headers_of(message)
                    messages.add(offset, message.timestamp()[1], message.key(), message.value(), headers)
                if ended or messages.size >= _BATCH_BYTES or len(messages.offsets) >= at_once:
                    if messages.offsets:
                        yield messages.batch(partition)
                    messages = Messages()
                if time.monotonic() - moved > _STALL_SECONDS:
                    raise WattStreamError(f"Kafka delivers nothing of {name} after offset {start}, up to {end}.")
        finally:
            consumer.close()
