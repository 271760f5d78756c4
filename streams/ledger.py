# ruff: noqa: S608 (names are ours, values are bound by the server)
"""What of a topic partition is done, and how an insert is refused to who lost it.

Synchronous; every statement is here or, of taking, in takes.py, and values are bound by the server. The client, which
may be that of all topics, has no session: identities may be read for a flush while the one before is being written.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.errors import WattStreamError
from schemas.events import EventType
from streams.inserts import Encoded, Inserts

FENCED = 395
"""The server's code for throwIf: a higher claim exists. Told by code, since other errors may carry the SQL's text."""


# Parameters travel in the address: more minutes (of an import that is spread over years) would be refused as too long.
MINUTES_PER_QUERY = 500


class Halt(WattStreamError):
    """The partition must not go on until somebody looks: its log and its ledger contradict each other."""


class Lost(Exception):
    """The partition is not ours, or not yet: of another claim, an insert of before or an exchange of its tables."""


@dataclass(frozen=True)
class Claim:
    """One take of a partition; the highest (epoch, owner) owns it."""

    topic: str
    topic_id: str
    partition: int
    epoch: int
    owner: uuid.UUID


@dataclass
class Position:
    """All there is to know at the start of a partition."""

    claim: Claim
    base: int
    """The end of the contiguous done ranges: the next offset to read."""
    present: pl.DataFrame
    """(offset, place) of raw rows at or past base: a flush that landed, or landed in part, without its done row."""
    rejected: pl.DataFrame
    """The same of the dead letters."""
    upto: dict[tuple[str, int], int] = field(default_factory=dict)
    """By (rollup table, month as yyyymm): the last offset whose events are in that month's rollup already."""

    @property
    def reach(self) -> int:
        """The first offset that no unfinished flush of before has touched: from there on raw and rollups agree."""
        last = self.present.get_column("offset").max()
        rows = last + 1 if isinstance(last, int) else self.base
        return max([self.base, rows, *(upto + 1 for upto in self.upto.values())])


@dataclass(frozen=True)
class Range:
    """What a flush did with one partition; events = rows + duplicates + rejects."""

    partition: int
    first: int
    last: int
    messages: int
    events: int
    rows: int
    duplicates: int
    rejects: int
    checksum: int
    arrived_ms: int

    def __post_init__(self) -> None:
        if self.events != self.rows + self.duplicates + self.rejects:
            raise AssertionError(f"the counts of {self} don't add up")


class Ledger:
    """The done ranges of one topic, and its fenced inserts."""

    def __init__(self, connect: Callable[[], Client], event_type: EventType) -> None:
        self._connect = connect
        self._type = event_type

    @cached_property
    def _client(self) -> Client:
        """Connected at the first use: a worker may start before ClickHouse does."""
        return self._connect()

    @cached_property
    def _inserts(self) -> Inserts:
        return Inserts(self._client)

    def fence(self, claims: Sequence[Claim]) -> str:
        """The condition that the server evaluates before it writes: each of these claims is still the highest."""
        partitions = ", ".join(str(claim.partition) for claim in claims)
        mine = ", ".join(
            f"({c.partition}, ({c.epoch}, '{c.owner}'))" for c in sorted(claims, key=lambda c: c.partition)
        )
        return (
            "throwIf((SELECT arraySort(groupArray((p, (m.1, toString(m.2))))) FROM ("
            "SELECT toUInt32(topic_partition) AS p, max((epoch, owner)) AS m FROM claims "
            f"WHERE topic = '{self._type.topic}' AND topic_partition IN ({partitions}) GROUP BY p)) "
            f"!= [{mine}], 'fenced: a higher claim exists') = 0"
        )

    def insert(self, claims: Sequence[Claim], table: str, rows: pl.DataFrame | Encoded) -> None:
        """Write rows, or nothing where one of the claims is no longer the highest.

        :raises Lost: the server refused.
        """
        name = tag(self._type.topic, [claim.partition for claim in claims])
        try:
            self._inserts.run(table, rows, where=self.fence(claims), tag=name)
        except DatabaseError as error:
            if error.code == FENCED:
                raise Lost(f"{self._type.topic}: refused, a higher claim exists") from error
            raise

    def done(self, claims: Mapping[int, Claim], ranges: Sequence[Range]) -> None:
        """Write one row a range; fenced like the rest, so that no two ranges can overlap."""
        rows = pl.DataFrame(
            {
                "topic": [self._type.topic for _ in ranges],
                "topic_id": [claims[r.partition].topic_id for r in ranges],
                "topic_partition": pl.Series([r.partition for r in ranges], dtype=pl.UInt16),
                "first": [r.first for r in ranges],
                "last": [r.last for r in ranges],
                "messages": [r.messages for r in ranges],
                "events": [r.events for r in ranges],
                "rows": [r.rows for r in ranges],
                "duplicates": [r.duplicates for r in ranges],
                "rejects": [r.rejects for r in ranges],
                "checksum": pl.Series([r.checksum for r in ranges], dtype=pl.UInt64),
                "epoch": pl.Series([claims[r.partition].epoch for r in ranges], dtype=pl.UInt64),
                "owner": [str(claims[r.partition].owner) for r in ranges],
                "arrived": pl.Series([r.arrived_ms for r in ranges], dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")),
                "done": pl.Series([time.time_ns() // 1_000_000] * len(ranges)).cast(pl.Datetime("ms", "UTC")),
            }
        )
        self.insert([claims[r.partition] for r in ranges], "ingest_ranges", rows)

    def identities(self, minutes: Sequence[tuple[int, int]], before: Mapping[int, int]) -> pl.DataFrame:
        """The identities stored for (partition, minute since 1970), only of rows below ``before`` [partition]."""
        frames: list[pl.DataFrame] = []
        for partition in sorted({partition for partition, _ in minutes}):
            wanted = sorted(minute for p, minute in minutes if p == partition)
            for start in range(0, len(wanted), MINUTES_PER_QUERY):
                part = wanted[start : start + MINUTES_PER_QUERY]
                frames.append(self._identities(partition, part, before[partition]))
        return pl.concat(frames)

    def _identities(self, partition: int, minutes: list[int], before: int) -> pl.DataFrame:
        low, high = minutes[0], minutes[-1]
        table = self._client.query_arrow(
            f"SELECT topic_partition, toInt64(intDiv(toUnixTimestamp(time), 60)) AS minute, "
            f"reinterpretAsUInt64(reverse(substring(identity, 1, 8))) AS identity_hi, "
            f"reinterpretAsUInt64(reverse(substring(identity, 9, 8))) AS identity_lo FROM {self._type.name} "
            "WHERE topic_partition = {partition:UInt16} AND offset < {before:Int64} "
            "AND time >= fromUnixTimestamp64Second({low:Int64} * 60, 'UTC') "
            "AND time < fromUnixTimestamp64Second({high:Int64} * 60 + 60, 'UTC') "
            + ("AND has({minutes:Array(Int64)}, minute)" if high - low + 1 > len(minutes) else ""),
            parameters={"partition": partition, "before": before, "low": low, "high": high, "minutes": minutes},
        )
        return pl.DataFrame(pl.from_arrow(table))


def tag(topic: str, partitions: Sequence[int]) -> str:
    """The log_comment of an insert: names its partitions, so that a new owner can wait for it."""
    return "".join(f"|{topic}/{partition}|" for partition in sorted(partitions))
