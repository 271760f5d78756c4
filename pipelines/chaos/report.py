"""What a run of faults found: each round, the times of recovery by kind, and what verify counted."""

import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Round:
    """One fault: when, to which process, and how long from its end until events were fresh again."""

    fault: str
    part: str
    after_seconds: float
    recovery_seconds: float


@dataclass(frozen=True)
class Recovery:
    """Of one kind of fault: how often, and the seconds from its end until events were fresh again."""

    fault: str
    times: int
    p50_s: float
    max_s: float


@dataclass(frozen=True)
class Anew:
    """A topic that was deleted and made anew: the seconds until all its partitions, and no others, were halted."""

    topic: str
    halted_after_s: float


@dataclass
class Report:
    """What was done and what was found."""

    seed: int
    events: int = 0
    lost: int = 0
    twice: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Kinds of faults that this machine can't have, and why."""
    worker_peak_mb: float = 0.0
    """The most memory that a worker ever held, of those that were alive at the end of a round."""
    anew: Anew | None = None
    """What came after the last round."""

    @property
    def holds(self) -> bool:
        """Nothing lost, nothing twice, no account that disagrees."""
        return not (self.lost or self.twice or self.differences)

    @property
    def worker_p50_s(self) -> float | None:
        """The median recovery over all rounds whose fault was a worker's, s."""
        of_workers = [done.recovery_seconds for done in self.rounds if done.part.startswith("worker")]
        return statistics.median(of_workers) if of_workers else None

    @property
    def recoveries(self) -> list[Recovery]:
        """One of each kind of fault, in the order in which they first came."""
        seconds: dict[str, list[float]] = {}
        for done in self.rounds:
            seconds.setdefault(done.fault, []).append(done.recovery_seconds)
        return [Recovery(name, len(of), statistics.median(of), max(of)) for name, of in seconds.items()]
