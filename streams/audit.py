"""Closed ranges are counted again, for ever: raw rows against the ledger, rollups against raw.

New ranges are audited once, soon after they are done; all of history is swept over slowly, a bounded piece a tick. What
differs is told (a row of ``audits``, a line in the log, a metric) and mended so that no reader sees a hole.

Runs between flushes of its topic, in the same thread of control, and every write carries the claim; an insert that
may still run means taking the partitions again, as for a flush.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl
from clickhouse_connect.driver.client import Client

from schemas.events import EventType
from schemas.tables import expiry_of
from streams.audit_raw import Difference, Look, RawAudit
from streams.audit_rollups import RollupAudit
from streams.ledger import Claim, Ledger
from streams.polled import Polled

# Bounds of one tick, so that flushes wait no longer than about a second: rows of new ranges and of old ones, and the
# time given to hours of the rollups. Counting a million rows takes 0.1 s.
NEW_ROWS = 2_000_000
OLD_ROWS = 200_000
SWEEP_SECONDS = 0.5


@dataclass
class _Progress:
    """Where the audit of a partition is."""

    new: int
    """First offset of the ranges that were not audited yet."""
    old: int = 0
    """First offset of the next piece of the sweep over ranges."""
    hour: int | None = None
    """The next hour (since 1970) of the sweep over rollups; None: from the start."""


@dataclass
class Audit:
    """The audit of one topic's partitions."""

    event_type: EventType
    connect: Callable[[], Client]
    ledger: Ledger
    read: Callable[[int, int, int], Polled]
    """Reads (partition, first offset, last offset) again from the log."""
    dedupe: bool = True
    _at: dict[int, _Progress] = field(default_factory=dict)
    _left: set[tuple[int, str]] = field(default_factory=set)
    """(partition, rollup) that a mending did not mend: told, and left alone until the worker starts again."""

    @cached_property
    def _client(self) -> Client:
        return self.connect()

    def run(self, claims: Mapping[int, Claim], ends: Mapping[int, int]) -> list[Difference]:
        """One tick over the partitions held; ``ends``: the end of each one's done ranges.

        :raises Lost: a partition is no longer ours.
        """
        found: list[Difference] = []
        for partition, claim in claims.items():
            end = ends[partition]
            look = Look(self.event_type, self._client, self.ledger, claim, end, self._expiry(), self.read, self.dedupe)
            raw = RawAudit(look)
            rollups = RollupAudit(look, raw, self._left)
            at = self._at.setdefault(partition, _Progress(new=end))
            after, new = raw.ranges(at.new, NEW_ROWS)
            if after > at.new:
                new += rollups.minutes(raw.minutes(at.new, after - 1))
            at.new = after
            self._tell(claim, new)
            at.old, old = raw.ranges(at.old if at.old < end else 0, OLD_ROWS)
            self._tell(claim, old)
            at.hour, hours = rollups.hours(at.hour, SWEEP_SECONDS)
            self._tell(claim, hours)
            found += new + old + hours
        return found

    def _expiry(self) -> str | None:
        engine = self._client.query(
            "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
            parameters={"name": self.event_type.name},
        ).result_rows[0][0]
        return expiry_of(engine)

    def _tell(self, claim: Claim, found: Sequence[Difference]) -> None:
        if not found:
            return
        rows = pl.DataFrame(found).select(
            pl.lit(claim.topic).alias("topic"),
            pl.col("partition").cast(pl.UInt16).alias("topic_partition"),
            "subject",
            pl.lit(time.time_ns() // 1_000_000).cast(pl.Datetime("ms", "UTC")).alias("found"),
            "expected",
            "present",
            "mended",
            "detail",
        )
        self.ledger.insert([claim], "audits", rows)
