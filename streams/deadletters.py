"""Dead letters to Kafka: the same rows as in the table, for who wants to act on them.

At least once: a worker that dies between this and the done range sends them again. Their key is the position they came
from, by which a reader can tell.
"""

import polars as pl
from confluent_kafka import Producer

from schemas.errors import WattStreamError
from schemas.events import DEADLETTERS_TOPIC
from schemas.settings import Settings

TIMEOUT_SECONDS = 20.0


class DeadLetters:
    """Sends dead letters; each message's value is the original bytes, the rest are headers."""

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer(
            settings.kafka_client(enable_idempotence=True, linger_ms=5, compression_type="zstd")
            | {"partitioner": "murmur2_random", "message.max.bytes": settings.message_max_bytes, "log_level": 0}
        )

    def publish(self, rows: pl.DataFrame) -> None:
        """Send rows of the deadletters table and wait for the acknowledgement.

        :raises WattStreamError: where Kafka doesn't take them.
        """
        failures: list[str] = []

        def delivered(error: object, _: object) -> None:
            if error is not None:
                failures.append(str(error))

        for row in rows.iter_rows(named=True):
            position = f"{row['topic']}/{row['topic_partition']}/{row['offset']}/{row['place']}"
            headers = {name: str(row[name]).encode() for name in ("reason", "detail", "arrived", "content_type")}
            self._producer.produce(
                DEADLETTERS_TOPIC,
                key=position.encode(),
                value=row["payload"],
                headers=headers | {"event-key": row["key"]},
                on_delivery=delivered,
            )
            self._producer.poll(0)
        left = self._producer.flush(TIMEOUT_SECONDS)
        if left or failures:
            raise WattStreamError(f"{left + len(failures)} dead letters were not taken by Kafka: {failures[:1]}")
