"""Sends dead letters again: their bytes as they were, to the partition they were read from, and writes that down.

What is written down is what the broker has taken, after it has: a retry that dies in between sends again what it sent
before, which is no harm. It is an event that was seen before, or once more a dead letter.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, cast

import polars as pl
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipelines.deadletters.letters import EPOCH, DeadLetters, Letter
from schemas.brokers import why
from schemas.envelope import CONTENT_TYPE, CONTENT_TYPES, SPEC_VERSION, encoding_of
from schemas.errors import WattStreamError
from schemas.events import BY_NAME, CONTEXT, name_of
from schemas.progress import Progress, silent
from schemas.settings import Settings
from streams.rejects import UNDECODABLE, UNKNOWN_TYPE, UNPARSABLE

_METADATA_SECONDS = 10.0
# As long as the feed's: a broker killed and started again needs 4 to 12 s.
_DELIVERY_SECONDS = 120
_FIRST = 5


class NotRetryable(Exception):
    """Why a dead letter can't be sent again."""


@dataclass
class Refused:
    """Dead letters that can't be sent again for one reason; ``first`` names some of them."""

    why: str
    count: int = 0
    first: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What a retry did, or with ``dry_run`` would do; ``sent_before`` were left out since an earlier one sent them."""

    dry_run: bool
    selected: int
    sent_before: int
    sent: int = 0
    not_retryable: list[Refused] = field(default_factory=list)
    since: datetime | None = None
    """When the broker took the first of what was sent: what fails again arrived no earlier."""

    def refuse(self, letter: Letter, why: str) -> None:
        """One that can't be sent again."""
        found = next((refused for refused in self.not_retryable if refused.why == why), None)
        if found is None:
            found = Refused(why)
            self.not_retryable.append(found)
        found.count += 1
        if len(found.first) < _FIRST:
            found.first.append(str(letter.position))


def message_of(letter: Letter) -> tuple[bytes, bytes | None]:
    """What to send for a dead letter, and its content type (None: it had none).

    That is its message, if the letter is all of that. An element of an array is sent alone, and so is a row of an Arrow
    batch, whose bytes are gone, as the event that says the same.

    :raises NotRetryable: saying why there is nothing to send.
    """
    if not letter.payload:
        raise NotRetryable("its payload is empty: so was the message, or its bytes are with another event of it")
    content_type = letter.content_type.encode() or None
    kind = _kind(content_type)
    try:
        found: Any = json.loads(letter.payload.decode())
    except (ValueError, RecursionError):
        return letter.payload, content_type  # what stands for one of many events is JSON
    if kind == "whole" or letter.reason == UNDECODABLE or _is_message(found, letter, kind):
        return letter.payload, content_type
    if isinstance(found, dict):
        event = cast("dict[str, Any]", found)
        if kind != "array":
            return _row_as_event(event, letter.position.topic), CONTENT_TYPES["json"]
        if {"specversion", "type"} <= event.keys():
            return letter.payload, CONTENT_TYPES["json"]
    raise NotRetryable("it is no CloudEvent: a JSON object with specversion and type")


def _is_message(found: Any, letter: Letter, kind: str) -> bool:
    """Whether what a payload says in JSON is all of its message, and not one event of many."""
    if isinstance(found, dict):
        # Of an element that is an object it is never said that it can't be parsed.
        alone = kind == "sniffed" and ("specversion" in found or letter.reason == UNKNOWN_TYPE)
        return alone or letter.reason == UNPARSABLE
    if isinstance(found, list):
        events = cast("list[Any]", found)
        first = letter.position.place == 0 and any(isinstance(event, dict) for event in events)
        return kind == "arrow" or first or letter.reason != UNPARSABLE
    return False


def _kind(content_type: bytes | None) -> Literal["whole", "array", "arrow", "sniffed"]:
    """What a dead letter of a message of that type is: all of it, one of many, or whichever its first bytes said."""
    # Sniffed: the same type is read as another encoding where the bytes begin in another way.
    if encoding_of(b"{", content_type) != encoding_of(b"[", content_type):
        return "sniffed"
    encoding = encoding_of(b"", content_type)
    return encoding if encoding in ("array", "arrow") else "whole"


