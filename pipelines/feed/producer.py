"""Sends events to Kafka: idempotent, acknowledged by all replicas, keyed as the contract says, and accounted for.

Every way in goes through here (simulator, trace import, collectors), so that one identity always gets one key and
`verify` can hold what was sent against what arrived.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from types import TracebackType
from typing import NamedTuple, Self

import polars as pl
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer

from pipelines.feed.manifest import Manifest, Part, Tally
from schemas.brokers import why
from schemas.envelope import CONTENT_TYPE, CONTENT_TYPES, Encoding, complete, packed, written
from schemas.errors import WattStreamError
from schemas.events import EventType
from schemas.identity import with_identity
from schemas.settings import Settings
from schemas.versions import in_use

_MESSAGE_OVERHEAD_BYTES = 1024
"""Room for key, headers and Kafka's own framing below the broker's limit."""

_KEY = "the key of an event"  # no attribute is called so

_Headers = list[tuple[str, str | bytes | None]]

_DELIVERY_SECONDS = 120
"""How long a message may wait for the broker: a broker killed and started again needs 4 to 12 s."""


class Span(NamedTuple):
    """Where a producer's messages are in a partition: first and last offset, and when the first was sent, Unix ms."""

    first: int
    last: int
    first_arrived: int


class Producer:
    """A producer with a manifest of its own; for one thread.

    Events may be sent without waiting: an error of the broker is raised by a later ``send``, ``poll``, ``flush`` or
    ``close``. What was sent but not acknowledged when that happens stays *unknown* in the manifest.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._bootstrap = settings.bootstrap
        self._limit = settings.message_max_bytes - _MESSAGE_OVERHEAD_BYTES
        self._manifest = Manifest(settings.home, name)
        self._deliveries = _Deliveries(self._manifest)
        config = {
            "client.id": name,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",  # as Kafka's own clients: librdkafka's default would part equal keys
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "message.max.bytes": settings.message_max_bytes,
            "delivery.timeout.ms": _DELIVERY_SECONDS * 1000,
            "queue.buffering.max.messages": 500_000,
            "queue.buffering.max.kbytes": 256 * 1024,
            "log_level": 0,
        }
        self._kafka = KafkaProducer(settings.kafka_client() | config)

    @property
    def spans(self) -> dict[tuple[str, int], Span]:
        """What is acknowledged so far, by (topic, partition)."""
        return dict(self._deliveries.spans)

    @property
    def outstanding(self) -> int:
        """Messages that are not acknowledged yet."""
        return self._deliveries.open_messages

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            with contextlib.suppress(WattStreamError):  # the error that is on its way says more
                self.close(timeout=2.0)

    @cached_property
    def _version(self) -> int:
        """Of the topics: one that is replaced meanwhile takes nothing any more, and a new producer finds the next."""
        return in_use(self._settings)

    def require(self, event_types: Iterable[EventType], timeout: float = 10.0) -> None:
        """Make sure before the first event that Kafka answers and has the topics of these event types.

        :raises WattStreamError: saying which of it is not so. Without this, it is told when a delivery times out.
        """
        try:
            there = self._kafka.list_topics(timeout=timeout).topics
        except KafkaException as error:
            raise WattStreamError(
                f"Kafka at {self._bootstrap} doesn't answer ({why(self._settings, error)}). "
                "Is it running (wattstream status)? Is the address right (--home and --port-base, or WATTSTREAM_KAFKA)?"
            ) from error
        missing = sorted({event_type.at(self._version).topic for event_type in event_types} - set(there))
        if missing:
            raise WattStreamError(
                f"Kafka at {self._bootstrap} has no topic {', '.join(missing)}: run wattstream migrate."
            )

    def send(
        self, event_type: EventType, frame: pl.DataFrame, encoding: Encoding = "arrow", rows_per_message: int = 1000
    ) -> int:
        """Queue a frame's events; returns how many. Order is kept within a key.

        ``frame`` has the event type's columns by column name, optional ones may be absent; ``json`` sends one event a
        message, the others up to ``rows_per_message``, fewer where that would be over the broker's limit.

        :raises WattStreamError: where one event alone is over the limit (then nothing of this call is sent), or where
            the broker has refused what was sent before.
        """
        self._raise_failure()
        if frame.is_empty():
            return 0
        groups = self._groups(event_type, complete(event_type, frame), encoding, rows_per_message)
        topic = event_type.at(self._version).topic
        number = self._manifest.intend(topic, {group.key: group.tally for group in groups})
        sending = _Sending(self._deliveries, number, topic, sum(len(group.messages) for group in groups))
        headers: _Headers = [(CONTENT_TYPE, CONTENT_TYPES[encoding])]
        for group in groups:
            group.sending = sending
            key = group.key.encode()
            self._deliveries.open_messages += len(group.messages)
            for message in group.messages:
                self._produce(topic, key, message, headers, group)
            group.messages = []
        self.poll()
        return frame.height

    def poll(self, timeout: float = 0.0) -> None:
        """Take in acknowledgements that have come.

        :raises WattStreamError: where the broker has refused something.
        """
        self._kafka.poll(timeout)
        self._raise_failure()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything is acknowledged, at most ``timeout`` seconds.

        :raises WattStreamError: where the broker has refused something, or is not done in time.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self._deliveries.open_messages:
            left = 1.0 if until is None else until - time.monotonic()
            if left <= 0:
                raise WattStreamError(
                    f"Kafka at {self._bootstrap} has not acknowledged {self._deliveries.open_messages} messages yet. "
                    "They may or may not arrive; the manifest lists them as unknown."
                )
            self._kafka.flush(min(left, 1.0))
            self._raise_failure()
        self._raise_failure()

    def close(self, timeout: float | None = None) -> None:
        """Flush and end the manifest."""
        try:
            self.flush(timeout)
        finally:
            self._kafka.purge()
            self._kafka.flush(0.1)
            self._manifest.close()

    def _groups(self, event_type: EventType, frame: pl.DataFrame, encoding: Encoding, rows: int) -> "list[_Group]":
        keyed = with_identity(event_type, frame).select(pl.col(event_type.key).alias("key"), "identity_lo")
        bodies = written(event_type, frame, encoding).with_columns(keyed.get_column("key").alias(_KEY))
        parts = bodies.partition_by(_KEY, maintain_order=True, include_key=False, as_dict=True)
        tallies = keyed.group_by("key", maintain_order=True).agg(pl.len(), pl.col("identity_lo").cast(pl.UInt128).sum())
        groups: list[_Group] = []
        for key, events, total in tallies.iter_rows():
            messages = list(self._messages(event_type, frame, key, parts[key,], encoding, rows))
            groups.append(_Group(str(key), Tally(events, total % 2**64), messages))
        return groups

    def _messages(
        self, event_type: EventType, frame: pl.DataFrame, key: str, part: pl.DataFrame, encoding: Encoding, rows: int
    ) -> Iterator[bytes]:
        """A key's messages, none over the limit."""
        if encoding == "json":
            places = [(place, 1) for place in range(part.height)]
            messages = packed(part, encoding)
        else:
            places = [(place, min(rows, part.height - place)) for place in range(0, part.height, rows)]
            messages = [packed(part.slice(*place), encoding)[0] for place in places]
        for (place, length), message in zip(places, messages, strict=True):
            if len(message) <= self._limit:
                yield message
            elif length > 1:
                chunk = frame.filter(pl.col(event_type.key) == key).slice(place, length)
                yield from self._messages(
                    event_type, chunk, key, part.slice(place, length), encoding, (length + 1) // 2
                )
            else:
                event = frame.filter(pl.col(event_type.key) == key).row(place, named=True)
                name = ", ".join(f"{column}={str(event[column])[:80]!r}" for column in event_type.identity)
                raise WattStreamError(
                    f"An event of {event_type.topic} ({name}) makes a message of {len(message)} bytes, over the "
                    f"broker's limit of {self._limit + _MESSAGE_OVERHEAD_BYTES} (WATTSTREAM_MESSAGE_MAX_BYTES; "
                    f"{_MESSAGE_OVERHEAD_BYTES} are kept for key and headers). Nothing of this call was sent."
                )

    def _produce(self, topic: str, key: bytes, value: bytes, headers: _Headers, group: "_Group") -> None:
        while True:
            try:
                self._kafka.produce(topic, value, key, on_delivery=group.delivered, headers=headers)
                return
            except BufferError:  # the queue is full: the broker is slower than we are
                self._kafka.poll(0.05)
                self._raise_failure()
            except KafkaException as error:
                self._deliveries.error = error.args[0]
                self._raise_failure()

    def _raise_failure(self) -> None:
        error, self._deliveries.error = self._deliveries.error, None
        if error is None:
            return
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            advice = (
                f"A message is over the broker's limit, which is below WATTSTREAM_MESSAGE_MAX_BYTES "
                f"({self._limit + _MESSAGE_OVERHEAD_BYTES}): set it to the topic's max.message.bytes. Where that is 0, "
                "`wattstream repartition` replaces the topic: start again to send to the next."
            )
        else:
            advice = "Is it running (wattstream status), and are the topics there (wattstream migrate)?"
        raise WattStreamError(f"Kafka at {self._bootstrap} did not take what was sent: {error.str()}. {advice}")


