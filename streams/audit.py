"""Closed ranges are counted again, for ever: raw rows against the ledger, rollups against raw.

New ranges are audited once, soon after they are done; all of history is swept over slowly, a bounded piece a round.
What differs is told (a row of ``audits``, a line in the log, a metric) and mended so that no reader sees a hole.

Runs between flushes of its topic, in the same thread of control, and every write carries the claim; an insert that
may still run means taking the partitions again, as for a flush.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import polars as pl
from clickhouse_connect.driver.client import Client

from schemas.events import EventType
from schemas.tables import ROLLUPS, expiry_of
from streams.audit_raw import Difference, Look, RawAudit
from streams.audit_rollups import RollupAudit
from streams.ledger import Claim, Ledger
from streams.polled import Polled

# Bounds of a round: rows of new ranges and of old ones, and the time given to hours of the rollups. Counting a million
# rows takes 0.1 s.
NEW_ROWS = 2_000_000
OLD_ROWS = 200_000
SWEEP_SECONDS = 0.5
# Of a turn; then a flush that is due has its own. A round in one go took a second of two busy cores once a minute, and
# the events of that second could be queried after 2.4 s instead of 1.5.
TURN_SECONDS = 0.1

Step = Callable[[Look], list[Difference]]
"""A look at one partition; what it found."""


class Turn(NamedTuple):
    """What a turn found, and whether its round over the partitions is whole."""

    found: list[Difference]
    whole: bool


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
    _held: dict[int, Look] = field(default_factory=dict)
    """By partition, as of the turn."""
    _round: Iterator[list[Difference]] | None = None
    """The one that is begun."""

    @cached_property
    def _client(self) -> Client:
        return self.connect()

    def run(self, claims: Mapping[int, Claim], ends: Mapping[int, int]) -> Turn:
        """The next steps of a round over the partitions held, for about ``TURN_SECONDS``.

        ``ends``: the end of each one's done ranges.

        :raises Lost: a partition is no longer ours.
        """
        expiry = self._expiry()
        self._held = {
            partition: Look(
                self.event_type, self._client, self.ledger, claim, ends[partition], expiry, self.read, self.dedupe
            )
            for partition, claim in claims.items()
        }
        round_, self._round = self._round or self._whole_round(), None  # one that raises is over
        found: list[Difference] = []
        until = time.monotonic() + TURN_SECONDS
        for differences in round_:
            found += differences
            if time.monotonic() >= until:
                self._round = round_
                return Turn(found, whole=False)
        return Turn(found, whole=True)

    def _whole_round(self) -> Iterator[list[Difference]]:
        """Step by step, each on what is held by then: flushes come between."""
        for partition, first in list(self._held.items()):
            for step in self._steps(self._at.setdefault(partition, _Progress(new=first.end))):
                look = self._held.get(partition)
                if look is None:
                    break
                found = step(look)
                self._tell(look.claim, found)
                yield found

    def _steps(self, at: _Progress) -> Iterator[Step]:
        """Of one partition: new ranges and their minutes, a piece of the old ones, hours of the rollups."""
        rollups = ROLLUPS.get(self.event_type.name, ())
        after, minutes, left = at.new, list[int](), SWEEP_SECONDS

        def new(look: Look) -> list[Difference]:
            nonlocal after, minutes
            raw = RawAudit(look)
            after, found = raw.ranges(at.new, NEW_ROWS)
            minutes = raw.minutes(at.new, after - 1) if after > at.new else []
            return found

        def old(look: Look) -> list[Difference]:
            at.old, found = RawAudit(look).ranges(at.old if at.old < look.end else 0, OLD_ROWS)
            return found

        def next_hour(look: Look) -> list[Difference]:
            at.hour = RollupAudit(look, self._left).next_hour(rollups, at.hour or 0)
            return []

        def compared(rollup: str, of: Sequence[int]) -> Step:
            return lambda look: RollupAudit(look, self._left).minutes(rollup, of)

        def timed(step: Step) -> Step:
            def run(look: Look) -> list[Difference]:
                nonlocal left
                begin = time.monotonic()
                found = step(look)
                left -= time.monotonic() - begin
                return found

            return run

        yield new
        for rollup in rollups:
            yield compared(rollup, minutes)
        at.new = after
        yield old
        while rollups and left > 0:
            yield timed(next_hour)
            if at.hour is None:
                break
            for rollup in rollups:
                yield timed(compared(rollup, range(at.hour * 60, at.hour * 60 + 60)))
            at.hour += 1

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
