"""One series' outlook: each model's calibrated bands and scores, which one to believe, and when a limit is passed."""

from dataclasses import dataclass

import numpy as np

from dags.forecasting.backtest import ENOUGH_HOURS, FEWEST_HOURS, Backtest, backtest, plan
from dags.forecasting.models import DAY, WEEK, Floats, Forecaster, SeasonalNaive, Theta, WeeklyProfile

BASELINES: tuple[Forecaster, ...] = (SeasonalNaive(DAY), SeasonalNaive(WEEK))
CANDIDATES: tuple[Forecaster, ...] = (Theta(), WeeklyProfile())
MEAN = "theta_and_weekly_profile"
"""The mean of the candidates' paths."""

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
    """The outlook of an hourly series that ends at the origin, NaN = missing hour.

    Candidates are tried one by one and, where there are several, as their mean.
    """
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

    def run(models: tuple[Forecaster, ...]) -> dict[str, Floats]:
        return {model.name: model.paths(values, course.origins, course.horizon) for model in models}

    def tested(paths: dict[str, Floats]) -> list[Backtest]:
        tests = [backtest(name, values, path, course) for name, path in paths.items()]
        return sorted(filter(_answers, tests), key=lambda test: (-_share(test), test.scores[-1].pinball))

    bases = tested(run(baselines))
    if not bases:
        return Outlook("Too many hours are missing to calibrate a band: not forecast.")
    base = bases[0]
    paths = run(candidates)
    if len(paths) > 1:
        paths[MEAN] = np.mean(list(paths.values()), axis=0)
    tests = [base, *(test for test in tested(paths) if _share(test) == _share(base))]
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