class _Deliveries:
    """What the broker has said to one producer."""

    __slots__ = ("error", "manifest", "open_messages", "spans")

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.open_messages = 0
        self.error: KafkaError | None = None
        self.spans: dict[tuple[str, int], Span] = {}


class _Sending:
    """One call of ``send`` on its way."""

    __slots__ = ("deliveries", "number", "open_messages", "parts", "topic")

    def __init__(self, deliveries: _Deliveries, number: int, topic: str, messages: int) -> None:
        self.deliveries = deliveries
        self.number = number
        self.topic = topic
        self.open_messages = messages
        self.parts: dict[int, Part] = {}

    def add(self, part: Part, first_arrived: int) -> None:
        """A group is whole in the log; groups of one partition are told as one."""
        before = self.parts.get(part.partition)
        if before is not None:
            tally = Tally(before.events, before.checksum).plus(Tally(part.events, part.checksum))
            first, last = min(before.first, part.first), max(before.last, part.last)
            part = Part(part.partition, first, last, before.messages + part.messages, *tally)
        self.parts[part.partition] = part
        place = (self.topic, part.partition)
        span = self.deliveries.spans.get(place, Span(part.first, part.last, first_arrived))
        self.deliveries.spans[place] = span._replace(last=max(part.last, span.last))


