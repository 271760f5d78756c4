"""Reads the log for `verify`: by a plain Kafka client and a decoding of its own, so that no error of the workers' is
repeated here. What it shares with them is the contract: the fields, and what an identity is.

Only identities are decoded. Whether an event is possible is not judged: one that was refused must be among the dead
letters, whatever the reason.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import xxhash
from confluent_kafka import Consumer, KafkaException, TopicPartition
from pyarrow import ipc

from schemas.brokers import why
from schemas.envelope import headers_of
from schemas.errors import WattStreamError
from schemas.events import CONTEXT, UNIT_SEPARATOR, EventType
from schemas.settings import Settings

_ONE_THREAD = ipc.IpcReadOptions(use_threads=False)
_STALL_SECONDS = 30.0
_POLL_MESSAGES = 20_000

EVENTS_SCHEMA = pl.Schema(
    {
        "offset": pl.Int64(),
        "place": pl.UInt32(),
        "minute": pl.Int64(),
        "identity_hi": pl.UInt64(),
        "identity_lo": pl.UInt64(),
    }
)
MESSAGES_SCHEMA = pl.Schema({"offset": pl.Int64(), "bytes": pl.UInt64()})


@dataclass(frozen=True)
class Reading:
    """What a partition holds.

    ``events``: position, minute of event time (since 1970) and identity of each, the identity null where none can be
    made out; of a message that can't be read, one event at place 0. ``messages``: offset and size of each.
    """

    start: int
    end: int
    events: pl.DataFrame
    messages: pl.DataFrame


class LogReader:
    """Reads partitions from their start to the end they have now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bootstrap = settings.bootstrap
        self._consumer = Consumer(
            settings.kafka_client(group_id="verify", enable_auto_commit=False, auto_offset_reset="error")
            | {"log_level": 0, "enable.auto.offset.store": False, "queued.max.messages.kbytes": 65_536}
        )

    def partitions(self, topics: Sequence[str]) -> list[tuple[str, int]]:
        """Every partition of those topics that exist."""
        try:
            known = self._consumer.list_topics(timeout=10.0).topics
        except KafkaException as error:
            raise WattStreamError(
                f"Kafka at {self._bootstrap} does not answer: {why(self._settings, error)}."
            ) from error
        return [(topic, p) for topic in topics if topic in known for p in sorted(known[topic].partitions)]

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, offset after the last)."""
        return self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10.0)

    def read(
        self,
        event_type: EventType,
        partition: int,
        start: int,
        end: int,
        progress: Callable[[int], None],
        before: Reading | None = None,
    ) -> Reading:
        """All messages from ``start`` up to ``end``; ``progress`` gets the number of offsets read.

        What is in ``before``, where that begins at ``start`` too, is not read again.

        :raises WattStreamError: where Kafka stops delivering.
        """
        if before is None or before.start != start or before.end > end:
            before = Reading(start, start, EVENTS_SCHEMA.to_frame(), MESSAGES_SCHEMA.to_frame())
        progress(before.end - start)
        self._consumer.assign([TopicPartition(event_type.topic, partition, before.end)])
        events = [before.events]
        messages = [before.messages]
        at, moved = before.end, time.monotonic()
        while at < end:
            found = [
                m for m in self._consumer.consume(_POLL_MESSAGES, 0.5) if self._good(m) and (m.offset() or 0) < end
            ]
            if found:
                offsets = [message.offset() or 0 for message in found]
                values = [message.value() or b"" for message in found]
                types = [_content_type(headers_of(message)) for message in found]
                decoded = identify(event_type, values, types)
                positions = pl.Series("offset", offsets, dtype=pl.Int64)
                events.append(
                    decoded.with_columns(offset=positions.gather(decoded.get_column("message"))).select(
                        list(EVENTS_SCHEMA)
                    )
                )
                messages.append(
                    pl.DataFrame({"offset": positions, "bytes": [len(v) for v in values]}, schema=MESSAGES_SCHEMA)
                )
                progress(offsets[-1] + 1 - at)
                at, moved = offsets[-1] + 1, time.monotonic()
            elif self._consumer.position([TopicPartition(event_type.topic, partition)])[0].offset >= end:
                break  # what is left are offsets without a message
            elif time.monotonic() - moved > _STALL_SECONDS:
                raise WattStreamError(
                    f"Kafka at {self._bootstrap} delivers nothing of {event_type.topic}/{partition} after offset {at}."
                )
        return Reading(start, end, pl.concat(events), pl.concat(messages))

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()

    def _good(self, message: Any) -> bool:
        if message.error():
            raise WattStreamError(f"Kafka at {self._bootstrap}: {message.error().str()}")
        return True


def identify(event_type: EventType, values: Sequence[bytes], content_types: Sequence[bytes | None]) -> pl.DataFrame:
    """Position and identity of each event: message (index), place, minute, identity_hi, identity_lo."""
    texts = _Texts(event_type)
    streams = _Streams(event_type)
    for message, (value, content_type) in enumerate(zip(values, content_types, strict=True)):
        kind = _kind(value, content_type)
        if kind == "arrow":
            if not streams.add(message, value):
                texts.add(message, 0, None)
            continue
        try:
            found = orjson.loads(value) if kind else None
        except orjson.JSONDecodeError:
            found = None
        if kind == "array" and isinstance(found, list):
            for place, event in enumerate(found):
                texts.add(message, place, event)
        else:
            texts.add(message, 0, found if kind == "event" else None)
    batches, broken = streams.frames()
    for message in broken:
        texts.add(message, 0, None)
    rows = pl.concat([texts.frame(), *batches])
    return rows.select(
        "message", "place", pl.col("time").floordiv(60_000_000_000).alias("minute"), *_hashed(event_type, rows)
    )


_KINDS = {
    "application/vnd.apache.arrow.stream": "arrow",
    "application/cloudevents+json": "event",
    "application/cloudevents-batch+json": "array",
}
_STARTS = {b"{": "event", b"[": "array", b"\xff": "arrow"}


def _kind(value: bytes, content_type: bytes | None) -> str | None:
    """event, array or arrow, by the header, else by the first bytes; None where neither tells."""
    declared = _declared(content_type)
    return _STARTS.get(value[:64].lstrip()[:1]) if declared == "application/json" else _KINDS.get(declared)


@cache
def _declared(content_type: bytes | None) -> str:
    return (content_type or b"application/json").decode(errors="replace").split(";")[0].strip().lower()


class _Texts:
    """Collects JSON events, then takes the identity's parts of all of them, column by column."""

    def __init__(self, event_type: EventType) -> None:
        self._columns = [event_type.columns[column] for column in event_type.identity if column != "time"]
        self._events: list[dict[str, Any]] = []
        self._messages: list[int] = []
        self._places: list[int] = []

    def add(self, message: int, place: int, event: Any) -> None:
        self._messages.append(message)
        self._places.append(place)
        self._events.append(event if type(event) is dict else {})

    def frame(self) -> pl.DataFrame:
        inside = [data if type(data := event.get("data")) is dict else {} for event in self._events]
        texts = {
            field.column: _texts(self._events if field.attribute in CONTEXT else inside, field.attribute)
            for field in self._columns
        }
        return pl.DataFrame(
            {
                "message": pl.Series(self._messages, dtype=pl.UInt32),
                "place": pl.Series(self._places, dtype=pl.UInt32),
                **texts,
                "time": _nanoseconds(_texts(self._events, "time")),
            }
        )


