"""One series' outlook: each model's calibrated bands and scores, which one to believe, and when a limit is passed."""

from dataclasses import dataclass

import numpy as np

from dags.forecasting.backtest import ENOUGH_HOURS, FEWEST_HOURS, Backtest, Score, backtest, plan
from dags.forecasting.models import DAY, WEEK, Floats, Forecaster, SeasonalNaive, Theta

BASELINES: tuple[Forecaster, ...] = (SeasonalNaive(DAY), SeasonalNaive(WEEK))
CANDIDATES: tuple[Forecaster, ...] = (Theta(),)

SILENT_HOURS = DAY
"""A series unheard for so long before the origin is not forecast."""


@dataclass(frozen=True)
class Outlook:
    """What is said of one series; without ``tests`` nothing is, and ``note`` says why.

    ``tests`` are the baseline and the candidates admitted; ``chosen`` names the one with the least loss.
    """

    note: str
    tests: tuple[Backtest, ...] = ()
    baseline: str = ""
    chosen: str = ""

    def skill(self, model: str, place: int) -> float:
        """1 - loss over the baseline's at the same hours: above 0 is better than repeating the past. NaN if idle."""
        losses = {test.model: test.scores[place].pinball for test in self.tests}
        base = losses[self.baseline]
        return 1 - losses[model] / base if base > 0 else float("nan")


def outlook(
    values: Floats,
    baselines: tuple[Forecaster, ...] = BASELINES,
    candidates: tuple[Forecaster, ...] = CANDIDATES,
) -> Outlook:
    """The outlook of an hourly series that ends at the origin, NaN = missing hour."""
    known = np.flatnonzero(np.isfinite(values))
    if known.size == 0:
        return Outlook("No hour of it is known.")
    silent = len(values) - 1 - int(known[-1])
    if silent >= SILENT_HOURS:
        return Outlook(f"Unheard for the last {silent} hours: not forecast.")
    values = values[int(known[0]) :]
    course = plan(len(values))
    if course is None or known.size < FEWEST_HOURS:
        return Outlook(f"{known.size} hours are known: at least {FEWEST_HOURS} are needed to forecast a day ahead.")

    def run(model: Forecaster) -> Backtest:
        return backtest(model.name, values, model.paths(values, course.origins, course.horizon), course)

    bases = sorted(
        (test for test in map(run, baselines) if _answers(test)), key=lambda t: (-_share(t), t.scores[-1].pinball)
    )
    if not bases:
        return Outlook("Too many hours are missing to calibrate a band: not forecast.")
    base = bases[0]
    tests = [base, *(test for test in map(run, candidates) if _answers(test) and _share(test) == _share(base))]
    best = min(tests, key=lambda test: test.scores[-1].pinball)
    note = (
        ""
        if course.horizon == WEEK
        else f"{len(values)} hours of history check {course.horizon} hours ahead; {ENOUGH_HOURS} hours check a week."
    )
    return Outlook(note, tuple(tests), base.model, best.model)


def first_above(limit: float, path: Floats) -> int | None:
    """The first hour ahead (0 = the hour of the origin) at which a path is above a limit; None if it never is."""
    above = np.flatnonzero(path > limit)
    return int(above[0]) if above.size else None


def _answers(test: Backtest) -> bool:
    return bool(np.isfinite(test.bands).all()) and test.scores[-1].hours > 0


def _share(test: Backtest) -> float:
    """A model that answered for fewer hours than another can't be compared with it."""
    return test.scores[-1].scored_share


__all__ = ["Outlook", "Score", "first_above", "outlook"]
