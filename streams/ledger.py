# ruff: noqa: S608 (names are ours, values are bound by the server)
"""Claims and ranges: who owns a topic partition, what of it is done, and how an insert is refused to who lost it.

Synchronous; every statement is here, values are bound by the server. The client, which may be that of all topics, has
no session: identities may be read for a flush while the one before is written in another thread.
"""

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
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
    """The partition is not ours, or not yet: of another claim, an insert of before or an exchange of its tables."""


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


Taken = Position | Halt | Lost


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
        self, logs: Mapping[int, Log], *, timeout_seconds: float, pause: Callable[[float], None] = time.sleep
    ) -> dict[int, Taken]:
        """Step 1 of the sink, for partitions of these logs: claim them, wait for their running inserts, then look.

        By partition where it stands, or why it is not ours: another worker's claim is higher, an insert of before still
        runs, the tables are just being exchanged (`Lost`), or log and ledger contradict each other (`Halt`). All at
        once, since a worker that comes back has all of its partitions to take: 10 queries a topic, not a partition.
        """
        if not logs:
            return {}
        claimed = self._claim(logs)
        failpoint("after-claim")
        # After the claims: a swap writes its intent before its own claims. And then the versions: a swap ends when its
        # tables are there.
        if refusal := self._swap_under_way() or self._other_version():
            return {p: refusal if isinstance(one, Claim) else one for p, one in claimed.items()}
        return self._positions(claimed, logs, timeout_seconds, pause)

    def held(self, claims: Sequence[Claim], topic_id: str | None) -> set[int]:
        """The partitions of which these claims are still the highest, and of the topic that Kafka has now."""
        highest = self._highest([claim.partition for claim in claims])
        return {
            claim.partition
            for claim in claims
            if claim.topic_id == topic_id and highest.get(claim.partition) == (claim.epoch, claim.owner)
        }

    def _highest(self, partitions: Sequence[int]) -> dict[int, tuple[int, uuid.UUID]]:
        """By partition the epoch and the owner of its highest claim."""
        rows = self._client.query(
            f"SELECT topic_partition, (max((epoch, owner)) AS top).1, top.2 FROM claims {_OF} GROUP BY topic_partition",
            parameters=self._of(partitions),
        ).result_rows
        return {partition: (epoch, uuid.UUID(str(owner))) for partition, epoch, owner in rows}

    def _of(self, partitions: Collection[int]) -> dict[str, object]:
        return {"topic": self._type.topic, "partitions": sorted(partitions)}

    def hold(
        self, logs: Mapping[int, Log], *, timeout_seconds: float, pause: Callable[[float], None] = time.sleep
    ) -> dict[int, Taken]:
        """The same in the midst of an exchange of tables, by who makes it."""
        return self._positions(self._claim(logs), logs, timeout_seconds, pause)

    def _positions(
        self,
        claimed: dict[int, Claim | Halt | Lost],
        logs: Mapping[int, Log],
        timeout_seconds: float,
        pause: Callable[[float], None],
    ) -> dict[int, Taken]:
        claims = {partition: one for partition, one in claimed.items() if isinstance(one, Claim)}
        busy = self._wait_for_inserts(claims, timeout_seconds, pause)
        found = self._bases({partition: logs[partition] for partition in claims.keys() - busy.keys()})
        bases = {partition: one for partition, one in found.items() if isinstance(one, int)}
        raw = self._places(self._type.name, "1", bases)
        dead = self._places("deadletters", f"topic = '{self._type.topic}'", bases)
        upto = self._upto(bases)
        outcome: dict[int, Taken] = {
            p: one for p, one in (claimed | busy | found).items() if isinstance(one, Halt | Lost)
        }
        for p, base in bases.items():
            outcome[p] = Position(claims[p], base, raw.get(p, _NONE), dead.get(p, _NONE), upto[p])
        return outcome

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

    def _claim(self, logs: Mapping[int, Log]) -> dict[int, Claim | Halt | Lost]:
        rows = self._client.query(
            f"SELECT topic_partition, max(epoch), groupUniqArray(topic_id) FROM claims {_OF} GROUP BY topic_partition",
            parameters=self._of(logs),
        ).result_rows
        known = {partition: (epoch, set(ids)) for partition, epoch, ids in rows}
        outcome: dict[int, Claim | Halt | Lost] = {}
        claims: list[Claim] = []
        for partition, log in sorted(logs.items()):
            epoch, ids = known.get(partition, (0, set[str]()))
            if others := ids - {log.topic_id}:
                outcome[partition] = Halt(
                    f"{self._type.topic}: the topic was recreated (id {log.topic_id}, the ledger knows {min(others)}). "
                    "Its offsets say nothing about the tables any more: give it a new version, or start with an empty "
                    "home."
                )
            else:
                claims.append(Claim(self._type.topic, log.topic_id, partition, epoch + 1, self._worker))
        if not claims:
            return outcome
        rows = pl.DataFrame(
            {
                "topic": [claim.topic for claim in claims],
                "topic_id": [claim.topic_id for claim in claims],
                "topic_partition": pl.Series([claim.partition for claim in claims], dtype=pl.UInt16),
                "epoch": pl.Series([claim.epoch for claim in claims], dtype=pl.UInt64),
                "owner": [str(claim.owner) for claim in claims],
                "claimed": pl.Series([time.time_ns() // 1_000_000] * len(claims)).cast(pl.Datetime("ms", "UTC")),
            }
        )
        self._inserts.run("claims", rows)
        highest = self._highest([claim.partition for claim in claims])
        for claim in claims:
            top = highest.get(claim.partition)  # None: a replica that doesn't have the claim yet
            lost = Lost(f"{claim.topic}/{claim.partition}: its highest claim is {top}")
            outcome[claim.partition] = claim if top == (claim.epoch, claim.owner) else lost
        return outcome

    def _swap_under_way(self) -> Lost | None:
        intent = open_intent(self._client)
        if intent is None:
            return None
        return Lost(
            f"{self._type.topic}: a swap with {intent.replayed} is under way; if its process has died, "
            f"`{intent.finish}` ends it"
        )

    def _other_version(self) -> Halt | None:
        """Offsets of one version of the topic say nothing about tables that were filled from another."""
        others = self._client.query(
            "SELECT DISTINCT topic FROM ingest_ranges WHERE topic LIKE {pattern:String} AND topic != {topic:String}",
            parameters={"pattern": self._type.at(1).topic[:-1] + "%", "topic": self._type.topic},
        ).result_rows
        if not others:
            return None
        return Halt(
            f"{self._type.topic}: the tables are of {others[0][0]}. Where the partitions were changed just now, a "
            "worker that starts reads the new version; else `wattstream replay --fresh --swap "
            "--accept-differences` makes the tables of the version that Kafka has in use."
        )

    def _wait_for_inserts(
        self, partitions: Collection[int], timeout_seconds: float, pause: Callable[[float], None]
    ) -> dict[int, Lost]:
        """An insert is listed before its fence is evaluated: so each is either seen here, or sees our claim.

        Returns what it did not wait for any longer.
        """
        waited = 0.0
        while busy := self._with_inserts(partitions):
            if waited > timeout_seconds:
                break
            pause(0.05)
            waited += 0.05
        return {p: Lost(f"{self._type.topic}/{p}: an earlier insert still runs after {waited:.0f} s") for p in busy}

    def _with_inserts(self, partitions: Collection[int]) -> set[int]:
        if not partitions:
            return set()
        rows = self._client.query(
            "SELECT Settings['log_comment'] FROM system.processes WHERE Settings['log_comment'] LIKE {tag:String} "
            "AND is_initial_query AND current_database = currentDatabase() "
            # Who only reads can give a query any comment.
            "AND user = currentUser() AND Settings['readonly'] IN ('', '0')",
            parameters={"tag": f"%|{self._type.topic}/%"},
        ).result_rows
        return {p for p in partitions if any(tag(self._type.topic, [p]) in comment for (comment,) in rows)}

    def _bases(self, logs: Mapping[int, Log]) -> dict[int, int | Halt]:
        if not logs:
            return {}
        rows = self._client.query(
            "SELECT topic_partition, min(first), max(last) + 1, sum(last - first + 1) "
            f"FROM ingest_ranges {_OF} GROUP BY topic_partition",
            parameters=self._of(logs),
        ).result_rows
        done = {partition: (first, end, covered) for partition, first, end, covered in rows}
        return {p: self._base(p, log, *done[p]) if p in done else log.start for p, log in logs.items()}

    def _base(self, partition: int, log: Log, first: int, end: int, covered: int) -> int | Halt:
        name = f"{self._type.topic}/{partition}"
        if covered != end - first:
            return Halt(
                f"{name}: its done ranges have a gap or overlap ({first} to {end} covers {covered} offsets). "
                "`wattstream doctor` says whether damaged files were set aside; restore a backup, or fill new tables."
            )
        if end < log.start:
            return Halt(
                f"{name}: done up to {end}, but the log starts at {log.start}: "
                f"{log.start - end} offsets expired unread. `wattstream replay --from archive --swap` reads them there."
            )
        if end > log.end:
            return Halt(f"{name}: done up to {end}, but the log ends at {log.end}: it lost its end, or is another log.")
        return end

    def _places(self, table: str, condition: str, bases: Mapping[int, int]) -> dict[int, pl.DataFrame]:
        """By partition the (offset, place) of what is there at or past its base, where anything is."""
        if not bases:
            return {}
        found = self._client.query_arrow(
            # Each for itself: the index of offsets can't tell partitions apart, and one may be far behind another.
            " UNION ALL ".join(
                f"SELECT topic_partition, offset, place FROM {table} "
                f"WHERE {condition} AND topic_partition = {partition:d} AND offset >= {base:d}"
                for partition, base in bases.items()
            )
        )
        places = pl.DataFrame(pl.from_arrow(found)).cast({"offset": pl.Int64, "place": pl.UInt32})
        return {
            partition: rows.drop("topic_partition")
            for (partition,), rows in places.partition_by("topic_partition", as_dict=True).items()
        }

    def _upto(self, bases: Mapping[int, int]) -> dict[int, dict[tuple[str, int], int]]:
        found: dict[int, dict[tuple[str, int], int]] = {partition: {} for partition in bases}
        tables = ROLLUPS.get(self._type.name, ())
        if not bases or not tables:
            return found
        each = (
            f"SELECT topic_partition, '{table}', toYYYYMM(minute) AS month, max(upto) FROM {table} "
            f"WHERE topic_partition = {partition:d} AND upto >= {base:d} GROUP BY topic_partition, month"
            for table in tables
            for partition, base in bases.items()
        )
        for partition, table, month, last in self._client.query(" UNION ALL ".join(each)).result_rows:
            found[partition][table, month] = last
        return found


_NONE = pl.DataFrame(schema={"offset": pl.Int64, "place": pl.UInt32})
_OF = "WHERE topic = {topic:String} AND topic_partition IN {partitions:Array(UInt16)}"


def tag(topic: str, partitions: Sequence[int]) -> str:
    """The log_comment of an insert: names its partitions, so that a new owner can wait for it."""
    return "".join(f"|{topic}/{partition}|" for partition in sorted(partitions))
