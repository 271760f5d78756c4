"""What is done to a stack, and in which order: every kind as often as every other."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.settings import Settings

STEPS = ("after-claim", "before-raw", "before-rollups", "before-done")
"""Where a worker's fail points are, in their order (streams.failpoints)."""


@dataclass(frozen=True)
class Fault:
    """What is done to a part: stopped for some seconds and woken, asked to end, or killed; or to the disk."""

    name: str
    part: str
    sleeps_seconds: float = 0.0
    asked: bool = False
    """By SIGTERM: it leaves its group, as in an upgrade."""
    away_seconds: float = 0.0
    """Killed, and started again only then."""
    failpoint: str = ""
    """Killed, and when it is back killed again by itself at this step of a flush."""
    writing: bool = False
    """Killed while an insert runs in it."""
    full_seconds: float = 0.0
    """No byte is free on the disk of the whole stack, Kafka's log and ClickHouse's tables alike."""


def faults(settings: Settings, *, own_disk: bool) -> list[Fault]:
    """One of each kind; sleeps reach past the time-outs that these settings give.

    ``own_disk``: the stack has a file system of its own, which may be filled.
    """
    group, client = settings.group_timeout_seconds, settings.clickhouse_timeout_seconds
    return [
        Fault("worker killed", "worker"),
        Fault("server killed", "clickhouse"),
        Fault("broker killed", "kafka"),
        Fault("worker asleep past its group's time-out", "worker", 1.5 * group),
        Fault("worker asleep past three time-outs", "worker", 3.5 * group),
        Fault("server asleep past its clients' time-out", "clickhouse", 1.5 * client),
        Fault("worker leaves and joins again", "worker", asked=True),
        Fault("server killed while it writes", "clickhouse", writing=True),
        Fault("server away for a minute", "clickhouse", away_seconds=60.0),
        *(Fault(f"worker killed {step.replace('-', ' ')}", "worker", failpoint=step) for step in STEPS),
        *([Fault("disk full", "disk", full_seconds=20.0)] if own_disk else []),
    ]


def planned(kinds: Sequence[Fault], rounds: int, moments: random.Random) -> Iterator[Fault]:
    """Every kind as often as every other, in random order."""
    left: list[Fault] = []
    for _ in range(rounds):
        if not left:
            left = moments.sample(list(kinds), len(kinds))
        yield left.pop()
