# ruff: noqa: S608 (names are ours, values are bound by the server)
"""Claims and ranges: who owns a topic partition, what of it is done, and how an insert is refused to who lost it.

Synchronous; every statement is here, values are bound by the server. One client, which has no session: identities may
be read for a flush while the one before is written in another thread.
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
from schemas.tables import ROLLUPS
from streams.failpoints import failpoint
from streams.inserts import Encoded, Inserts
from streams.swaps import open_intent

FENCED = 395
"""The server's code for throwIf: a higher claim exists. Told by code, since other errors may carry the SQL's text."""


# Parameters travel in the address: more minutes (of an import that is spread over years) would be refused as too long.
MINUTES_PER_QUERY = 500


class Halt(WattStreamError):
    """The partition must not go on until somebody looks: its log and its ledger contradict each other."""


class Lost(Exception):
    """A higher claim exists: somebody else owns the partition now."""


@dataclass(frozen=True)
class Claim:
    """One take of a partition; the highest (epoch, owner) owns it."""

    topic: str
    topic_id: str
    partition: int
    epoch: int
    owner: uuid.UUID


@dataclass(frozen=True)
class Log:
    """What Kafka says of a partition."""

    topic_id: str
    start: int
    end: int


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
    """The ledger of one topic."""

    def __init__(self, connect: Callable[[], Client], event_type: EventType, *, worker: uuid.UUID) -> None:
        self._connect = connect
        self._type = event_type
        self._worker = worker

    @cached_property
    def _client(self) -> Client:
        """Connected at the first use: a worker may start before ClickHouse does."""
        return self._connect()

    @cached_property
    def _inserts(self) -> Inserts:
        return Inserts(self._client)

    def take(
        self, partition: int, log: Log, *, timeout_seconds: float, pause: Callable[[float], None] = time.sleep
    ) -> Position:
        """Step 1 of the sink: claim the partition, wait for its running inserts, then look.

        :raises Lost: another worker's claim is higher, or the tables are just being exchanged.
        :raises Halt: log and ledger contradict each other.
        """
        claim = self._claim(partition, log)
        failpoint("after-claim")
        self._refuse_while_swapped()  # after the claim: a swap writes its intent before its own claims
        self._refuse_other_versions()  # after that: a swap ends when its tables are there
        return self._position(claim, log, timeout_seconds, pause)

    def held(self, claims: Sequence[Claim], topic_id: str | None) -> set[int]:
        """The partitions of which these claims are still the highest, and of the topic that Kafka has now."""
        rows = self._client.query(
            "SELECT topic_partition, (max((epoch, owner)) AS top).1, top.2 FROM claims "
            "WHERE topic = {topic:String} AND topic_partition IN {partitions:Array(UInt16)} GROUP BY topic_partition",
            parameters={"topic": self._type.topic, "partitions": [claim.partition for claim in claims]},
        ).result_rows
        highest = {partition: (epoch, uuid.UUID(str(owner))) for partition, epoch, owner in rows}
        return {
            claim.partition
            for claim in claims
            if claim.topic_id == topic_id and highest.get(claim.partition) == (claim.epoch, claim.owner)
        }

    def hold(
        self, partition: int, log: Log, *, timeout_seconds: float, pause: Callable[[float], None] = time.sleep
    ) -> Position:
        """The same in the midst of an exchange of tables, by who makes it.

        :raises Lost: another worker's claim is higher.
        :raises Halt: log and ledger contradict each other.
        """
        return self._position(self._claim(partition, log), log, timeout_seconds, pause)

    def _position(self, claim: Claim, log: Log, timeout_seconds: float, pause: Callable[[float], None]) -> Position:
        partition = claim.partition
        self._wait_for_inserts(partition, timeout_seconds, pause)
        base = self._base(partition, log)
        return Position(
            claim, base, self._present(partition, base), self._rejected(partition, base), self._upto(partition, base)
        )

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

    def _claim(self, partition: int, log: Log) -> Claim:
        where = "WHERE topic = {topic:String} AND topic_partition = {partition:UInt16}"
        of = {"topic": self._type.topic, "partition": partition}
        other = self._client.query(
            f"SELECT any(topic_id), max(epoch) FROM claims {where} AND topic_id != {{id:String}} HAVING count() > 0",
            parameters=of | {"id": log.topic_id},
        ).result_rows
        if other:
            raise Halt(
                f"{self._type.topic}: the topic was recreated (id {log.topic_id}, the ledger knows {other[0][0]}). "
                "Its offsets say nothing about the tables any more: give it a new version, or start with an empty home."
            )
        highest = self._client.query(f"SELECT max(epoch) FROM claims {where}", parameters=of).result_rows[0][0]
        claim = Claim(self._type.topic, log.topic_id, partition, highest + 1, self._worker)
        rows = pl.DataFrame(
            {
                "topic": [claim.topic],
                "topic_id": [claim.topic_id],
                "topic_partition": pl.Series([partition], dtype=pl.UInt16),
                "epoch": pl.Series([claim.epoch], dtype=pl.UInt64),
                "owner": [str(claim.owner)],
                "claimed": pl.Series([time.time_ns() // 1_000_000]).cast(pl.Datetime("ms", "UTC")),
            }
        )
        self._inserts.run("claims", rows)
        epoch, owner = self._client.query(
            f"SELECT (max((epoch, owner)) AS top).1, top.2 FROM claims {where}", parameters=of
        ).result_rows[0]
        if (epoch, uuid.UUID(str(owner))) != (claim.epoch, claim.owner):
            raise Lost(f"{self._type.topic}/{partition}: claimed by {owner} at epoch {epoch}")
        return claim

    def _refuse_while_swapped(self) -> None:
        if intent := open_intent(self._client):
            raise Lost(
                f"{self._type.topic}: a swap with {intent.replayed} is under way; if its process has died, "
                f"`{intent.finish}` ends it"
            )

    def _refuse_other_versions(self) -> None:
        """Offsets of one version of the topic say nothing about tables that were filled from another."""
        others = self._client.query(
            "SELECT DISTINCT topic FROM ingest_ranges WHERE topic LIKE {pattern:String} AND topic != {topic:String}",
            parameters={"pattern": self._type.at(1).topic[:-1] + "%", "topic": self._type.topic},
        ).result_rows
        if others:
            raise Halt(
                f"{self._type.topic}: the tables are of {others[0][0]}. Where the partitions were changed just now, a "
                "worker that starts reads the new version; else `wattstream replay --fresh --swap "
                "--accept-differences` makes the tables of the version that Kafka has in use."
            )

    def _wait_for_inserts(self, partition: int, timeout_seconds: float, pause: Callable[[float], None]) -> None:
        """An insert is listed before its fence is evaluated: so each is either seen here, or sees our claim."""
        waited = 0.0
        while self._client.query(
            "SELECT count() FROM system.processes WHERE Settings['log_comment'] LIKE {tag:String} AND is_initial_query "
            "AND current_database = currentDatabase() "
            # Who only reads can give a query any comment.
            "AND user = currentUser() AND Settings['readonly'] IN ('', '0')",
            parameters={"tag": f"%{tag(self._type.topic, [partition])}%"},
        ).result_rows[0][0]:
            if waited > timeout_seconds:
                raise Lost(f"{self._type.topic}/{partition}: an earlier insert still runs after {waited:.0f} s")
            pause(0.05)
            waited += 0.05

    def _base(self, partition: int, log: Log) -> int:
        count, first, end, covered = self._client.query(
            "SELECT count(), min(first), max(last) + 1, sum(last - first + 1) FROM ingest_ranges "
            "WHERE topic = {topic:String} AND topic_partition = {partition:UInt16}",
            parameters={"topic": self._type.topic, "partition": partition},
        ).result_rows[0]
        name = f"{self._type.topic}/{partition}"
        if not count:
            return log.start
        if covered != end - first:
            raise Halt(
                f"{name}: its done ranges have a gap or overlap ({first} to {end} covers {covered} offsets). "
                "`wattstream doctor` says whether damaged files were set aside; restore a backup, or fill new tables."
            )
        if end < log.start:
            raise Halt(
                f"{name}: done up to {end}, but the log starts at {log.start}: "
                f"{log.start - end} offsets expired unread. `wattstream replay --from archive --swap` reads them there."
            )
        if end > log.end:
            raise Halt(f"{name}: done up to {end}, but the log ends at {log.end}: it lost its end, or is another log.")
        return end

    def _present(self, partition: int, base: int) -> pl.DataFrame:
        return self._positions(self._type.name, "1", partition, base)

    def _rejected(self, partition: int, base: int) -> pl.DataFrame:
        return self._positions("deadletters", f"topic = '{self._type.topic}'", partition, base)

    def _positions(self, table: str, condition: str, partition: int, base: int) -> pl.DataFrame:
        found = self._client.query_arrow(
            f"SELECT offset, place FROM {table} WHERE {condition} "
            "AND topic_partition = {partition:UInt16} AND offset >= {base:Int64}",
            parameters={"partition": partition, "base": base},
        )
        return pl.DataFrame(pl.from_arrow(found)).cast({"offset": pl.Int64, "place": pl.UInt32})

    def _upto(self, partition: int, base: int) -> dict[tuple[str, int], int]:
        found: dict[tuple[str, int], int] = {}
        for table in ROLLUPS.get(self._type.name, ()):
            rows = self._client.query(
                f"SELECT toYYYYMM(minute) AS month, max(upto) FROM {table} "
                "WHERE topic_partition = {partition:UInt16} AND upto >= {base:Int64} GROUP BY month",
                parameters={"partition": partition, "base": base},
            ).result_rows
            found.update({(table, month): last for month, last in rows})
        return found


def tag(topic: str, partitions: Sequence[int]) -> str:
    """The log_comment of an insert: names its partitions, so that a new owner can wait for it."""
    return "".join(f"|{topic}/{partition}|" for partition in sorted(partitions))
