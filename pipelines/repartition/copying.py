"""Copies a topic into its next version: each message with its key, headers, bytes and arrival, by the new partitions.

A pass copies what the old partitions hold between two offsets each, merged by arrival. Its bounds are written down
before it begins, and from them follows which message is the how manieth of each new partition. So a pass that was cut
short is done over, and as many messages are left out as each new partition holds already.
"""

import heapq
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
from aiokafka.partitioner import murmur2
from confluent_kafka import KafkaError, KafkaException, Producer

from dags.archive.kafka import KafkaLogs
from pipelines.replay.sources import Source
from schemas.errors import WattStreamError
from schemas.events import EventType
from schemas.progress import Progress
from schemas.settings import Settings
from streams.failpoints import failpoint

FOLDER = "repartition"

_DELIVERY_SECONDS = 120
_TOLD_MESSAGES = 1_000


class _Message(NamedTuple):
    arrived: int
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]


@dataclass
class _State:
    """What is written down of a copy: the whole passes, and the bounds of the one that may be in the middle."""

    topic_id: str
    written: list[int]
    """By new partition: the messages of whole passes."""
    reached: dict[str, int] = field(default_factory=dict)
    """By old partition: the offset up to which whole passes have copied."""
    last: dict[str, int] = field(default_factory=dict)
    """By old partition: the offset after the last message in them."""
    bounds: dict[str, tuple[int, int]] = field(default_factory=dict)
    misplaced: int = 0


class Copy:
    """The copy of one topic; ``partitions`` of the new one, which nobody else writes to."""

    def __init__(
        self, settings: Settings, source: Source, old: EventType, new: EventType, partitions: int, topic_id: str
    ) -> None:
        self._settings = settings
        self._logs = KafkaLogs(settings)
        self._source = source
        self._old = old
        self._new = new
        self._partitions = partitions
        self._file = settings.home / FOLDER / f"{new.topic}.json"
        self._state = _read(self._file, topic_id) or _State(topic_id, [0] * partitions)

    @property
    def messages(self) -> int:
        """How many are copied."""
        return sum(self._state.written)

    @property
    def misplaced(self) -> int:
        """How many were in another partition than Kafka's own partitioner gives their keys."""
        return self._state.misplaced

    @property
    def last(self) -> dict[tuple[str, int], int]:
        """By the topic that is copied and its partition: the offset after the last message that is."""
        return {(self._old.topic, int(partition)): offset for partition, offset in self._state.last.items()}

    def advance(self, progress: Progress) -> None:
        """Copy up to where the log ends now.

        :raises WattStreamError: where messages can't be had or aren't taken, or the new topic holds something else.
        """
        if self._state.bounds:
            self._pass(progress)
        logs = self._source.logs(self._old.topic)
        starts = {p: self._state.reached.get(str(p), log.start) for p, log in logs.items()}
        self._state.bounds = {str(p): (starts[p], log.end) for p, log in logs.items() if log.end > starts[p]}
        if self._ends() != self._state.written:
            raise self._strange()
        if self._state.bounds:
            self._save()
            self._pass(progress)

    def _pass(self, progress: Progress) -> None:
        state = self._state
        written, last, misplaced = list(state.written), dict(state.last), state.misplaced
        skip = [end - count for end, count in zip(self._ends(), written, strict=True)]
        if min(skip) < 0:
            raise self._strange()
        bounds = {int(partition): found for partition, found in state.bounds.items()}
        total = sum(end - start for start, end in bounds.values())
        feeds = [self._messages(partition, *found) for partition, found in sorted(bounds.items())]
        sender = _Sender(self._settings, self._new.topic)
        of_old = len(self._source.logs(self._old.topic))
        merged = heapq.merge(*feeds, key=lambda message: (message.arrived, message.partition))
        for read, message in enumerate(merged, start=1):
            target = _placed(message.key, message.partition, self._partitions)
            misplaced += _placed(message.key, message.partition, of_old) != message.partition
            written[target] += 1
            last[str(message.partition)] = message.offset + 1
            if skip[target]:
                skip[target] -= 1
            else:
                sender.send(message, target)
            if read % _TOLD_MESSAGES == 0:
                progress(f"copying {self._old.topic}", read, total)
                failpoint("while-copying")
        sender.close()
        if self._ends() != written:
            raise self._strange()
        progress(f"copying {self._old.topic}", total, total)
        reached = dict(state.reached) | {partition: end for partition, (_, end) in state.bounds.items()}
        self._state = _State(state.topic_id, written, reached, last, {}, misplaced)
        self._save()

    def _messages(self, partition: int, start: int, end: int) -> Iterator[_Message]:
        for batch in self._source.read(self._old.topic, partition, start, end):
            arrivals: list[Any] = batch.column("timestamp").cast(pa.int64()).to_pylist()
            offsets, keys, values, of_all = (cast("list[Any]", batch.column(n).to_pylist()) for n in _COLUMNS)
            for offset, arrived, key, value, headers in zip(offsets, arrivals, keys, values, of_all, strict=True):
                named = [(header["name"], header["value"]) for header in headers or ()]
                yield _Message(arrived, partition, offset, key, value, named)

    def _ends(self) -> list[int]:
        found = self._logs.topic(self._new.topic)
        if found is None or found.topic_id != self._state.topic_id or len(found.partitions) != self._partitions:
            raise self._strange()
        return [found.partitions[partition].end for partition in range(self._partitions)]

    def _strange(self) -> WattStreamError:
        return WattStreamError(
            f"{self._new.topic} holds something else than the copy of {self._old.topic}: `wattstream repartition "
            "--fresh` makes it anew."
        )

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(self._state)))
        draft.replace(self._file)


