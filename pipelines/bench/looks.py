"""What could be queried when, and what it had cost by then: one look after the other while a variant runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil
from clickhouse_connect.driver.client import Client

from pipelines.bench.variants import Variant
from schemas.errors import WattStreamError

# A look costs the server 3 ms; of system.parts 4.6, and more the more there are.
LOOK_SECONDS = 0.1
STEADY = (0.15, 0.85)
FEWEST_LOOKS = 3

_COUNTED = {
    "parts": "SELECT count() FROM {table:Identifier}",
    "ledger": "SELECT sum(rows) FROM ingest_ranges WHERE topic = {topic:String}",
}


@dataclass(frozen=True)
class Look:
    """At one moment (Unix s): events that can be queried, CPU seconds so far by process, the worker's memory."""

    at: float
    rows: int
    cpu: dict[str, float]
    worker_bytes: int


@dataclass(frozen=True)
class Stretch:
    """What was measured between two looks."""

    events_per_s: float
    cpu_s_per_million: dict[str, float]
    peak_mb: float

    @property
    def cpu_s(self) -> float:
        """CPU seconds a million events of all processes together."""
        return sum(self.cpu_s_per_million.values())

    @property
    def reading_cpu_s(self) -> float:
        """The same without the broker, which a live producer keeps busy too."""
        return self.cpu_s_per_million["worker"] + self.cpu_s_per_million["server"]


@dataclass
class Looks:
    """Looks at one run; ``processes`` by part: worker, broker, server."""

    client: Client
    variant: Variant
    processes: dict[str, Sequence[psutil.Process]]
    seen: list[Look] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Events that could be queried at the last look."""
        return self.seen[-1].rows if self.seen else 0

    def look(self) -> None:
        """One more.

        :raises psutil.NoSuchProcess: a process has ended.
        """
        event_type = self.variant.load.event_type
        named = {"table": event_type.name, "topic": event_type.topic}
        found = self.client.query(_COUNTED[self.variant.counted], parameters=named).result_rows
        cpu = {part: sum(sum(one.cpu_times()[:2]) for one in of) for part, of in self.processes.items()}
        memory = sum(one.memory_info().rss for one in self.processes["worker"])
        self.seen.append(Look(time.time(), int(found[0][0] or 0), cpu, memory))

    @property
    def peak_mb(self) -> float:
        """Most memory of the worker, MB."""
        return max(look.worker_bytes for look in self.seen) / 1e6

    def steady(self) -> Stretch:
        """Between ``STEADY`` shares of the rows, at looks that found more than the one before.

        Neither start-up counts, nor the filling of the queues, nor their emptying at the end of the log: a variant that
        holds a million rows in memory would otherwise be given those for nothing.

        :raises WattStreamError: where there were too few events to tell.
        """
        steps = [b for a, b in zip(self.seen, self.seen[1:], strict=False) if b.rows > a.rows]
        first, last = (share * self.rows for share in STEADY)
        steady = [step for step in steps if first <= step.rows <= last]
        if len(steady) < FEWEST_LOOKS:
            raise WattStreamError(f"{self.rows:,} events became visible in {len(steps)} steps: give it more (--events)")
        return self._between(steady)

    def during(self, begin: float, end: float) -> Stretch:
        """Between two times (Unix s).

        :raises WattStreamError: where nothing became visible then.
        """
        return self._between([look for look in self.seen if begin <= look.at <= end])

    def _between(self, looks: list[Look]) -> Stretch:
        if not looks or looks[0].rows == looks[-1].rows:
            raise WattStreamError("no event became visible in the stretch that was to be measured: give it more time")
        a, b = looks[0], looks[-1]
        million = (b.rows - a.rows) / 1e6
        return Stretch(
            events_per_s=(b.rows - a.rows) / (b.at - a.at),
            cpu_s_per_million={part: (b.cpu[part] - a.cpu[part]) / million for part in b.cpu},
            peak_mb=max(look.worker_bytes for look in looks) / 1e6,
        )
