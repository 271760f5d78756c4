"""Loads that follow the day, the week and slow chance, as sums of cosines.

A cosine can be integrated on paper, so an energy counter is exact at any moment without a memory of the past.
Time is in seconds since ORIGIN.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from pipelines.feed.noise import Reals, uniform

ORIGIN = datetime(2015, 1, 1, tzinfo=UTC)
"""Where counters begin at 0: a Thursday. Ten years of --history lie after it; 1 GW stays below 10^18 J until 2046."""

REFERENCE = (datetime(2026, 1, 1, tzinfo=UTC) - ORIGIN).total_seconds()
"""When a growing load has its mean."""

HOUR, DAY, WEEK, YEAR = 3600.0, 86_400.0, 7 * 86_400.0, 365.25 * 86_400.0

_SLOW = (5.3 * HOUR, 19.0 * HOUR, 3.7 * DAY, 9.1 * DAY, 23.0 * DAY)
"""Periods of chance, s, each stretched by up to a fifth: between the cycles, so that they don't lock to them."""


@dataclass(frozen=True)
class Cycles:
    """``mean`` and ``growth`` (per s) by load; ``terms`` are (amplitude, period in s, time of a maximum in s)."""

    mean: Reals
    growth: Reals
    terms: tuple[tuple[Reals, Reals, Reals], ...]

    def level(self, seconds: Reals) -> Reals:
        """The loads without their ups and downs, shape (times, loads)."""
        return self.mean + self.growth * (seconds[:, None] - REFERENCE)

    def value(self, seconds: Reals) -> Reals:
        """The loads at each time, shape (times, loads)."""
        t = seconds[:, None]
        total = self.level(seconds)
        for amplitude, period, peak in self.terms:
            total = total + amplitude * np.cos(2 * np.pi / period * (t - peak))
        return total

    def integral(self, seconds: Reals) -> Reals:
        """What has added up since ORIGIN, shape (times, loads)."""
        t = seconds[:, None]
        total = self.mean * t + self.growth * (t * t / 2 - REFERENCE * t)
        for amplitude, period, peak in self.terms:
            omega = 2 * np.pi / period
            total = total + amplitude / omega * (np.sin(omega * (t - peak)) + np.sin(omega * peak))
        return total


def cycles(
    seed: int,
    purpose: str,
    mean: Reals,
    *,
    daily: Reals,
    peak_hour: Reals,
    utc_offset: Reals,
    weekly: Reals,
    slow: Reals,
    yearly: Reals | float = 0.0,
    growth_per_year: float = 0.0,
) -> Cycles:
    """Loads with a daily peak at a local hour, less at weekends, some chance, and a maximum in July.

    The amplitudes ``daily``, ``weekly``, ``slow`` and ``yearly`` are in the unit of ``mean``; the day is flatter at
    weekends (two side bands), and has a second, smaller peak twelve hours apart.
    """
    load = np.arange(len(mean))
    every = np.ones(len(mean))
    peak = peak_hour * HOUR - utc_offset
    wednesday = 6.5 * DAY - utc_offset
    side = 1 / (1 / DAY - 1 / WEEK), 1 / (1 / DAY + 1 / WEEK)
    terms: list[tuple[Reals, Reals, Reals]] = [
        (0.75 * daily, DAY * every, peak),
        (0.15 * daily, DAY / 2 * every, peak),
        (0.05 * daily, side[0] * every, _aligned(peak, wednesday, DAY, WEEK, -1)),
        (0.05 * daily, side[1] * every, _aligned(peak, wednesday, DAY, WEEK, +1)),
        (weekly, WEEK * every, wednesday),
        (yearly * every, YEAR * every, 0.55 * YEAR * every),
    ]
    for number, period in enumerate(_SLOW):
        stretched = period * (1 + 0.2 * uniform(seed, f"{purpose}/period{number}", load))
        terms.append((slow / len(_SLOW), stretched, stretched * uniform(seed, f"{purpose}/phase{number}", load)))
    return Cycles(mean, mean * growth_per_year / YEAR, tuple(terms))


def lit_by_sun(peak: Reals, base: Reals, utc_offset: Reals) -> Cycles:
    """Solar generation over a ``base`` (wind): ((1 + cos) / 2)² of the day, ``peak`` more at one in the afternoon."""
    every = np.ones(len(peak))
    noon = 13 * HOUR - utc_offset
    return Cycles(base + 3 / 8 * peak, 0.0 * peak, ((peak / 2, DAY * every, noon), (peak / 8, DAY / 2 * every, noon)))


def seconds_since_origin(times: NDArray[np.int64]) -> Reals:
    """Unix nanoseconds as seconds since ORIGIN."""
    return (times - int(ORIGIN.timestamp()) * 1_000_000_000) / 1e9


def _aligned(peak: Reals, other_peak: Reals, period: float, other_period: float, sign: int) -> Reals:
    """The peak of one side band of the product of two cosines."""
    angle = 2 * np.pi * (peak / period + sign * other_peak / other_period)
    return angle / (2 * np.pi * (1 / period + sign / other_period))
