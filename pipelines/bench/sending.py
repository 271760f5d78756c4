"""Puts a load into Kafka as fast as it can or as it is due, and knows when each message arrived there.

Not by the producer of `pipelines.feed`, whose manifest would be measured too, and which tells of a call's first message
alone when the broker took it.
"""

from collections import Counter
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl
from confluent_kafka import Producer

from pipelines.bench.load import CHUNK, Load, totals
from schemas.envelope import CONTENT_TYPE, CONTENT_TYPES, complete, packed, written
from schemas.errors import WattStreamError
from schemas.settings import Settings

_FLUSH_SECONDS = 60.0
_CUT = 100
"""Characters that are left of a broken event."""


class Sender:
    """Sends frames of one load; a context, which waits for what is on its way."""

    def __init__(self, settings: Settings, load: Load) -> None:
        self._load = load
        self._headers: list[Any] = [(CONTENT_TYPE, CONTENT_TYPES[load.encoding])]
        self._kafka = Producer(
            settings.kafka_client()
            | {
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 5,
                "batch.size": 1_000_000,
                "message.max.bytes": settings.message_max_bytes,
                "queue.buffering.max.messages": 500_000,
                "log_level": 0,
            }
        )
        self._error: Any = None
        self.sent = 0
        """Events, broken ones included."""
        self.totals = totals(load.event_type, [])
        """What the tables should say of them: without the broken ones."""
        self.arrivals: Counter[int] = Counter()
        """Events by the ms at which the broker took them (LogAppendTime)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()

    def send(self, frame: pl.DataFrame) -> None:
        """Queue all events of a frame, by key.

        :raises WattStreamError: where the broker has refused something.
        """
        load, event_type = self._load, self._load.event_type
        whole = complete(event_type, frame)
        bodies = written(event_type, whole, load.encoding)
        good = whole
        if load.broken_every:
            number = pl.Series(np.arange(self.sent, self.sent + frame.height))
            broken = number % load.broken_every == 0
            good = whole.filter(~broken)
            bodies = bodies.select(pl.when(broken).then(pl.col("event").str.head(_CUT)).otherwise("event"))
        self.totals = tuple(map(sum, zip(self.totals, totals(event_type, [good]), strict=True)))
        rows = CHUNK if load.encoding == "json" else load.rows_per_message
        keyed = bodies.with_columns(whole[event_type.key].alias("a key"))
        for (key,), part in keyed.partition_by("a key", include_key=False, as_dict=True).items():
            for piece in part.iter_slices(rows):
                events = 1 if load.encoding == "json" else piece.height
                taken = partial(self._taken, events)
                for message in packed(piece, load.encoding):
                    self._produce(str(key).encode(), message, taken)
        self.sent += frame.height
        self._kafka.poll(0)
        self._raise()

    def flush(self) -> None:
        """Wait until the broker has taken all of it.

        :raises WattStreamError: where it has not, after a minute.
        """
        left = self._kafka.flush(_FLUSH_SECONDS)
        self._raise()
        if left:
            raise WattStreamError(f"Kafka has not taken {left} messages of the load after {_FLUSH_SECONDS:g} s")

    def _produce(self, key: bytes, value: bytes, taken: Any) -> None:
        while True:
            try:
                self._kafka.produce(self._load.event_type.topic, value, key, on_delivery=taken, headers=self._headers)
                return
            except BufferError:  # the broker is slower than we are
                self._kafka.poll(0.05)

    def _taken(self, events: int, error: Any, message: Any) -> None:
        if error is not None:
            self._error = error
        else:
            self.arrivals[message.timestamp()[1]] += events

    def _raise(self) -> None:
        if self._error is not None:
            raise WattStreamError(f"Kafka refused the load: {self._error.str()}")
