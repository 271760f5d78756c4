"""What one poll of one partition brought: the unit in which records travel from the transport to the sink."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Run:
    """One start of a partition at one position; what an earlier start still sends is stale."""

    topic: str
    partition: int
    position: int
    """The offset after the last record that was read."""
    fetched: int = field(init=False)
    """Where the fetcher is: behind the position only by offsets without a record."""
    open: bool = True
    """Closed, nothing is fetched: how the sink holds back the log when ClickHouse is slow."""

    def __post_init__(self) -> None:
        self.fetched = self.position


@dataclass(frozen=True)
class Polled:
    """The records of one partition in one poll, as parallel lists; ``offsets`` rise but may have gaps."""

    run: Run
    expected: int
    """The position before this poll: the chain of polls is whole where it equals the last one's end."""
    values: list[bytes | None]
    keys: list[bytes | None]
    content_types: list[bytes | None]
    offsets: list[int]
    arrived: list[int]
    """Arrival of each record at the broker (LogAppendTime), milliseconds since 1970."""
    bytes: int = field(default=0)
    """Size of the values."""

    @classmethod
    def joined(cls, polls: "Sequence[Polled]") -> "Polled":
        """Polls of one run that follow each other, as one."""
        return cls(
            run=polls[0].run,
            expected=polls[0].expected,
            values=[value for polled in polls for value in polled.values],
            keys=[key for polled in polls for key in polled.keys],
            content_types=[kind for polled in polls for kind in polled.content_types],
            offsets=[offset for polled in polls for offset in polled.offsets],
            arrived=[arrived for polled in polls for arrived in polled.arrived],
            bytes=sum(polled.bytes for polled in polls),
        )

    @property
    def last(self) -> int:
        """The last offset in it."""
        return self.offsets[-1]
