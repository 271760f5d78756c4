from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.board.timerange import TimeError, TimeRange, interval_seconds, moment, quantised, time_range

NOW = datetime(2026, 11, 18, 15, 42, 7, 500000, UTC)  # a Wednesday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("now-6h", NOW - timedelta(hours=6)),
        ("now-1d/d", datetime(2026, 11, 17, tzinfo=UTC)),
        ("now/d", datetime(2026, 11, 18, tzinfo=UTC)),
        ("now/w", datetime(2026, 11, 16, tzinfo=UTC)),
        ("now/M", datetime(2026, 11, 1, tzinfo=UTC)),
        ("now-1y/y", datetime(2025, 1, 1, tzinfo=UTC)),
        ("now-9M", datetime(2026, 2, 18, 15, 42, 7, 500000, UTC)),
        ("now/d+8h", datetime(2026, 11, 18, 8, tzinfo=UTC)),
        ("1700157600000", datetime(2023, 11, 16, 18, tzinfo=UTC)),
        ("2023-11-16T18:00:00Z", datetime(2023, 11, 16, 18, tzinfo=UTC)),
        ("2023-11-16 18:00", datetime(2023, 11, 16, 18, tzinfo=UTC)),
        ("2023-11-17T02:00:00+08:00", datetime(2023, 11, 16, 18, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_grafana_reads_it(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


def test_the_end_of_a_rounded_day_is_its_last_moment() -> None:
    span = time_range("now/d", "now/d", NOW)
    assert span.start == datetime(2026, 11, 18, tzinfo=UTC)
    assert span.stop == datetime(2026, 11, 18, 23, 59, 59, 999000, UTC)


def test_a_month_back_from_the_31st_is_the_last_day_of_the_shorter_month() -> None:
    assert moment("now-1M", datetime(2026, 3, 31, tzinfo=UTC)) == datetime(2026, 2, 28, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "now-6x", "now--1h", "now-1", "2023-13-45", "now-999999999y"])
def test_what_is_no_time_is_refused_in_words(text: str) -> None:
    with pytest.raises(TimeError):
        moment(text, NOW)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(TimeError, match="empty"):
        time_range("now", "now-1h", NOW)


@pytest.mark.parametrize(
    ("hours", "points", "least", "expected"),
    [
        (3, 400, 1, 30),
        (3, 400, 60, 60),
        (6, 768, 60, 60),
        (24, 400, 60, 300),
        (24 * 30, 400, 60, 7200),
        (0.1, 800, 60, 60),
    ],
)
def test_a_bucket_is_round_and_never_finer_than_the_data(hours: float, points: int, least: int, expected: int) -> None:
    assert interval_seconds(TimeRange(NOW - timedelta(hours=hours), NOW), points, least) == expected


@given(st.floats(1, 1e8), st.integers(1, 2000), st.integers(1, 3600))
def test_buckets_are_never_many_more_than_asked_for(seconds: float, points: int, least: int) -> None:
    span = TimeRange(datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))
    width = interval_seconds(span, points, least)
    assert width >= least
    assert span.seconds / width <= points * 7 + 1  # 1 d up to 7 d


@given(st.integers(0, 4_000_000_000_000), st.sampled_from([5, 10, 30, 60]))
def test_all_who_ask_within_a_step_ask_the_same(milliseconds: int, step: int) -> None:
    now = datetime.fromtimestamp(milliseconds / 1000, UTC)
    rounded = quantised(now, step)
    assert timedelta() <= now - rounded < timedelta(seconds=step)
    assert quantised(rounded + timedelta(seconds=step * 0.99), step) == rounded


@given(st.text(max_size=20))
def test_no_text_breaks_the_reader(text: str) -> None:
    with suppress(TimeError):
        assert moment(text, NOW).tzinfo is not None