def _texts(objects: list[dict[str, Any]], name: str) -> pl.Series:
    """That member of each object; null where it is absent or no text."""
    values = [found.get(name) for found in objects]
    try:
        return pl.Series(name, values, dtype=pl.String, strict=True)
    except TypeError:
        return pl.Series(name, [value if type(value) is str else None for value in values], dtype=pl.String)


def _nanoseconds(texts: pl.Series) -> pl.Series:
    """RFC 3339 texts as nanoseconds since 1970; null for what is none."""
    parsed = texts.str.to_datetime("%+", time_unit="ns", time_zone="UTC", strict=False).to_physical()
    if parsed.null_count() == texts.null_count():
        return parsed
    rare = [
        _nanoseconds_of(text) if text is not None and fast is None else fast
        for text, fast in zip(texts, parsed, strict=True)
    ]
    return pl.Series("time", rare, dtype=pl.Int64)


def _nanoseconds_of(text: str) -> int | None:
    fraction = re.search(r"\.(\d{1,9})", text)
    try:
        whole = datetime.fromisoformat(re.sub(r"\.\d+", "", text))
    except ValueError:
        return None
    seconds = int((whole if whole.tzinfo else whole.replace(tzinfo=UTC)).timestamp())
    return seconds * 10**9 + (int(fraction.group(1).ljust(9, "0")) if fraction else 0)