_COLUMNS = ("offset", "key", "value", "headers")


class _Sender:
    """Sends to partitions that were chosen, in order, each message once."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._bootstrap = settings.bootstrap
        self._topic = topic
        self._errors: list[KafkaError] = []
        self._kafka = Producer(
            settings.kafka_client(client_id="repartition", enable_idempotence=True, acks="all", compression_type="lz4")
            | {
                "message.max.bytes": 1_000_000_000,  # the broker has the say, of what it took already
                "batch.size": 1_000_000,
                "linger.ms": 20,
                "delivery.timeout.ms": _DELIVERY_SECONDS * 1000,
                "queue.buffering.max.kbytes": 128 * 1024,
                "log_level": 0,
            }
        )

    def send(self, message: _Message, partition: int) -> None:
        while True:
            try:
                self._kafka.produce(
                    self._topic,
                    message.value,
                    message.key,
                    partition,
                    on_delivery=self._delivered,
                    timestamp=message.arrived,
                    headers=message.headers,
                )
                break
            except BufferError:  # the queue is full: the broker is slower than we are
                self._kafka.poll(0.05)
            except KafkaException as error:
                self._errors.append(error.args[0])
            self._raise()
        self._kafka.poll(0)
        self._raise()

    def close(self) -> None:
        """Wait until the broker has taken everything."""
        if left := self._kafka.flush(_DELIVERY_SECONDS + 10):
            raise WattStreamError(f"Kafka at {self._bootstrap} has not taken {left} messages: run it again.")
        self._raise()

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._errors.append(error)

    def _raise(self) -> None:
        if self._errors:
            raise WattStreamError(
                f"Kafka at {self._bootstrap} did not take what was copied to {self._topic}: {self._errors[0].str()}. "
                "Once that is mended, run it again: it goes on."
            )


def _read(file: Path, topic_id: str) -> _State | None:
    """What was written down of a copy into the topic of that id; None where nothing was."""
    try:
        found = _State(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise WattStreamError(f"{file} is damaged ({error}): `wattstream repartition --fresh` begins anew.") from error
    return found if found.topic_id == topic_id else None


@lru_cache(100_000)
def _hashed(key: bytes) -> int:
    return murmur2(key) & 0x7FFFFFFF


def _placed(key: bytes | None, partition: int, partitions: int) -> int:
    """The partition of a key, as Kafka's own clients have it; what has none stays with those it was with."""
    return partition % partitions if key is None else _hashed(key) % partitions
