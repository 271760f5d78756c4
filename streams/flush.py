"""One flush: decoded polls of the partitions of a topic become raw rows, rollups, dead letters and done ranges.

Synchronous. A flush is prepared while the one before is written, and written when that is done. The steps are numbered
as in sink.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from schemas.events import EventType
from schemas.identity import checksum
from streams.dedupe import Minute, Seen
from streams.failpoints import failpoint
from streams.inserts import Encoded, encode
from streams.intake import Intake
from streams.ledger import Claim, Ledger, Position, Range
from streams.rollup import roll_up

_KEY = ["topic_partition", "offset", "place"]
# Of dead letters in one insert. A poison of half a million events, each with its bytes and why, is more than the server
# takes at once.
DEAD_BYTES = 64 << 20


@dataclass(frozen=True)
class Portion:
    """What a flush takes of one partition: all polls from offset ``first`` to ``last``, gaps included."""

    position: Position
    first: int
    last: int
    intakes: Sequence[Intake]
    arrived_ms: int

    @property
    def partition(self) -> int:
        """The topic partition."""
        return self.position.claim.partition


@dataclass(frozen=True)
class Prepared:
    """All that a flush will write, decided and not yet begun."""

    claims: Mapping[int, Claim]
    raw: Encoded
    rejects: pl.DataFrame
    dead: Sequence[Encoded]
    """Those of the rejects that are not in the table yet, for an insert each."""
    rollups: Mapping[str, Encoded]
    ranges: list[Range]


class Flush:
    """Writes portions of one topic."""

    def __init__(
        self, event_type: EventType, ledger: Ledger, seen: Seen | None, publish: Callable[[pl.DataFrame], None]
    ) -> None:
        self._type = event_type
        self._ledger = ledger
        self._seen = seen
        self._publish = publish

    def prepare(self, portions: Sequence[Portion], settled: Callable[[], object]) -> "Prepared":
        """Decide what is to be written of the portions. May run while the flush before is still being written.

        ``settled`` waits for that and raises where it failed: identities of it that are not in memory any more are
        read from the tables.
        """
        events = self._events(portions)
        first = self._first(events, portions, settled)
        accepted = events if first.all() else events.filter(first)  # a filter copies, and nearly always all are new
        rejects = self._rejects(portions)
        rollups = {table: encode(rows) for table, rows in self._rollups(accepted, portions).items()}
        return Prepared(  # the raw rows last: their body, of 160 bytes a row, need not be held beside the grouping
            claims={portion.partition: portion.position.claim for portion in portions},
            raw=encode(_without(accepted, portions, "present")),
            rejects=rejects,
            dead=[encode(rows) for rows in _inserts(_without(rejects, portions, "rejected"))],
            rollups=rollups,
            ranges=_ranges(portions, events, accepted, rejects),
        )

    def write(self, prepared: "Prepared") -> list[Range]:
        """Write it all; returns the done ranges.

        :raises Lost: a partition is no longer ours; nothing more was written after that was found.
        """
        held = list(prepared.claims.values())
        failpoint("before-raw")
        self._ledger.insert(held, self._type.name, prepared.raw)
        for rows in prepared.dead:
            self._ledger.insert(held, "deadletters", rows)
        if not prepared.rejects.is_empty():  # those too that an unfinished flush wrote: it may not have published them
            self._publish(prepared.rejects)
        failpoint("before-rollups")
        for table, rows in prepared.rollups.items():
            self._ledger.insert(held, table, rows)
        failpoint("before-done")
        self._ledger.done(prepared.claims, prepared.ranges)
        return prepared.ranges

    def _events(self, portions: Sequence[Portion]) -> pl.DataFrame:
        frames = [
            intake.frame.with_columns(topic_partition=pl.lit(portion.partition, pl.UInt16))
            for portion in portions
            for intake in portion.intakes
        ]
        return pl.concat(frames)

    def _first(self, events: pl.DataFrame, portions: Sequence[Portion], settled: Callable[[], object]) -> pl.Series:
        if self._seen is None:
            return pl.Series([True]).new_from_index(0, events.height)
        before = {portion.partition: portion.first for portion in portions}

        def load(minutes: list[Minute]) -> pl.DataFrame:
            return self._ledger.identities(minutes, before)

        return self._seen.first(events, load, settled)

    def _rejects(self, portions: Sequence[Portion]) -> pl.DataFrame:
        frames = [
            intake.rejects.with_columns(topic_partition=pl.lit(portion.partition, pl.UInt16))
            for portion in portions
            for intake in portion.intakes
        ]
        return pl.concat(frames).select(pl.lit(self._type.topic).alias("topic"), pl.all())

    def _rollups(self, accepted: pl.DataFrame, portions: Sequence[Portion]) -> dict[str, pl.DataFrame]:
        """Step 3: without the months' events that an unfinished flush of before has rolled up already."""
        upto = [
            (table, portion.partition, month, last)
            for portion in portions
            for (table, month), last in portion.position.upto.items()
            if last >= portion.first
        ]
        if not upto:
            rollups = roll_up(self._type.name, accepted)
        else:
            landed = pl.DataFrame(
                upto,
                schema={"table": pl.String, "topic_partition": pl.UInt16, "month": pl.Int64, "landed": pl.Int64},
                orient="row",
            )
            rollups = {
                table: roll_up(self._type.name, _beyond(accepted, landed.filter(pl.col("table") == table)))[table]
                for table in roll_up(self._type.name, accepted.clear())
            }
        last = pl.DataFrame(
            {
                "topic_partition": pl.Series([portion.partition for portion in portions], dtype=pl.UInt16),
                "upto": pl.Series([portion.last for portion in portions], dtype=pl.Int64),
            }
        )
        return {table: rows.join(last, on="topic_partition") for table, rows in rollups.items()}


