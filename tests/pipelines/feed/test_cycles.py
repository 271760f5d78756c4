from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.feed.cycles import DAY, HOUR, REFERENCE, cycles, lit_by_sun
from pipelines.feed.noise import hashed, normal, uniform

ONE = np.ones(1)


def load(seed: int = 1, **given: float):
    values = {"daily": 20.0, "peak_hour": 15.0, "utc_offset": 8 * HOUR, "weekly": 5.0, "slow": 0.0} | given
    return cycles(
        seed, "test", 100.0 * ONE, **{name: value * ONE for name, value in values.items()}, growth_per_year=0.1
    )


@given(start=st.floats(0, 3e8), span=st.floats(60, 1e6), seed=st.integers(0, 1000))
def test_the_integral_is_what_the_value_adds_up_to(start: float, span: float, seed: int) -> None:
    rising = load(seed, slow=10.0)
    fine = np.linspace(start, start + span, 4001)
    value = rising.value(fine)[:, 0]
    added_up = ((value[1:] + value[:-1]) / 2 * np.diff(fine)).sum()
    both = rising.integral(np.array([start, start + span]))[:, 0]
    assert both[1] - both[0] == pytest.approx(added_up, abs=1e-5 * 100 * span)


def test_a_counter_begins_at_zero() -> None:
    assert load(slow=10.0).integral(np.zeros(1)) == pytest.approx(0.0, abs=1e-6)


def test_the_day_peaks_at_the_local_hour_and_the_weekend_is_lower() -> None:
    hours = REFERENCE + np.arange(0, 28 * DAY, HOUR)
    value = load().value(hours)[:, 0]
    utc = ((hours / HOUR) % 24).astype(int)
    by_hour = [value[utc == hour].mean() for hour in range(24)]
    assert int(np.argmax(by_hour)) == 15 - 8
    weekday = np.array([datetime.fromtimestamp(h + 1420070400.0 + 8 * HOUR, UTC).weekday() for h in hours])
    assert value[weekday >= 5].mean() < value[weekday < 5].mean() - 3


def test_the_sun_gives_nothing_at_night_and_its_peak_at_one() -> None:
    sun = lit_by_sun(50.0 * ONE, 2.0 * ONE, 8 * HOUR * ONE)
    local = REFERENCE - 8 * HOUR + np.arange(0, DAY, HOUR)
    value = sun.value(local)[:, 0]
    assert value.min() == pytest.approx(2.0)
    assert value[1] == pytest.approx(2.0)
    assert value[13] == pytest.approx(52.0)


@given(st.integers(0, 2**31), st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_a_random_number_depends_on_what_it_is_for_and_on_nothing_else(seed: int, indices: list[int]) -> None:
    together = hashed(seed, "a", indices)
    assert together.tolist() == [hashed(seed, "a", index).item() for index in indices]
    assert (together != hashed(seed, "b", indices)).any()
    assert (together != hashed(seed + 1, "a", indices)).any()


def test_random_numbers_are_spread_as_they_should() -> None:
    many = np.arange(200_000)
    u, n = uniform(3, "u", many), normal(3, "n", many)
    assert 0 <= u.min() < u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=0.003)
    assert n.mean() == pytest.approx(0.0, abs=0.01)
    assert n.std() == pytest.approx(1.0, abs=0.01)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01
