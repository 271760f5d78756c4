"""The measurements of a variant: at full speed on a filled log, and at a part of it beside a live producer."""

import json
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.bench.freshness import freshness
from pipelines.bench.ground import Ground
from pipelines.bench.looks import Looks, Stretch
from pipelines.bench.variants import Variant
from pipelines.local.parts import settings_environment
from pipelines.local.processes import spawn, stop, tail
from schemas.errors import WattStreamError
from schemas.progress import Progress

LONGEST_SECONDS = 300.0
LOADS = (30, 70)
"""Per cent of its own maximum."""
WARM_SECONDS, SETTLE_SECONDS, LOAD_SECONDS, TAIL_SECONDS = 3.0, 3.0, 20.0, 3.0
"""Before all loads, until what was sent then can be queried; before each of them; at it; and still at it, uncounted:
the last second's events, a twentieth of all, become visible beside the next load (p99 4.3 s for 1.5)."""
CATCH_UP_SECONDS = 120.0
SOAK_LOAD = 70
SOAK_WARM_SHARE = 1 / 6
"""Of a soak, before its memory's slope is taken: until then caches and queues fill."""
SLOPE_SECONDS = 600.0
STEP = "events of this run"


@dataclass(frozen=True)
class FullSpeed(Stretch):
    """One run on a filled log. Peak memory is of the whole run."""

    steps_s_per_million: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AtLoad(Stretch):
    """A stretch at that share of its maximum. Seconds from arrival in the broker until an event can be queried."""

    freshness_p50_s: float
    freshness_p99_s: float


@dataclass(frozen=True)
class Soak(AtLoad):
    """A long stretch at ``SOAK_LOAD`` per cent; ``memory_slope``: gained in 10 minutes, as a share of the mean."""

    seconds: float
    memory_slope: float


def full_speed(variant: Variant, ground: Ground, expected: tuple[int, ...], progress: Progress) -> FullSpeed:
    """Read the whole log.

    :raises WattStreamError: it ended, took too long, or wrote something else than was sent.
    """
    wanted = expected[0]
    with ground.running(variant) as looks:

        def done() -> bool:
            progress(STEP, looks.rows, wanted)
            return looks.rows >= wanted

        ground.look_until(looks, done, LONGEST_SECONDS)
        ground.check(variant, expected)
    steady, steps = looks.steady(), ground.steps(variant)
    return FullSpeed(
        steady.events_per_s,
        steady.cpu_s_per_million,
        looks.peak_mb,
        {step: seconds / wanted * 1e6 for step, seconds in steps.items()},
    )


def at_loads(variant: Variant, ground: Ground, maximum: float, progress: Progress) -> dict[int, AtLoad]:
    """Beside a producer that sends at ``LOADS`` per cent of its maximum (events a second), from an empty log on.

    :raises WattStreamError: it ended, did not keep up, or wrote something else than was sent.
    """
    rates = [maximum * load / 100 for load in LOADS]
    looks, ends, arrivals = _beside(
        variant, ground, [(rate, SETTLE_SECONDS + LOAD_SECONDS + TAIL_SECONDS) for rate in rates], progress
    )
    ends = [end - TAIL_SECONDS for end in ends]
    return {load: _stretch(looks, arrivals, end - LOAD_SECONDS, end) for load, end in zip(LOADS, ends, strict=True)}


def soak(variant: Variant, ground: Ground, maximum: float, seconds: float, progress: Progress) -> Soak:
    """Beside a producer that sends at ``SOAK_LOAD`` per cent of its maximum (events a second) for so long.

    Where the producer takes what the variant would need to keep up, its memory is that of full speed, and its events
    are as old as they say.

    :raises WattStreamError: it ended, was not done after twice that time, or wrote something else than was sent.
    """
    stages = [(maximum * SOAK_LOAD / 100, seconds)]
    looks, (end,), arrivals = _beside(variant, ground, stages, progress, CATCH_UP_SECONDS + seconds)
    begin = end - (1 - SOAK_WARM_SHARE) * seconds
    known = [(look.at - begin, look.worker_bytes) for look in looks.seen if begin <= look.at <= end]
    times, memory = np.array(known, float).T
    slope = np.polyfit(times, memory, 1)[0] * SLOPE_SECONDS / memory.mean()
    return Soak(**vars(_stretch(looks, arrivals, begin, end)), seconds=seconds, memory_slope=float(slope))


def _beside(
    variant: Variant,
    ground: Ground,
    stages: list[tuple[float, float]],
    progress: Progress,
    catch_up_seconds: float = CATCH_UP_SECONDS,
) -> tuple[Looks, list[float], list[tuple[int, int]]]:
    """Run beside a producer of these stages of (events a second, seconds), once what a first one sent can be queried.

    Returns the looks, when each stage ended (Unix s), and how many events the broker took at which ms.
    """
    ground.renew_log()
    with ground.running(variant) as looks:
        warm = _fed(ground, looks, [(stages[0][0], WARM_SECONDS)], 0, progress, CATCH_UP_SECONDS)
        sent = _fed(ground, looks, stages, warm["sent"], progress, catch_up_seconds)
        ground.check(variant, tuple(a + b for a, b in zip(warm["totals"], sent["totals"], strict=True)))
    return looks, [end for _, end in sent["stages"]], [*warm["arrivals"], *sent["arrivals"]]


def _stretch(looks: Looks, arrivals: list[tuple[int, int]], begin: float, end: float) -> AtLoad:
    fresh = freshness(arrivals, [(look.at, look.rows) for look in looks.seen], begin, end)
    return AtLoad(**vars(looks.during(begin, end)), freshness_p50_s=fresh[0], freshness_p99_s=fresh[1])


def _fed(
    ground: Ground,
    looks: Looks,
    stages: list[tuple[float, float]],
    first: int,
    progress: Progress,
    catch_up_seconds: float,
) -> dict[str, Any]:
    """Run a producer through these stages of (events a second, seconds), until all that it sent can be queried.

    Returns what it says at its end; its events are numbered from ``first`` on.
    """
    told = ground.settings.home / "fed.json"
    words = [looks.variant.load_name, json.dumps(stages), str(first), str(told)]
    command = [sys.executable, "-m", "pipelines.bench.feeder", *words]
    wanted = looks.rows + int(sum(rate * seconds for rate, seconds in stages))
    feeder = spawn("feeder", command, home=ground.settings.home, env=settings_environment(ground.settings))

    def ended() -> bool:
        progress(STEP, looks.rows, wanted)
        return feeder.poll() is not None

    before = looks.rows
    try:
        ground.look_until(looks, ended, LONGEST_SECONDS + sum(seconds for _, seconds in stages))
    finally:
        stop(feeder)
    if feeder.returncode:
        raise WattStreamError(f"its producer failed: {tail(ground.settings.home / 'logs' / 'feeder.log')}")
    sent: dict[str, Any] = json.loads(told.read_text())
    ground.look_until(looks, lambda: looks.rows >= before + sent["totals"][0], catch_up_seconds)
    return sent