def _row_as_event(row: dict[str, Any], topic: str) -> bytes:
    """A row of an Arrow batch as a CloudEvent; its times are UTC, without a zone, as Arrow spells them."""
    event_type = BY_NAME.get(name_of(topic))
    if event_type is None:
        raise NotRetryable("it is a row of an Arrow batch of an event type that this version doesn't know")
    for known in event_type.fields:
        value = row.get(known.attribute)
        if known.kind == "time" and isinstance(value, str):
            row[known.attribute] = value.replace(" ", "T", 1) + ("" if value.endswith("Z") else "Z")
    spelled = "/".join(str(row.get(event_type.columns[column].attribute, "")) for column in event_type.identity)
    event: dict[str, Any] = {"specversion": SPEC_VERSION, "type": event_type.type, "id": spelled}
    event |= {name: row[name] for name in CONTEXT if name in row}
    event["data"] = {name: value for name, value in row.items() if name not in CONTEXT}
    return json.dumps(event).encode()


def retry(
    settings: Settings,
    selected: pl.DataFrame,
    *,
    again: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Report:
    """Send the dead letters that ``DeadLetters`` has selected again; those that were before only with ``again``.

    :raises WattStreamError: where Kafka or ClickHouse doesn't take something; what was sent until then is written down.
    """
    todo = selected if again else selected.filter(pl.col("retries") == 0)
    report = Report(dry_run, todo.height, selected.height - todo.height)
    if todo.is_empty():
        return report
    done = 0
    with DeadLetters(settings, "viewer" if dry_run else "writer") as letters:
        sender = _Sender(settings, letters, report)
        for batch in letters.with_payloads(todo):
            sender.send(batch)
            done += len(batch)
            progress("sending again", done, todo.height)
    return report


class _Sender:
    """Produces dead letters, waits for the broker and writes down what it took."""

    def __init__(self, settings: Settings, letters: DeadLetters, report: Report) -> None:
        self._bootstrap = settings.bootstrap
        self._letters = letters
        self._report = report
        self._kafka = Producer(
            settings.kafka_client(client_id="retry", enable_idempotence=True, acks="all", compression_type="lz4")
            | {
                "message.max.bytes": settings.message_max_bytes,
                "delivery.timeout.ms": _DELIVERY_SECONDS * 1000,
                "log_level": 0,
            }
        )
        try:
            topics = self._kafka.list_topics(timeout=_METADATA_SECONDS).topics
        except KafkaException as error:
            raise WattStreamError(
                f"Kafka at {self._bootstrap} doesn't answer ({why(settings, error)}). "
                "Is it running (wattstream status)?"
            ) from error
        self._partitions = {name: len(topic.partitions) for name, topic in topics.items()}

    def send(self, batch: Sequence[Letter]) -> None:
        """Send these, or where it is for show only, find out which could be."""
        taken: list[tuple[Letter, datetime, int]] = []
        errors: list[KafkaError] = []
        try:
            for letter in batch:
                try:
                    self._produce(letter, taken, errors)
                except NotRetryable as refused:
                    self._report.refuse(letter, str(refused))
            self._kafka.flush(_DELIVERY_SECONDS + 10)
        finally:  # also where it is interrupted
            if taken:
                self._letters.record(taken)
        if errors:
            raise WattStreamError(
                f"Kafka at {self._bootstrap} did not take what was sent: {errors[0].str()}. {self._report.sent} dead "
                "letters were sent and are written down; the same command again sends the rest."
            )

    def _produce(self, letter: Letter, taken: list[tuple[Letter, datetime, int]], errors: list[KafkaError]) -> None:
        value, content_type = message_of(letter)
        topic, partition, _, _ = letter.position
        if partition >= self._partitions.get(topic, 0):
            raise NotRetryable(f"Kafka has no partition {partition} of {topic}")
        if self._report.dry_run:
            self._report.sent += 1
            return

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                errors.append(error)
                return
            at = EPOCH + timedelta(milliseconds=message.timestamp()[1])
            taken.append((letter, at, message.offset() or 0))
            self._report.sent += 1
            self._report.since = min(at, self._report.since or at)

        try:
            # Where it came from, not where its key leads: one identity is looked for in one partition only, and who
            # sent it first may part keys in another way.
            self._kafka.produce(
                topic,
                value,
                letter.key or None,
                partition,
                on_delivery=delivered,
                headers=[(CONTENT_TYPE, content_type)] if content_type else [],
            )
        except KafkaException as error:
            if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise WattStreamError(f"Kafka took nothing: {error.args[0].str()}.") from error
            raise NotRetryable("it makes a message over the limit (WATTSTREAM_MESSAGE_MAX_BYTES)") from error
