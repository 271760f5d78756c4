"""Kafka messages as Arrow record batches: one row a message, nothing of it decoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import accumulate, pairwise
from typing import Any, cast

import numpy as np
import pyarrow as pa

Header = tuple[str, bytes | None]

HEADER = pa.struct([pa.field("name", pa.string(), nullable=False), pa.field("value", pa.binary())])
SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.field("element", HEADER, nullable=False)), nullable=False),
    ]
)

DAY_MS = 86_400_000


@dataclass
class Messages:
    """Messages of one partition, as parallel lists: what a client hands over one by one, until it is made a batch."""

    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    """Arrival at the broker (LogAppendTime), milliseconds since 1970."""
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Sequence[Header]] = field(default_factory=list)
    """In the order of the message; a name may be there again."""
    size: int = 0
    """Bytes of keys and values."""

    def add(
        self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Sequence[Header] | None
    ) -> None:
        """One more message."""
        self.offsets.append(offset)
        self.timestamps.append(timestamp)
        self.keys.append(key)
        self.values.append(value)
        self.headers.append(headers or ())
        self.size += len(key or b"") + len(value or b"")

    def batch(self, partition: int) -> pa.RecordBatch:
        """All of them, in ``SCHEMA``."""
        pairs = [pair for headers in self.headers for pair in headers]
        names = pa.array([name for name, _ in pairs], pa.string())
        values = pa.array([value for _, value in pairs], pa.binary())
        bounds = pa.array([0, *accumulate(map(len, self.headers))], pa.int32())
        pairs_of_all = pa.StructArray.from_arrays([names, values], fields=list(HEADER))
        headers = cast("Any", pa.ListArray).from_arrays(bounds, pairs_of_all, SCHEMA.field("headers").type)
        columns = [
            pa.array(np.full(len(self.offsets), partition, np.int32)),
            pa.array(self.offsets, pa.int64()),
            pa.array(self.timestamps, pa.int64()).cast(pa.timestamp("ms", "UTC")),
            pa.array(self.keys, pa.binary()),
            pa.array(self.values, pa.binary()),
            headers,
        ]
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def milliseconds(batch: pa.RecordBatch) -> np.ndarray:
    """The arrivals, since 1970."""
    return batch.column("timestamp").cast(pa.int64()).to_numpy()


def by_day(batch: pa.RecordBatch) -> Iterator[tuple[date, pa.RecordBatch]]:
    """The batch cut where the UTC day of arrival changes, in its order: a clock set back makes a day come again."""
    days = milliseconds(batch) // DAY_MS
    cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for first, stop in pairwise(cuts):
        if stop > first:
            yield day_of(int(days[first]) * DAY_MS), batch.slice(first, stop - first)


def day_of(milliseconds_since_1970: int) -> date:
    """The UTC day."""
    return datetime.fromtimestamp(milliseconds_since_1970 // 1000, UTC).date()