def _beyond(accepted: pl.DataFrame, landed: pl.DataFrame) -> pl.DataFrame:
    month = (pl.col("time").dt.year().cast(pl.Int64) * 100 + pl.col("time").dt.month()).alias("month")
    return (
        accepted.with_columns(month)
        .join(landed, on=["topic_partition", "month"], how="left")
        .filter(pl.col("landed").is_null() | (pl.col("offset") > pl.col("landed")))
        .select(accepted.columns)
    )


def _without(rows: pl.DataFrame, portions: Sequence[Portion], which: str) -> pl.DataFrame:
    """The rows whose (offset, place) is not there from an unfinished flush of before."""
    there = [
        getattr(portion.position, which).with_columns(topic_partition=pl.lit(portion.partition, pl.UInt16))
        for portion in portions
        if not getattr(portion.position, which).is_empty()
    ]
    return rows.join(pl.concat(there), on=_KEY, how="anti", maintain_order="left") if there else rows


def _inserts(rejects: pl.DataFrame) -> list[pl.DataFrame]:
    """Pieces of about ``DEAD_BYTES``, in order."""
    sizes = pl.sum_horizontal(pl.col("payload", "key").bin.size(), pl.col("reason", "detail").str.len_bytes())
    number = sizes.cast(pl.Int64).cum_sum() // DEAD_BYTES
    return rejects.with_columns(number.alias("insert")).partition_by("insert", maintain_order=True, include_key=False)


def _ranges(
    portions: Sequence[Portion], events: pl.DataFrame, accepted: pl.DataFrame, rejects: pl.DataFrame
) -> list[Range]:
    # A filter copies all columns that it is given, of two partitions each twice.
    found, written, refused = (frame.select("topic_partition") for frame in (events, accepted, rejects))
    identities = accepted.select("topic_partition", "identity_lo")
    ranges: list[Range] = []
    for portion in portions:
        of_it = pl.col("topic_partition") == portion.partition
        counts = [frame.filter(of_it).height for frame in (found, written, refused)]
        ranges.append(
            Range(
                partition=portion.partition,
                first=portion.first,
                last=portion.last,
                messages=sum(intake.messages for intake in portion.intakes),
                events=counts[0] + counts[2],
                rows=counts[1],
                duplicates=counts[0] - counts[1],
                rejects=counts[2],
                checksum=checksum(identities.filter(of_it)),
                arrived_ms=portion.arrived_ms,
            )
        )
    return ranges
