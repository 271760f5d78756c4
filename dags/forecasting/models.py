"""Point forecasters of hourly series: from the values before an origin to a path of the hours after it."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DAY, WEEK = 24, 168
"""Seasons, hours."""

FIT_WINDOW = 3 * WEEK
"""Hours that Theta is fitted on: 35 ms; twice as many take 94 ms and forecast no better on the real series at hand."""

REFIT_EVERY = 2 * WEEK
"""Hours after which a backtest fits Theta anew; in between the parameters roll forward, 1.5 ms an origin."""


class Forecaster(Protocol):
    """A model that answers for many origins at once, so that it may share work between them."""

    @property
    def name(self) -> str:
        """What it is called in tables and reports."""
        ...

    def paths(self, values: Floats, origins: Sequence[int], horizon: int) -> Floats:
        """Forecasts of shape (origins, horizon); row i sees ``values[:origins[i]]`` only, NaN = it can't say.

        ``values`` may hold NaN for missing hours, and an origin may be ``len(values)``.
        """
        ...


@dataclass(frozen=True)
class SeasonalNaive:
    """The value one season earlier, or the newest known at the same place of an earlier season."""

    season: int

    @property
    def name(self) -> str:
        """By its season in hours."""
        return f"seasonal_naive_{self.season}"

    def paths(self, values: Floats, origins: Sequence[int], horizon: int) -> Floats:
        """See Forecaster; NaN where no earlier season is known."""
        known = filled(values, self.season)
        out = np.full((len(origins), horizon), np.nan)
        for row, origin in enumerate(origins):
            if origin >= self.season:
                out[row] = np.resize(known[origin - self.season : origin], horizon)
        return out


@dataclass(frozen=True)
class Theta:
    """Dynamic optimised theta of statsforecast with a daily season; only its point path, bands come from calibration.

    Fiorucci et al., Models for optimising the theta method and their relationship to state space models, 2016.
    """

    season: int = DAY

    @property
    def name(self) -> str:
        """As statsforecast names it."""
        return "dynamic_optimized_theta"

    def paths(self, values: Floats, origins: Sequence[int], horizon: int) -> Floats:
        """See Forecaster; missing hours are filled from the day before, for the fit alone."""
        from statsforecast.models import DynamicOptimizedTheta  # 5 s to import

        known = filled(values, self.season)
        out = np.full((len(origins), horizon), np.nan)
        fitted: DynamicOptimizedTheta | None = None
        fitted_at = 0
        for row, origin in enumerate(origins):
            seen = known[max(0, origin - FIT_WINDOW) : origin]
            seen = seen[np.isfinite(seen)]
            if len(seen) < 2 * self.season:
                continue
            if np.ptp(seen) == 0:
                out[row] = seen[-1]
                continue
            # What it can't fit stays NaN: the backtest then refuses it, for it answered less than the baseline.
            with contextlib.suppress(Exception), np.errstate(all="ignore"):
                if fitted is None or origin - fitted_at >= REFIT_EVERY or origin == len(values):
                    fitted = DynamicOptimizedTheta(season_length=self.season).fit(seen)
                    fitted_at = origin
                out[row] = np.asarray(fitted.forward(seen, h=horizon)["mean"], dtype=np.float64)
        return out


@dataclass(frozen=True)
class WeeklyProfile:
    """The mean week of the last four, at today's level, which fades to the last week's.

    Theta knows no week; this does. By itself it is the worse of the two on the real series at hand (day ahead), but the
    mean of both is the best a week ahead: .09, .08 and .15 on PJM, BioHPC and ETTh1, against Theta's .09, .05 and .06.
    """

    weeks: int = 4
    fade_hours: float = 48.0

    @property
    def name(self) -> str:
        """As reports call it."""
        return "weekly_profile"

    def paths(self, values: Floats, origins: Sequence[int], horizon: int) -> Floats:
        """See Forecaster; NaN where less than a week is known."""
        known = filled(values, DAY)
        ahead = np.arange(horizon)
        fading = np.exp(-ahead / self.fade_hours)
        out = np.full((len(origins), horizon), np.nan)
        for row, origin in enumerate(origins):
            count = min(self.weeks, origin // WEEK)
            if count:
                weeks = known[origin - count * WEEK : origin].reshape(count, WEEK)
                levels = weeks.mean(axis=1)
                profile = (weeks - levels[:, None]).mean(axis=0)
                today = float((weeks[-1] - profile)[-DAY:].mean())
                out[row] = profile[ahead % WEEK] + levels[-1] + (today - levels[-1]) * fading
        return out


def filled(values: Floats, season: int) -> Floats:
    """A copy in which a missing hour holds the newest known value one or more seasons earlier; never a later one."""
    out = values.copy()
    for index in np.flatnonzero(~np.isfinite(out[season:])) + season:
        out[index] = out[index - season]
    return out
