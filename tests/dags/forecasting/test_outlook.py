"""Which model is believed, and what is said where nothing can be."""

from dataclasses import dataclass

import numpy as np
import pytest

from dags.forecasting.backtest import FEWEST_HOURS
from dags.forecasting.outlook import first_above, outlook


def waves(hours: int, noise: float = 2.0) -> np.ndarray:
    at = np.arange(hours)
    weekend = np.where(at // 24 % 7 >= 5, -15, 0)
    return 100 + 20 * np.sin(2 * np.pi * at / 24) + weekend + np.random.default_rng(0).normal(0, noise, hours)


@dataclass(frozen=True)
class Oracle:
    """Knows the future, but answers only from some origins."""

    truth: tuple[float, ...]
    answers_from: int = 0
    name: str = "oracle"

    def paths(self, values, origins, horizon):
        truth = np.resize(np.array(self.truth), len(values) + horizon)
        out = np.stack([truth[origin : origin + horizon] for origin in origins])
        out[np.array(origins) < self.answers_from] = np.nan
        return out


def test_a_better_model_is_chosen_over_the_baseline():
    values = waves(840)
    seen = outlook(values, candidates=(Oracle(tuple(values)),))
    assert seen.chosen == "oracle"
    assert seen.skill("oracle", 0) > 0.9
    assert seen.skill(seen.baseline, 0) == 0


def test_a_model_that_answered_for_fewer_hours_is_rejected_however_good():
    values = waves(840)
    seen = outlook(values, candidates=(Oracle(tuple(values), answers_from=600),))
    assert [test.model for test in seen.tests] == [seen.baseline]


def test_the_real_models_beat_the_naive_where_there_is_a_week():
    seen = outlook(waves(840))
    assert seen.skill(seen.chosen, 1) > 0.05
    assert len(seen.tests) == 4


def test_a_short_history_says_how_much_is_needed():
    assert f"at least {FEWEST_HOURS}" in outlook(waves(FEWEST_HOURS - 1)).note
    seen = outlook(waves(300))
    assert seen.tests
    assert "check" in seen.note
    assert len(seen.tests[0].bands) < 168


def test_a_silent_or_unknown_series_is_not_forecast():
    values = waves(840)
    values[-30:] = np.nan
    assert "Unheard for the last 30 hours" in outlook(values).note
    assert not outlook(values).tests
    assert not outlook(np.full(840, np.nan)).tests


def test_a_constant_series_has_a_band_without_width_and_no_score_to_divide_by():
    seen = outlook(np.full(840, 5.0))
    test = seen.tests[0]
    assert (test.bands == 5.0).all()
    assert np.isnan(seen.skill(test.model, 0))


def test_an_idle_series_stays_idle_and_finite():
    seen = outlook(np.zeros(840))
    assert (seen.tests[0].bands == 0).all()
    assert np.isnan(seen.tests[0].scores[0].wql)


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (2.5, 2), (3, None), (9, None)])
def test_first_hour_above_a_limit(limit, expected):
    assert first_above(limit, np.array([1.0, 2.0, 3.0])) == expected