class _Streams:
    """Collects Arrow streams, then takes the identity's parts of all that have one schema at once."""

    def __init__(self, event_type: EventType) -> None:
        self._fields = [event_type.columns[column] for column in dict.fromkeys([*event_type.identity, "time"])]
        self._names = [column for column in event_type.identity if column != "time"]
        self._by_schema: dict[pa.Schema, list[tuple[int, pa.Table]]] = {}

    def add(self, message: int, value: bytes) -> bool:
        """Whether the message can be read."""
        try:
            table = ipc.open_stream(value, options=_ONE_THREAD).read_all()
            if len(set(table.column_names)) != len(table.column_names):
                return False
            table = table.select([f.attribute for f in self._fields if f.attribute in table.column_names])
        except (pa.ArrowException, OSError, ValueError):
            return False
        self._by_schema.setdefault(table.schema, []).append((message, table))
        return True

    def frames(self) -> "tuple[list[pl.DataFrame], list[int]]":
        """The parts by position, and the messages that can't be read after all."""
        frames: list[pl.DataFrame] = []
        broken: list[int] = []
        for streams in self._by_schema.values():
            try:
                frames.append(self._frame(streams))
            except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError):
                for stream in streams:
                    try:
                        frames.append(self._frame([stream]))
                    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError):
                        broken.append(stream[0])
        return frames, broken

    def _frame(self, streams: list[tuple[int, pa.Table]]) -> pl.DataFrame:
        counts = [table.num_rows for _, table in streams]
        places = [np.arange(count, dtype=np.uint32) for count in counts]
        rows = pl.DataFrame(
            {
                "message": np.repeat(np.array([message for message, _ in streams], np.uint32), counts),
                "place": np.concatenate(places),
            }
        )
        table = pa.concat_tables([table for _, table in streams])
        if table.column_names:
            rows = rows.hstack(pl.DataFrame(pl.from_arrow(table)))
        parts = {
            f.column: (pl.col(f.attribute) if f.attribute in table.column_names else pl.lit(None)).cast(
                f.polars, strict=False
            )
            for f in self._fields
        }
        parts["time"] = parts["time"].cast(pl.Int64)
        return rows.select("message", "place", **parts).select("message", "place", *self._names, "time")


def _hashed(event_type: EventType, rows: pl.DataFrame) -> list[pl.Series]:
    """xxh3-128 of the parts, by the reference library, a text at a time."""
    parts = [
        pl.col(column).cast(pl.String) if column == "time" else pl.col(column).fill_null("")
        for column in event_type.identity
    ]
    nothing = pl.all_horizontal(pl.col(c).is_null() for c in event_type.identity)
    texts = rows.select(pl.when(~nothing).then(pl.concat_str(parts, separator=UNIT_SEPARATOR))).to_series()
    digests = [xxhash.xxh3_128_digest(text.encode()) if text is not None else bytes(16) for text in texts.to_list()]
    halves = np.frombuffer(b"".join(digests), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    known = texts.is_not_null()
    return [
        pl.Series(name, halves[:, index], dtype=pl.UInt64).set(~known, None)
        for index, name in enumerate(("identity_hi", "identity_lo"))
    ]


def _content_type(headers: Any) -> bytes | None:
    for name, value in headers or ():
        if name == "content-type":
            return value
    return None
