"""The age at which events could be queried, from when the broker took them and what each look found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bench.freshness import freshness


def test_an_event_is_visible_at_the_first_look_that_finds_as_many_as_came_before_it() -> None:
    arrivals = [(1_000_000, 60), (1_001_000, 40)]
    looks = [(1000.5, 0), (1001.5, 60), (1003.0, 100)]
    assert freshness(arrivals, looks, 1000, 1001) == (1.5, 1.5)
    assert freshness(arrivals, looks, 1001, 1002) == (2.0, 2.0)


def test_percentiles_are_of_events_and_not_of_moments() -> None:
    arrivals = [(1_000_000, 98), (1_000_500, 2)]
    looks = [(1000.25, 98), (1010.5, 100)]
    assert freshness(arrivals, looks, 1000, 1001) == (0.25, 10.0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), min_size=1, max_size=30), st.integers(1, 5000))
def test_events_that_all_wait_alike_are_that_old(steps: list[tuple[int, int]], wait_ms: int) -> None:
    at, arrived, looks = 0, 0, []
    arrivals: list[tuple[int, int]] = []
    for pause, count in steps:
        at += pause + 1
        arrived += count
        arrivals.append((at, count))
        looks.append(((at + wait_ms) / 1000, arrived))
    assert freshness(arrivals, looks, 0, 1e9) == pytest.approx((wait_ms / 1000, wait_ms / 1000))


@pytest.mark.parametrize("looks", [[(1001.0, 9)], [(1000.5, 0)]])
def test_events_that_were_never_visible_are_no_figure(looks: list[tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match="never visible"):
        freshness([(1_000_000, 10)], looks, 1000, 1001)


def test_a_time_without_events_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no event"):
        freshness([(1_000_000, 10)], [(1001.0, 10)], 2000, 2001)
