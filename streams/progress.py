"""What the sink of a topic did so far, and how its partitions stand: where each is, what waits, and for how long. Pure.

Times are those of the event loop's clock, in seconds.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from streams.polled import Run


@dataclass
class Standing:
    """How one partition stands that this worker is assigned."""

    since: float
    """When its position last moved, or nothing waited, or it became ours: whichever was last."""
    position: int | None = None
    """The end of its done ranges; None until it is taken for the first time."""
    end: int = 0
    """The end of its log, as Kafka told last."""
    run: Run | None = None
    """Its reading, or how far the last one came."""

    @property
    def lag(self) -> int | None:
        """Offsets of the log that wait; None where the position isn't known."""
        return None if self.position is None else max(0, self.end - self._reached)

    @property
    def waits(self) -> bool:
        """Whether the log holds something that isn't done."""
        return self.end > self._reached

    def still_seconds(self, now: float) -> float:
        """For how long its position has not moved while something waited; 0 where nothing waits."""
        return now - self.since if self.waits else 0.0

    @property
    def _reached(self) -> int:
        # Behind the last record there may be offsets that hold none, such as the end of a transaction: once the
        # fetcher is past them nothing waits, though the position never comes there.
        if self.run is not None and self.run.position == self.position:
            return self.run.fetched
        return self.position or 0


@dataclass
class Progress:
    """Counts since the worker started, and the partitions that are its own now."""

    messages: int = 0
    events: int = 0
    rows: int = 0
    duplicates: int = 0
    rejects: int = 0
    flushes: int = 0
    takes: int = 0
    troubles: int = 0
    audits: int = 0
    differences: int = 0
    mended: int = 0
    partitions: dict[int, Standing] = field(default_factory=dict)
    halted: dict[int, str] = field(default_factory=dict)
    """By partition: why it is left alone until somebody looks."""
    _before: dict[int, Standing] = field(default_factory=dict)

    @property
    def positions(self) -> dict[int, int]:
        """By partition: the end of the done ranges, where it is known."""
        return {number: one.position for number, one in self.partitions.items() if one.position is not None}

    def assigned(self, partitions: Collection[int], now: float) -> None:
        """These are ours. One that stayed ours over the rebalance goes on standing still, if it did."""
        known = self._before | self.partitions
        self.partitions = {number: known.get(number) or Standing(now) for number in partitions}
        self._before = {}
        self.halted = {}

    def revoked(self) -> None:
        """Nothing is ours until the next assignment."""
        self._before, self.partitions, self.halted = self.partitions, {}, {}

    def reached(self, partition: int, position: int, now: float, run: Run | None = None) -> None:
        """A partition is done up to there, or was found so by a take, which gives its ``run``: that moves nothing."""
        one = self.partitions.get(partition)
        if one is None:  # what was still being written when it was lost
            return
        if one.position != position:
            one.position, one.since = position, now
        one.run = run or one.run

    def look(self, ends: Mapping[int, int], now: float) -> None:
        """Kafka was asked where the logs end; one that it didn't tell is taken to end where it did."""
        for number, one in self.partitions.items():
            if not one.waits:  # by what was known until now: what is new in the log waits from now on
                one.since = now
            one.end = ends.get(number, one.end)

    def standing_still(self, now: float, limit_seconds: float) -> dict[int, str]:
        """Why, by partition that something waits in and whose position has not moved for longer than the limit."""
        return {
            number: _why(one, still)
            for number, one in self.partitions.items()
            if (still := one.still_seconds(now)) > limit_seconds and number not in self.halted
        }


def _why(one: Standing, still: float) -> str:
    if one.position is None:
        return f"could not be taken for {still:.0f} s: see in the worker's log what does not answer"
    return f"{one.lag} offsets wait at {one.position}, where it has stood for {still:.0f} s: the worker's log says why"
