"""The two measurements of a variant: at full speed on a filled log, and at a part of it beside a live producer."""

import json
import sys
from dataclasses import dataclass, field
from typing import Any

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
WARM_SECONDS, SETTLE_SECONDS, LOAD_SECONDS = 3.0, 3.0, 20.0
"""Before all loads, until what was sent then can be queried; before each of them; and at it."""
CATCH_UP_SECONDS = 120.0
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
    ground.renew_log()
    rates = [maximum * load / 100 for load in LOADS]
    with ground.running(variant) as looks:
        warm = _fed(ground, looks, [(rates[0], WARM_SECONDS)], 0, progress)
        sent = _fed(ground, looks, [(rate, SETTLE_SECONDS + LOAD_SECONDS) for rate in rates], warm["sent"], progress)
        ground.check(variant, tuple(a + b for a, b in zip(warm["totals"], sent["totals"], strict=True)))
    arrivals = [*warm["arrivals"], *sent["arrivals"]]
    found: dict[int, AtLoad] = {}
    seen = [(look.at, look.rows) for look in looks.seen]
    for load, (_, end) in zip(LOADS, sent["stages"], strict=True):
        begin = end - LOAD_SECONDS
        stretch = looks.during(begin, end)
        p50, p99 = freshness(arrivals, seen, begin, end)
        found[load] = AtLoad(stretch.events_per_s, stretch.cpu_s_per_million, stretch.peak_mb, p50, p99)
    return found


def _fed(
    ground: Ground, looks: Looks, stages: list[tuple[float, float]], first: int, progress: Progress
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
        ground.look_until(looks, ended, LONGEST_SECONDS)
    finally:
        stop(feeder)
    if feeder.returncode:
        raise WattStreamError(f"its producer failed: {tail(ground.settings.home / 'logs' / 'feeder.log')}")
    sent: dict[str, Any] = json.loads(told.read_text())
    ground.look_until(looks, lambda: looks.rows >= before + sent["totals"][0], CATCH_UP_SECONDS)
    return sent
