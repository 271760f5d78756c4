"""What Kafka says of a topic partition: the topic's id, and where its log starts and ends."""

from collections.abc import Sequence

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.errors import WattStreamError
from schemas.settings import Settings
from streams.ledger import Log

TIMEOUT_SECONDS = 10.0


class Logs:
    """Asks the brokers; one connection for all topics."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(settings.kafka_client())

    def of(self, topic: str, partition: int) -> Log:
        """The partition's log.

        :raises WattStreamError: where Kafka doesn't tell.
        """
        try:
            described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=TIMEOUT_SECONDS)
            topic_id = str(described[topic].result().topic_id)
            at = TopicPartition(topic, partition)
            start, end = (
                self._admin.list_offsets({at: spec}, request_timeout=TIMEOUT_SECONDS)[at].result().offset
                for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
            )
        except KafkaException as error:
            raise WattStreamError(f"Kafka does not describe {topic}/{partition}: {error}") from error
        return Log(topic_id, start, end)

    def partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """How many partitions each topic has; a topic that isn't there is left out."""
        known = self._admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        return {topic: len(known[topic].partitions) for topic in topics if topic in known}
