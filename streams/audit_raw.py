# ruff: noqa: S608 (names are ours, values are bound by the server)
"""Done ranges counted again: the raw rows of one partition against the ledger, and mended.

- A row that is missing is read again from the log, decoded, and appended.
- A row that is there twice: one copy is deleted by its place in its part (``_part``, ``_part_offset``), which a
  lightweight delete hides at once. Part names are never used twice, so a delete that comes late, after a merge,
  finds nothing; and it deletes nothing where the claim is no longer the highest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
from clickhouse_connect.driver.client import Client

from schemas.errors import WattStreamError
from schemas.events import EventType
from streams.intake import keyed
from streams.ledger import Claim, Ledger, tag
from streams.polled import Polled

# Ranges asked of the ledger at once.
_RANGES = 1000
# Rows counted at once where all are: 64 MB for their positions.
_PIECE_ROWS = 2_000_000

_LOW = "reinterpretAsUInt64(reverse(substring(identity, 9, 8)))"
_HERE = "topic_partition = {partition:UInt16} AND offset >= {first:Int64} AND offset <= {last:Int64}"


@dataclass(frozen=True)
class Difference:
    """What was found different, in rows or samples, and whether it is mended."""

    partition: int
    subject: str
    expected: int
    present: int
    mended: bool
    detail: str


@dataclass(frozen=True)
class Look:
    """What an audit looks at: one partition that is held, up to the end of its done ranges."""

    event_type: EventType
    client: Client
    ledger: Ledger
    claim: Claim
    end: int
    expiry: str | None
    """When a raw row expires, as SQL over its columns; None: never."""
    read: Callable[[int, int, int], Polled]
    """Reads (partition, first offset, last offset) again from the log."""
    dedupe: bool

    @property
    def partition(self) -> int:
        """The topic partition."""
        return self.claim.partition


@dataclass(frozen=True)
class _Range:
    first: int
    last: int
    rows: int
    checksum: int


class RawAudit:
    """Holds the raw rows of a partition against the ledger."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._table = look.event_type.name

    def ranges(self, first: int, budget: int) -> tuple[int, list[Difference]]:
        """Count the done ranges from ``first`` on, up to about ``budget`` rows; where to go on, and what differed."""
        ranges, after = self._ranges(first, budget)
        return after, self._differing(ranges)

    def all(self) -> list[Difference]:
        """Count all done ranges; what differed."""
        found: list[Difference] = []
        at = 0
        while at < self._look.end:
            at, differences = self.ranges(at, _PIECE_ROWS)
            found += differences
        return found

    def _ranges(self, first: int, budget: int) -> tuple[list[_Range], int]:
        """Ranges of which nothing has expired, and the offset after them."""
        # The first message of a range arrived no earlier than the last one of the range before.
        expired = f"({self._look.expiry}) <= now()" if self._look.expiry else "0"
        rows = self._look.client.query(
            f"SELECT first, last, rows, checksum, {expired} FROM ingest_ranges WHERE topic = {{topic:String}} "
            "AND topic_partition = {partition:UInt16} AND first >= {first:Int64} AND last < {end:Int64} "
            "ORDER BY first LIMIT {limit:UInt32}",
            parameters={
                "topic": self._look.event_type.topic,
                "partition": self._look.partition,
                "first": first,
                "end": self._look.end,
                "limit": _RANGES,
            },
        ).result_rows
        taken: list[_Range] = []
        after, counted, older = first, 0, bool(self._look.expiry)
        for start, last, count, checksum, gone in rows:
            if not older:
                taken.append(_Range(start, last, count, checksum))
            older = bool(gone)
            after = last + 1
            counted += count
            if counted >= budget:
                return taken, after
        return taken, after if len(rows) == _RANGES else self._look.end

    def _differing(self, ranges: list[_Range]) -> list[Difference]:
        """Halved until single ranges are left that differ."""
        if not ranges or self._count(ranges[0].first, ranges[-1].last) == _expected(ranges):
            return []
        if len(ranges) == 1:
            return [self._mend_range(ranges[0])]
        half = len(ranges) // 2
        return self._differing(ranges[:half]) + self._differing(ranges[half:])

    def _count(self, first: int, last: int) -> tuple[int, int, int]:
        """(rows, distinct positions, checksum) of the raw table."""
        rows, distinct, checksum = self._look.client.query(
            f"SELECT count(), uniqExact(offset, place), sum({_LOW}) FROM {self._table} WHERE {_HERE}",
            parameters=self._bound(first, last),
        ).result_rows[0]
        return rows, distinct, checksum

    def _mend_range(self, of: _Range) -> Difference:
        count, distinct, _ = before = self._count(of.first, of.last)
        expected = _expected([of])
        detail = f"offsets {of.first} to {of.last}: {count - distinct} rows twice, {of.rows - distinct} missing"
        if before[:2] == expected[:2]:
            detail += "; their checksum differs"
        if distinct < of.rows:
            try:
                self._append_missing(of)
            except WattStreamError as error:  # the log has them no more
                detail += f"; {error}"
        if count > distinct:
            self._delete_doubles(of)
        after = self._count(of.first, of.last)
        return Difference(self._look.partition, self._table, of.rows, count, after == expected, detail)

    def _delete_doubles(self, of: _Range) -> None:
        unfinished = self._look.client.query(
            "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND table = {table:String} "
            "AND NOT is_done",
            parameters={"table": self._table},
        ).result_rows[0][0]
        if unfinished:
            return  # it may be a delete like ours: look again when it is done
        copies = self._look.client.query(
            "SELECT _part, _part_offset FROM (SELECT _part, _part_offset, "
            "row_number() OVER (PARTITION BY offset, place, identity ORDER BY _part, _part_offset) AS copy "
            f"FROM {self._table} WHERE {_HERE}) WHERE copy > 1",
            parameters=self._bound(of.first, of.last),
        ).result_rows
        claim = self._look.claim
        for start in range(0, len(copies), 1000):
            places = ", ".join(f"('{part}', {offset})" for part, offset in copies[start : start + 1000])
            self._look.client.command(
                f"DELETE FROM {self._table} WHERE (_part, _part_offset) IN ({places}) "
                f"AND (SELECT max((epoch, owner)) FROM claims WHERE topic = '{claim.topic}' "
                f"AND topic_partition = {claim.partition}) = ({claim.epoch}, toUUID('{claim.owner}'))",
                # A replica would refuse the look at the claims: each decides for itself. Here one decides.
                settings={
                    "allow_nondeterministic_mutations": 1,
                    "lightweight_deletes_sync": 2,
                    "log_comment": tag(self._look.event_type.topic, [self._look.partition]),
                },
            )

    def _append_missing(self, of: _Range) -> None:
        """What the log holds of the range and raw doesn't; never an identity that raw has anywhere."""
        intake = keyed(self._look.event_type, self._look.read(self._look.partition, of.first, of.last))
        events = intake.frame.with_columns(topic_partition=pl.lit(self._look.partition, pl.UInt16))
        if self._look.dedupe:
            events = events.unique(["identity_hi", "identity_lo"], keep="first", maintain_order=True)
        there = self._look.client.query_arrow(
            f"SELECT offset, place FROM {self._table} WHERE {_HERE}", parameters=self._bound(of.first, of.last)
        )
        positions = pl.DataFrame(pl.from_arrow(there)).cast({"offset": pl.Int64, "place": pl.UInt32})
        missing = events.join(positions, on=["offset", "place"], how="anti")
        if self._look.dedupe and not missing.is_empty():
            minutes = missing.select(pl.col("time").dt.epoch("s").floordiv(60)).to_series().unique()
            known = self._look.ledger.identities(
                [(self._look.partition, m) for m in minutes], {self._look.partition: 2**63 - 1}
            )
            missing = missing.join(known, on=["identity_hi", "identity_lo"], how="anti")
        self._look.ledger.insert([self._look.claim], self._table, missing)

    def minutes(self, first: int, last: int) -> list[int]:
        """The minutes (since 1970) of event time that the rows of these offsets are in, sorted."""
        rows = self._look.client.query(
            f"SELECT DISTINCT toInt64(intDiv(toUnixTimestamp(time), 60)) AS m FROM {self._table} WHERE {_HERE} "
            "ORDER BY m",
            parameters=self._bound(first, last),
        ).result_rows
        return [minute for (minute,) in rows]

    def _bound(self, first: int, last: int) -> dict[str, int]:
        return {"partition": self._look.partition, "first": first, "last": last}


def _expected(ranges: Sequence[_Range]) -> tuple[int, int, int]:
    rows = sum(of.rows for of in ranges)
    return rows, rows, sum(of.checksum for of in ranges) % 2**64
