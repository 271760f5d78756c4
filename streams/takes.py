# ruff: noqa: S608 (names are ours, values are bound by the server)
"""Step 1 of the sink: who owns a topic partition, and all there is to know where it starts."""

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl
from clickhouse_connect.driver.client import Client

from schemas.events import EventType
from schemas.tables import ROLLUPS
from streams.failpoints import failpoint
from streams.inserts import Inserts
from streams.ledger import Claim, Halt, Lost, Position, tag
from streams.swaps import open_intent

_NONE = pl.DataFrame(schema={"offset": pl.Int64, "place": pl.UInt32})
_OF = "WHERE topic = {topic:String} AND topic_partition IN {partitions:Array(UInt16)}"

Taken = Position | Halt | Lost


@dataclass(frozen=True)
class Log:
    """What Kafka says of a partition."""

    topic_id: str
    start: int
    end: int


class Takes:
    """Takes the partitions of one topic for one worker."""

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
