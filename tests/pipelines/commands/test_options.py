"""Times as people write them on the command line."""

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.commands.options import moment, time_of
from schemas.errors import UsageError

NOW = datetime(2026, 5, 8, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("7d", NOW - timedelta(days=7)),
        ("999999w", datetime(1, 1, 1, tzinfo=UTC)),
        ("2026-04-30", datetime(2026, 4, 30, tzinfo=UTC)),
        ("2026-05-01T12:00+08:00", datetime(2026, 5, 1, 4, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_time_or_an_age(text: str, time: datetime) -> None:
    assert moment("--since", text, NOW) == time


@pytest.mark.parametrize("text", ["", "noon", "5", "7y", "-1d"])
def test_what_is_neither_is_told_with_its_option(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        moment("--since", text, NOW)


@pytest.mark.parametrize("text", ["", "7d", "2026-02-30"])
def test_an_age_or_a_day_that_is_not_there_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="--until"):
        time_of("--until", text)
