"""Dead letters to Kafka: the same rows as in the table, for who wants to act on them.

At least once: a worker that dies between this and the done range sends them again. Their key is the position they came
from, by which a reader can tell.
"""

import time
from collections.abc import Callable
from typing import Any

import polars as pl
from confluent_kafka import KafkaException, Producer

from schemas.errors import WattStreamError
from schemas.events import DEADLETTERS_TOPIC
from schemas.settings import Settings

TIMEOUT_SECONDS = 20.0
# Room for the headers: a detail of 500 characters, and what of the event's key and content type is kept.
HEADER_BYTES = 16_384
KEPT_BYTES = 4_096


class DeadLetters:
    """Sends dead letters; each message's value is the original bytes, the rest are headers.

    Bytes that with the headers would be over the broker's limit are cut: header ``bytes`` then says how many there
    are, and the table has them all. Of a key or a content type there are the first 4 KiB.
    """

    def __init__(self, settings: Settings) -> None:
        self._payload_bytes = settings.message_max_bytes - HEADER_BYTES
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
            headers = {name: str(row[name]).encode() for name in ("reason", "detail", "arrived")}
            headers |= {"content_type": row["content_type"].encode()[:KEPT_BYTES], "event-key": row["key"][:KEPT_BYTES]}
            payload = row["payload"][: self._payload_bytes]
            if len(payload) < len(row["payload"]):
                headers["bytes"] = str(len(row["payload"])).encode()
            self._produce(position.encode(), payload, headers, delivered)
        left = self._producer.flush(TIMEOUT_SECONDS)
        if left or failures:
            raise WattStreamError(f"{left + len(failures)} dead letters were not taken by Kafka: {failures[:1]}")

    def _produce(self, key: bytes, value: bytes, headers: dict[str, Any], delivered: Callable[..., None]) -> None:
        until = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                self._producer.produce(DEADLETTERS_TOPIC, key=key, value=value, headers=headers, on_delivery=delivered)
                self._producer.poll(0)
                return
            except BufferError:  # the queue is full: the broker is slower than we are
                if time.monotonic() > until:
                    raise WattStreamError("Kafka takes no more dead letters: its producer's queue is full.") from None
                self._producer.poll(0.1)
            except KafkaException as error:
                raise WattStreamError(f"Kafka took no dead letter: {error.args[0].str()}") from None
