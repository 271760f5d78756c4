"""What Kafka says of a topic partition: the topic's id, where its log starts and ends, and a piece of it again."""

import contextlib
import time
from collections.abc import Collection
from typing import cast

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.brokers import why
from schemas.envelope import content_type, headers_of
from schemas.errors import WattStreamError
from schemas.settings import Settings
from schemas.versions import at, version_in_use
from streams.polled import Polled, Run
from streams.takes import Log

TIMEOUT_SECONDS = 10.0


class Logs:
    """Asks the brokers; one connection for all topics."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient(settings.kafka_client() | {"log_level": 0})  # errors are raised, not printed too

    def of(self, topic: str, partitions: Collection[int]) -> dict[int, Log | WattStreamError]:
        """The log of each of these partitions, or why Kafka doesn't tell of it.

        :raises WattStreamError: where it doesn't tell of the topic.
        """
        try:
            described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=TIMEOUT_SECONDS)
            topic_id = str(described[topic].result().topic_id)
            starts, ends = (
                self._admin.list_offsets(
                    {TopicPartition(topic, p): cast("OffsetSpec", spec) for p in partitions},
                    request_timeout=TIMEOUT_SECONDS,
                )
                for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
            )
        except KafkaException as error:
            raise WattStreamError(f"Kafka does not describe {topic}: {error}") from error
        logs: dict[int, Log | WattStreamError] = {}
        for place, start in starts.items():
            try:
                logs[place.partition] = Log(topic_id, start.result().offset, ends[place].result().offset)
            except KafkaException as error:
                logs[place.partition] = WattStreamError(f"Kafka does not describe {topic}/{place.partition}: {error}")
        return logs

    def ids(self, topics: Collection[str]) -> dict[str, str]:
        """Kafka's id of each topic that it describes."""
        if not topics:
            return {}
        described = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=TIMEOUT_SECONDS)
        ids: dict[str, str] = {}
        for topic, answer in described.items():
            with contextlib.suppress(KafkaException):
                ids[topic] = str(answer.result().topic_id)
        return ids

    def ends(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Where logs, each a (topic, partition), end for who reads what is committed; those that Kafka tells."""
        if not places:
            return {}
        asked = self._admin.list_offsets(
            {TopicPartition(*place): cast("OffsetSpec", OffsetSpec.latest()) for place in places},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=TIMEOUT_SECONDS,
        )
        ends: dict[tuple[str, int], int] = {}
        for place, answer in asked.items():
            with contextlib.suppress(KafkaException):
                ends[place.topic, place.partition] = answer.result().offset
        return ends

    def read(self, topic: str, partition: int, first: int, last: int) -> Polled:
        """What the log holds from offset ``first`` to ``last``, as one poll.

        :raises WattStreamError: where it holds it no more, or Kafka doesn't answer.
        """
        name = f"{topic}/{partition}"
        log = self.of(topic, [partition])[partition]
        if isinstance(log, WattStreamError):
            raise log
        if log.start > first:
            raise WattStreamError(f"{name}: the log starts at {log.start}; offset {first} has expired.")
        polled = Polled(Run(topic, partition, first), first, [], [], [], [], [])
        client = self._settings.kafka_client(
            group_id="unused", enable_auto_commit=False, enable_auto_offset_store=False, auto_offset_reset="error"
        )
        consumer = Consumer(client)
        try:
            consumer.assign([TopicPartition(topic, partition, first)])
            until = time.monotonic() + TIMEOUT_SECONDS
            while time.monotonic() < until:
                for message in consumer.consume(10_000, 0.2):
                    if message.error():
                        raise WattStreamError(f"{name}: can't be read again from offset {first}: {message.error()}")
                    offset = message.offset() or 0
                    if offset > last:
                        return polled
                    polled.values.append(message.value())
                    polled.keys.append(message.key())
                    polled.content_types.append(content_type(headers_of(message)))
                    polled.offsets.append(offset)
                    polled.arrived.append(message.timestamp()[1])
                    if offset == last:
                        return polled
        finally:
            consumer.close()
        raise WattStreamError(f"{name}: Kafka did not deliver offsets {first} to {last} in {TIMEOUT_SECONDS:.0f} s.")

    def version(self) -> tuple[int, list[str]]:
        """The version of the topics that is in use, and which of its topics are missing.

        :raises WattStreamError: where Kafka doesn't answer.
        """
        try:
            known = self._admin.list_topics(timeout=TIMEOUT_SECONDS).topics
            version = version_in_use(self._admin, known)
        except KafkaException as error:
            raise WattStreamError(
                f"Kafka at {self._settings.bootstrap} does not answer: {why(self._settings, error)}"
            ) from error
        return version, sorted({event_type.topic for event_type in at(version)} - known.keys())