class _Group:
    """What one sending gives one key, so one partition; counts its acknowledgements and does little else for each."""

    __slots__ = (
        "failed",
        "first",
        "first_arrived",
        "key",
        "last",
        "messages",
        "open_messages",
        "sending",
        "sent",
        "tally",
    )

    def __init__(self, key: str, tally: Tally, messages: list[bytes]) -> None:
        self.key = key
        self.tally = tally
        self.messages = messages
        self.sent = len(messages)
        self.open_messages = self.sent
        self.first = self.last = self.first_arrived = -1
        self.failed = False
        self.sending: _Sending

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Called by the client for each message, in the order of the log."""
        sending = self.sending
        deliveries = sending.deliveries
        self.open_messages -= 1
        sending.open_messages -= 1
        deliveries.open_messages -= 1
        if error is None:
            self.last = message.offset() or 0
            if self.first < 0:
                self.first = self.last
                self.first_arrived = message.timestamp()[1]
        else:
            self.failed = True
            deliveries.error = deliveries.error or error
        if self.open_messages:
            return
        if not self.failed:
            part = Part(message.partition() or 0, self.first, self.last, self.sent, *self.tally)
            sending.add(part, self.first_arrived)
        if not sending.open_messages and sending.parts:
            deliveries.manifest.acknowledge(sending.number, list(sending.parts.values()))
