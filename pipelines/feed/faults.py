"""What goes wrong in the simulated network, now and then, as in a real one: the same again for the same seed.

Faults last minutes to an hour and begin at random in windows of six hours; what is late or sent twice is decided for
each batch of a site. None of it changes what an event says, except that a stuck meter repeats itself and a broken one
says NaN, which is impossible and becomes a dead letter.
"""

import numpy as np
from numpy.typing import NDArray

from pipelines.feed.noise import Reals, uniform
from pipelines.feed.plant import Plant, Times

_WINDOW_SECONDS = 6 * 3600
_SILENT_SITES = 0.02
"""Chance of a site to be silent in a window: with 47 sites one every six hours or so."""
_FAILING_METERS = 0.008
"""Chance of a meter to fail in a window: with 325 meters two or three in six hours."""
_LATE, _TWICE = 1 / 400, 1 / 300
"""Share of batches that come late, and that are sent a second time."""

_SECOND = 1_000_000_000


def silent(plant: Plant, times: Times) -> NDArray[np.bool_]:
    """Whether a site says nothing at all, shape (times, sites): for 5 to 20 minutes."""
    _, going_on, _ = _spells(plant.seed, "silent", times, len(plant.sites), _SILENT_SITES, 300, 1200)
    return going_on


def meter_faults(plant: Plant, times: Times, due: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Reals]:
    """Which readings of ``due`` (times, meters) are made, and what is read: gaps, repeats or NaN for 10 to 40 min."""
    meters = plant.meters.height
    window, going_on, began = _spells(plant.seed, "meter", times, meters, _FAILING_METERS, 600, 2400)
    watts = plant.watts(times)
    if not going_on.any():
        return due, watts
    which = uniform(plant.seed, "meter/kind", window, np.arange(meters))
    gap, stuck = going_on & (which < 0.4), going_on & (which >= 0.4) & (which < 0.8)
    broken = going_on & (which >= 0.8)
    for moment in np.unique(began[stuck]):
        at_start = plant.watts(np.array([moment], dtype=np.int64))[0]
        watts = np.where(stuck & (began == moment), at_start, watts)
    return due & ~gap, np.where(broken, np.nan, watts)


def held_back(seed: int, topic: str, sites: NDArray[np.int64], moment: int) -> Reals:
    """Seconds that each site's batch of a moment (ns) waits before it is sent: mostly 0, else 1 to 10 minutes."""
    late = uniform(seed, f"late/{topic}", sites, moment) < _LATE
    return np.where(late, 60.0 + 540.0 * uniform(seed, f"late/{topic}/time", sites, moment), 0.0)


def sent_twice(seed: int, topic: str, sites: NDArray[np.int64], moment: int) -> NDArray[np.bool_]:
    """Whether each site's batch of a moment is sent a second time, as by a collector that missed the answer."""
    return uniform(seed, f"twice/{topic}", sites, moment) < _TWICE


def _spells(
    seed: int, purpose: str, times: Times, subjects: int, chance: float, shortest: float, longest: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """(window, whether a spell is going on, when it began in ns) of each time and subject."""
    subject = np.arange(subjects)
    window = (times // (_WINDOW_SECONDS * _SECOND))[:, None]
    length = shortest + (longest - shortest) * uniform(seed, f"{purpose}/length", window, subject)
    begin = (_WINDOW_SECONDS - length) * uniform(seed, f"{purpose}/begin", window, subject)
    into = (times / _SECOND % _WINDOW_SECONDS)[:, None]
    struck = uniform(seed, purpose, window, subject) < chance
    began = window * _WINDOW_SECONDS * _SECOND + begin.astype(np.int64) * _SECOND
    return window, struck & (into >= begin) & (into < begin + length), began
